"""Which files other processes have open: what somebody works with is not removed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path


def open_files(folder: Path) -> dict[Path, int]:
    """Every file below a folder that another process has open or mapped into its memory, and that
    process.

    Of another user's processes, and of another container's, nothing shows.
    """
    below = f"{folder.resolve()}{os.sep}"
    found: dict[Path, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        files = [Path(file) for file in _files_of(process) if file.startswith(below)]
        found.update(dict.fromkeys(files, int(process.name)))
    return found


def user_of(folder: Path, opened: Mapping[Path, int]) -> int | None:
    """A process that has a file below the folder open, or None."""
    place = folder.resolve()
    return next((user for file, user in opened.items() if file.is_relative_to(place)), None)


def _files_of(process: Path) -> Iterator[str]:
    """As far as they show: it may end while it is looked at, or be another user's."""
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(link.readlink())
    # A model's weights are mapped, and their file closed.
    with suppress(OSError):
        for line in (process / "maps").read_bytes().splitlines():
            _, slash, rest = line.partition(b" /")
            if slash:
                yield os.fsdecode(b"/" + rest)
