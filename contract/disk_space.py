"""Check the free disk space before work that takes much of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from contract.errors import UserError


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
