"""Check the free disk space before work that takes much of it, and know a disk that filled."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from contract.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Some libraries say no more than that they could not write: then the disk itself is asked. What is
# left on it is less than they wanted at a time.
_LEFT_BYTES = 1 << 20


def check_disk_space(
    folder: Path, needed_bytes: float, *, where: str, purpose: str, remedy: str
) -> None:
    """Check that the disk of a folder has room for what is to be written there.

    Args:
        where: begins the sentence: the folder as a person knows it.
        purpose: what takes the space, with its verb: `the environment takes up to`.

    Raises:
        UserError: there is too little.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError.one(
            where,
            f"the disk has {free_bytes / 1e9:.1f} GB free, but {purpose} "
            f"{needed_bytes / 1e9:.1f} GB",
            remedy,
        )


def full_disk(error: BaseException, folder: Path) -> UserError | None:
    """The sentence for an error that comes of a full disk; None for any other.

    Args:
        folder: where the work that failed writes.
    """
    if not any(map(_says_full, _chain(error))) and not _is_full(folder):
        return None
    return UserError.one(
        str(getattr(error, "filename", None) or folder),
        "its disk is full",
        "Free some space and run the same command again: it resumes.",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(os.strerror(number) in str(error) for number in _FULL)


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _LEFT_BYTES
    except OSError:
        return False
