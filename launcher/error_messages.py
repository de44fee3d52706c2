"""How errors reach people: their text on standard error, and an exit code."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contract.errors import AffineurError, ExitCode
from launcher.encoding import degrade_output
from launcher.interruption import signals_handled

_USERS_OWN = {
    errno.EACCES: "Check its owner and permissions (ls -l).",
    errno.EPERM: "Check its owner and permissions (ls -l).",
    errno.EROFS: "Use a folder that is writable.",
    errno.ENOSPC: "Free some space on that disk and run the same command again.",
    errno.EDQUOT: "Free some of your quota and run the same command again.",
    errno.ENAMETOOLONG: "Use a shorter name.",
    errno.ELOOP: "Its links lead in a circle: remove one of them.",
    errno.ENOTDIR: "A part of this path is a file and no folder.",
    errno.EEXIST: "Move it away, or, where it is a link, see that what it leads to is there.",
    errno.EISDIR: "Name a file, not a folder.",
}
# What other programs put into words of the system's own.
_SPOKEN_OF = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@contextmanager
def exit_on_error(exit_with: Callable[..., BaseException]) -> Iterator[None]:
    """Turn errors into messages and `exit_with(message, code)`.

    Ctrl-C, SIGTERM and a closed terminal stop what runs in good order: see `interruption`.
    """
    degrade_output()
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


def remedy_in(said: str, otherwise: str) -> str:
    """What to do about the operating system's refusal that another program's output speaks of."""
    for number in _SPOKEN_OF:
        if os.strerror(number).lower() in said.lower():
            return _USERS_OWN[number]
    return otherwise
