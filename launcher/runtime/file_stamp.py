"""What the file system says of a file: as long as that stands, the file holds what it held."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

# The clock that file systems take their times from ticks every 1 to 10 ms: a file that was written
# within a tick can be written again without another time.
_TICK_NS = 20_000_000


class FileStamp(NamedTuple):
    """A file's size, inode and times.

    Size and modification time alone can be put back by `cp -p` or `touch -r`; the time of the last
    change of the inode cannot.
    """

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """The stamp of the file that this path leads to.

        Raises:
            OSError: there is none, or it cannot be looked at.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def wait_for_the_next(self) -> None:
        """Wait until a change of the file would give it another stamp: milliseconds, at most."""
        age_ns = time.time_ns() - self.changed_ns
        if 0 <= age_ns < _TICK_NS:
            time.sleep((_TICK_NS - age_ns) / 1e9)


Stamps = Mapping[Path, FileStamp | None]


def stamps(paths: Iterable[Path]) -> dict[Path, FileStamp | None]:
    """The stamp of each file; None where it does not exist."""
    return {path: _stamp(path) for path in paths}


def changed(before: Stamps) -> list[Path]:
    """The files that have another stamp than before, or have come or gone."""
    return [path for path, stamp in before.items() if _stamp(path) != stamp]


def _stamp(path: Path) -> FileStamp | None:
    try:
        return FileStamp.of(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
