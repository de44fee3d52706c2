"""A launcher of one piece of Python in a container: `python -m tests.odd_container DIR CODE`."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.display import Display
from launcher.error_messages import exit_on_error
from launcher.runtime.docker_engine import DockerEngine
from launcher.runtime.exclusive_lock import exclusive_lock
from tests.container.conftest import probe_job


def launch(folder: Path, code: str) -> int:
    """Run the code in a folder that is held, and return its exit code."""
    engine = DockerEngine()
    with exclusive_lock(folder):
        return engine.run(probe_job(engine, folder, code), print, Display()).code


def _exit(text: str, code: int) -> SystemExit:
    print(text, file=sys.stderr)
    return SystemExit(code)


if __name__ == "__main__":
    with exit_on_error(_exit):
        sys.exit(launch(Path(sys.argv[1]), sys.argv[2]))
