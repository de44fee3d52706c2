"""Run a command with all that it says in a log file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher.project import ROOT


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    folder: Path = ROOT,
) -> int:
    """Run the command in a folder, the project's by default, and return its exit code.

    The log is written anew; `environment` stands in for the environment where it is given;
    `on_line` hears every line as it comes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                on_line(line)
            return process.wait()
        except BaseException:
            process.terminate()
            raise
