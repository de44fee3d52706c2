"""Hold a folder against other launchers, for as long as the work on it lasts."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import UserError
from launcher.project import shown


@contextmanager
def exclusive_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, by a lock file in it, for as long as the block lasts.

    Args:
        wait: for another launcher that holds it, instead of refusing.

    Raises:
        UserError: another launcher holds it, and it is not waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError.one(
                shown(folder), "is in use by another run", "Wait for it, or stop it."
            ) from None
        yield
