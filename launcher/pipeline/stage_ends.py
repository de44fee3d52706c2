"""How a stage ended that did not end well, in words."""

from __future__ import annotations

import signal
from pathlib import Path

from contract.errors import AffineurError, UserError
from launcher.project import shown
from launcher.runtime.engine import Ending

_TAIL_LINES = 20
_ENDED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


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


def _ended_from_outside(name: str, ending: Ending) -> UserError:
    again = "Finished stages are kept; run the same command to resume."
    less = "Use a smaller batch_size or max_length, or give it more memory."
    if ending.memory_ran_out:
        return UserError.one(name, "was killed because it ran out of memory", f"{less} {again}")
    number = -ending.code
    how = f"was terminated by signal {number} (exit code {128 + number})"
    if number == signal.SIGKILL:
        how += ", by hand or by the kernel because this machine ran out of memory (see dmesg)"
    return UserError.one(name, how, f"In the latter case: {less} {again}" if number == 9 else again)


def _ending(code: int) -> str:
    if code == -signal.SIGSEGV:
        return f"crashed with a segmentation fault (exit code {128 - code})"
    if code < 0:
        return f"was terminated by signal {-code} (exit code {128 - code})"
    return f"exited with code {code}"
