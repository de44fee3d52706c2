"""How a stage ended that did not end well, in words."""

from __future__ import annotations

import signal
from pathlib import Path

from contract.errors import AffineurError, UserError
from launcher.project import shown
from launcher.runtime.engine import Ending

_TAIL_LINES = 20
_ENDED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
# The stages whose memory grows with the longest row, and those that hold the base or a part of it.
_BY_ROW_LENGTH = frozenset({"train", "reference"})
_BY_BASE_SIZE = frozenset({"train", "merge", "convert", "quantize", "reference", "baseline"})


class StageCrashed(AffineurError):
    """A stage ended otherwise than by its contract: a bug, or a kill from outside."""

    def __init__(self, stage: str, reason: str, log: Path) -> None:
        self.stage, self.reason, self.log = stage, reason, log
        super().__init__(f"{stage} {reason}")

    def text(self) -> str:
        """The last lines of the stage's log, what ended, and where the rest of the log is."""
        lines = []
        if self.log.exists():
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(lines[-_TAIL_LINES:])
        return (f"{tail}\n\n" if tail else "") + f"{super().text()}. Log: {shown(self.log)}"


def end_of(stage: str, ending: Ending, log: Path) -> AffineurError:
    """What to raise for a stage that ended otherwise than by its contract."""
    if ending.memory_ran_out or -ending.code in _ENDED_FROM_OUTSIDE:
        return _ended_from_outside(stage, ending)
    return StageCrashed(stage, _ending(ending.code), log)


def killed(ending: Ending) -> str:
    """How a job was killed for lack of memory: `was killed at its limit of 600 MiB`."""
    if ending.memory_limit_bytes is None:
        return "was killed because this machine had none left"
    return f"was killed at its limit of {_mebibytes(ending.memory_limit_bytes)}"


def _ended_from_outside(name: str, ending: Ending) -> UserError:
    again = "Finished stages are kept; run the same command to resume."
    less = _less_memory(name, ending)
    if ending.memory_ran_out:
        return UserError.one(name, f"ran out of memory and {killed(ending)}", f"{less} {again}")
    number = -ending.code
    how = f"was terminated by signal {number} (exit code {128 + number})"
    if number == signal.SIGKILL:
        how += ", by hand or by the kernel because this machine ran out of memory (see dmesg)"
    return UserError.one(name, how, f"In the latter case: {less} {again}" if number == 9 else again)


def _less_memory(name: str, ending: Ending) -> str:
    """What would help, in the order of what it costs."""
    limited = ending.memory_limit_bytes is not None
    ways = ["raise --memory"] if limited else ["close other programs", "add swap"]
    if name in _BY_ROW_LENGTH:
        ways.append("lower max_length")
    if name in _BY_BASE_SIZE:
        ways.append("take a smaller base")
    *first, last = ways
    listed = f"{', '.join(first)}{',' if first[1:] else ''} or {last}" if first else last
    return f"{listed[0].upper()}{listed[1:]}."


def _mebibytes(size_bytes: int) -> str:
    # As `--memory` is read: 12g are so many GiB.
    if size_bytes % 2**30 == 0:
        return f"{size_bytes >> 30} GiB"
    return f"{size_bytes / 2**20:,.0f} MiB"


def _ending(code: int) -> str:
    if code == -signal.SIGSEGV:
        return f"crashed with a segmentation fault (exit code {128 - code})"
    if code < 0:
        return f"was terminated by signal {-code} (exit code {128 - code})"
    return f"exited with code {code}"
