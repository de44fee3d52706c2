"""How errors reach people: sentences on standard error, and an exit code."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from launcher.project import shown
from launcher.promote.promotion import GateSaidNo
from launcher.serving.verifying import NotTheTrainedModel
from launcher.stage import StageCrashed
from trainer.contract.errors import ExitCode, UserError

_MOST_PROBLEMS = 20
_MENDED_BY_PEOPLE = {
    errno.EACCES: "See whose it is (ls -l), and that you may write there.",
    errno.EPERM: "See whose it is (ls -l), and that you may write there.",
    errno.EROFS: "Work in a folder that can be written.",
    errno.ENOSPC: "Make room on that disk and run the same command again.",
    errno.EDQUOT: "Make room in your quota and run the same command again.",
}


@contextmanager
def exits(exit_with: Callable[..., Exception]) -> Iterator[None]:
    """Turn errors into messages and `exit_with(message, code)`.

    SIGTERM is treated as Ctrl-C is: what runs is stopped in good order.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except UserError as error:
        raise exit_with(user_error_text(error), int(ExitCode.USER_CAN_MEND)) from None
    except OSError as error:
        if error.errno not in _MENDED_BY_PEOPLE:
            raise
        raise exit_with(refusal_text(error), int(ExitCode.USER_CAN_MEND)) from None
    except NotTheTrainedModel as failure:
        raise exit_with(failure_text(failure), int(ExitCode.BUG)) from None
    except GateSaidNo as no:
        raise exit_with(gate_text(no), int(ExitCode.GATE_SAID_NO)) from None
    except StageCrashed as crash:
        raise exit_with(crash_text(crash), int(ExitCode.BUG)) from None
    except KeyboardInterrupt:
        text = "affineur: stopped. Finished stages are kept: run the same command to go on."
        raise exit_with(text, int(ExitCode.INTERRUPTED)) from None


def user_error_text(error: UserError) -> str:
    """One sentence for one problem, a counted list for several."""
    problems = error.problems
    if len(problems) == 1:
        return f"affineur: {problems[0]}"
    lines = [f"affineur: {len(problems)} problems"]
    lines += [f"  {problem}" for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        lines.append(f"  ... and {len(problems) - _MOST_PROBLEMS} more")
    return "\n".join(lines)


def failure_text(failure: NotTheTrainedModel) -> str:
    """The lines that failed, and what stands now."""
    lines = [f"  {'✓' if c.passed else '✗'} {c.name}: {c.found}" for c in failure.checks]
    kept = "What was served before under its name still is."
    return "\n".join([*lines, "", f"affineur: {failure}. {kept}"])


def gate_text(no: GateSaidNo) -> str:
    """What the gate demands and was not shown, and the way around it."""
    lines = [f"  {'✓' if ln.passed else '✗'} {ln.name}: {ln.found}" for ln in no.decision.lines]
    around = 'Nothing was changed. To promote it all the same: --override "the reason".'
    return "\n".join([*lines, "", f"affineur: {no}. {around}"])


def refusal_text(error: OSError) -> str:
    """What the operating system refuses, and where."""
    remedy = _MENDED_BY_PEOPLE[error.errno or 0]
    return f"affineur: {error.filename or 'a file'}: {error.strerror}. {remedy}"


def crash_text(crash: StageCrashed) -> str:
    """What ended, the last lines of its log, and where the rest is."""
    tail = crash.tail()
    return (f"{tail}\n\n" if tail else "") + (
        f"affineur: {crash.stage} {crash.reason}. Its log: {shown(crash.log)}"
    )


def _interrupt(_signal: int, _frame: object) -> None:
    # A second one must not cut off the first one's good order.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("affineur: asked to stop", file=sys.stderr)
    raise KeyboardInterrupt
