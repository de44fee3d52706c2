"""Run a command with all that it says in a log file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher.interruption import deferred, killed_at_once
from launcher.project import ROOT
from launcher.runtime.exclusive_lock import held_descriptors


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    on_line: Callable[[str], None] = lambda line: None,
    folder: Path = ROOT,
) -> int:
    """Run the command in a folder, the project's by default, and return its exit code.

    The log is written anew; `environment` is the whole one (see `child_environment`); `on_line`
    hears every line as it comes. The folders that we hold stay held until the command has ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    process = None
    with log.open("w", encoding="utf-8") as file:
        try:
            with deferred():
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    errors="replace",
                    pass_fds=held_descriptors(),
                )
            with killed_at_once(process.kill), process:
                assert process.stdout is not None
                for line in process.stdout:
                    file.write(line)
                    on_line(line)
                return process.wait()
        except BaseException:
            if process is not None:
                process.terminate()
                with killed_at_once(process.kill):
                    process.wait()
            raise
