"""What this user's clones share, beside uv's packages: folders that are made once.

Each entry is named after the digest of all that decides it, and is copied, never linked: an edit
in one clone's cache reaches no other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def shared(name: str) -> Path:
    """Where the entry of this name lies in this user's cache, if it is there."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given else Path.home() / ".cache") / "affineur" / name


def take_or_make(folder: Path, name: str, make: Callable[[], None]) -> None:
    """Copy the shared entry of this name to a folder that is not there yet, or make the folder and
    share it.
    """
    kept = shared(name)
    if kept.is_dir():
        copy_whole(kept, folder)
    else:
        make()
        copy_whole(folder, kept)


def copy_whole(folder: Path, target: Path) -> None:
    """Copy a folder to a place where none is yet: the target is there whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        copied = Path(shutil.copytree(folder, Path(scratch) / target.name))
        with suppress(OSError):
            # Where it cannot be, another launcher was quicker: it is the same.
            copied.rename(target)
