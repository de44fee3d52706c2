"""Print the slowest tests of one or more pytest runs, from their JUnit files.

`python -m tests.slowest FILE...`, after runs with `--junitxml=FILE`. A test's time is its setup's,
its own and its teardown's together: a shared fixture counts for the first test that asks for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

_SHOWN = 20


def slowest(files: Sequence[Path]) -> list[tuple[float, str]]:
    """Seconds and name of the slowest tests in the files, the slowest first."""
    times = [
        (float(case.attrib["time"]), f"{case.attrib['classname']}::{case.attrib['name']}")
        for file in files
        for case in ElementTree.parse(file).iter("testcase")
    ]
    return sorted(times, reverse=True)[:_SHOWN]


if __name__ == "__main__":
    for seconds, name in slowest([Path(file) for file in sys.argv[1:]]):
        print(f"{seconds:8.1f} s  {name}")
