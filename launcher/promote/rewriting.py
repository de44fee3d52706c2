"""Give a person's file another content: whole, and with everything else of it as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from contract.atomic_write import atomic_write


def rewrite(path: Path, content: str | bytes) -> None:
    """Replace a file's content; its mode, owner and group stay, and a link that leads to it.

    Raises:
        PermissionError: it was somebody else's, and now is whoever's that ran this.
    """
    # The file itself, where a symbolic link leads to it.
    target = path.resolve()
    standing = target.stat()
    # It may hold secrets: never readable by more people than before, nor by fewer.
    atomic_write(target, content, stat.S_IMODE(standing.st_mode))
    written = target.stat()
    if (written.st_uid, written.st_gid) != (standing.st_uid, standing.st_gid):
        os.chown(target, standing.st_uid, standing.st_gid)
        # A change of owner takes the bits of set-user-id and set-group-id away.
        target.chmod(stat.S_IMODE(standing.st_mode))
