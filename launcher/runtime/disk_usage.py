"""How much of a disk files take."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# The unit of `st_blocks`, whatever the file system's own blocks are.
_BLOCK_BYTES = 512


def used_bytes(path: Path) -> int:
    """What a file, or a folder with all that is in it, takes on its disk.

    Links are not followed, and a file with several names counts once. What cannot be read, or goes
    away meanwhile, counts nothing.
    """
    total, seen = 0, set()
    left = [path]
    while left:
        here = left.pop()
        try:
            status = here.lstat()
            if stat.S_ISDIR(status.st_mode):
                left += [Path(entry) for entry in os.scandir(here)]
        except OSError:
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * _BLOCK_BYTES
    return total
