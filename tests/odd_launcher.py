"""A launcher of one odd stage, on the local engine: `python -m tests.odd_launcher DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.display import Display
from launcher.error_messages import exit_on_error
from launcher.runtime.engine import Job, Mount
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.local_engine import LocalEngine


def launch(folder: Path) -> int:
    """Run the stage in a folder that is held, and return its exit code."""
    job = Job(
        module="tests.odd_stage",
        lock="rtx",
        mounts=(Mount("run", folder, writable=True),),
        log=folder / "log",
        secrets={"HF_TOKEN": "hf_said_to_the_stage"},
    )
    with exclusive_lock(folder):
        return LocalEngine().run(job, print, Display()).code


def _exit(text: str, code: int) -> SystemExit:
    print(text, file=sys.stderr)
    return SystemExit(code)


if __name__ == "__main__":
    with exit_on_error(_exit):
        sys.exit(launch(Path(sys.argv[1])))
