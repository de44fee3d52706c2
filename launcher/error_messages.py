"""How errors reach people: their text on standard error, and an exit code."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contract.errors import AffineurError, ExitCode
from launcher.interruption import signals_handled

_USERS_OWN = {
    errno.EACCES: "Check its owner and permissions (ls -l).",
    errno.EPERM: "Check its owner and permissions (ls -l).",
    errno.EROFS: "Use a folder that is writable.",
    errno.ENOSPC: "Free some space on that disk and run the same command again.",
    errno.EDQUOT: "Free some of your quota and run the same command again.",
}


@contextmanager
def exit_on_error(exit_with: Callable[..., BaseException]) -> Iterator[None]:
    """Turn errors into messages and `exit_with(message, code)`.

    Ctrl-C, SIGTERM and a closed terminal stop what runs in good order: see `interruption`.
    """
    try:
        with signals_handled():
            yield
    except AffineurError as error:
        raise exit_with(error.text(), int(error.exit_code)) from None
    except OSError as error:
        if error.errno not in _USERS_OWN:
            raise
        raise exit_with(operating_system_text(error), int(ExitCode.USER_ERROR)) from None
    except KeyboardInterrupt:
        text = "affineur: stopped. Finished stages are kept: run the same command to resume."
        raise exit_with(text, int(ExitCode.INTERRUPTED)) from None


def operating_system_text(error: OSError) -> str:
    """What the operating system refuses, and where."""
    remedy = _USERS_OWN[error.errno or 0]
    return f"affineur: {error.filename or 'a file'}: {error.strerror}. {remedy}"
