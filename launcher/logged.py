"""Run a command with all that it says in a log file."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.project import ROOT


def run_logged(
    command: Sequence[str], log: Path, surroundings: Mapping[str, str] | None = None
) -> int:
    """Run the command in the project's folder and return its exit code.

    The log is written anew; `surroundings` stands in for the environment where it is given.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=surroundings, stdout=file, stderr=file, check=False
        )
    return done.returncode
