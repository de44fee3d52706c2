"""Log files, and commands with all that they say in one."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from contract.errors import UserError
from launcher.interruption import deferred, killed_at_once
from launcher.project import ROOT, shown
from launcher.runtime.exclusive_lock import held_descriptors


def open_log(log: Path) -> TextIO:
    """A log file to write to, begun anew, in a folder that is made where it is missing.

    Raises:
        UserError: in its place is a symbolic link, which is not followed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        return os.fdopen(os.open(log, flags, 0o644), "w", encoding="utf-8")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError.one(
                shown(log), "is a symbolic link, and a log is written here", "Remove it."
            ) from None
        raise


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
    process = None
    with open_log(log) as file:
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
