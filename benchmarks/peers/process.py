"""Run one command to its end and measure it: seconds, the processor's seconds, peak memory."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.interruption import deferred
from launcher.runtime.logged_process import open_log


@dataclass(frozen=True)
class Usage:
    """What a command took.

    `cpu_s` is user and system time of the process and of all that it waited for. `peak_bytes` is
    the largest resident set of any one of them: where one only waits for another, the trainer's.
    """

    code: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    timed_out: bool


def measure(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    timeout_s: float,
) -> Usage:
    """Run a command in a folder; all that it says goes to the log.

    The caller's own memory must be small: a process inherits its parent's peak.

    Raises:
        KeyboardInterrupt: a stop was asked for; the command and what it started are gone.
    """
    process = None
    with open_log(log) as file:
        try:
            with deferred():
                started_s = time.monotonic()
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    # A group of its own, so that all of it can be ended.
                    start_new_session=True,
                )
            late = threading.Event()
            timer = threading.Timer(timeout_s, _end_late, [process.pid, late])
            timer.daemon = True
            timer.start()
            try:
                _, status, used = os.wait4(process.pid, 0)
            finally:
                timer.cancel()
            wall_s = time.monotonic() - started_s
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process is not None:
                _end(process)
    return Usage(
        code=process.returncode,
        wall_s=wall_s,
        cpu_s=used.ru_utime + used.ru_stime,
        # Linux counts it in units of 1,024 bytes.
        peak_bytes=used.ru_maxrss * 1024,
        timed_out=late.is_set(),
    )


def _end_late(group: int, late: threading.Event) -> None:
    late.set()
    _kill(group)


def _end(process: subprocess.Popen[bytes]) -> None:
    # What it started may have outlived it; until then the group is nobody else's.
    _kill(process.pid)
    process.wait()


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def last_words(log: Path) -> str:
    """The last error in a log, or else its last line; at most 160 characters."""
    said = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.partition(":")[0]]
    last = (errors or lines or ["it said nothing"])[-1]
    return last if len(last) <= 160 else f"{last[:159]}…"
