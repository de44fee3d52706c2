"""Folders of which a user names the place and we remove what is in them.

Such a folder says itself that it is ours, by a file that was written when it was made: what lies
elsewhere is a person's, whatever its name. `.ci/engine` and `./invoke` write the same file.
"""

from __future__ import annotations

from pathlib import Path

from contract.atomic_write import atomic_write
from contract.errors import UserError

OWNER_FILE = ".affineur"
_TEXT = "Affineur made this folder, and removes what is in it when it makes it anew.\n"


def own(folder: Path, flag: str) -> None:
    """Make a folder ours, or see that it is.

    Raises:
        UserError: as `check_ours`.
    """
    check_ours(folder, flag)
    if not (folder / OWNER_FILE).exists():
        atomic_write(folder / OWNER_FILE, _TEXT)


def check_ours(folder: Path, flag: str) -> None:
    """See that a folder is ours, or nobody's yet.

    Raises:
        UserError: it holds something and was not made by us.
    """
    if (folder / OWNER_FILE).is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError.one(
            flag,
            f"{folder} was not made by Affineur, and what is in it would be removed",
            "Give a folder of its own: one that is empty, or not there yet.",
        )
