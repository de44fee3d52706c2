"""Where a stage writes, and how what it wrote gets into the folder that people look into.

A container writes what it likes. So it writes into a folder of its own, and the launcher takes the
declared outputs out of it when the stage is done: plain files and folders with one name each, moved
by rename. A link is never followed, and what was not declared is removed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from contract.atomic_write import atomic_write
from contract.errors import UserError
from contract.events import MemoryFallback
from contract.paths import WORK, memory_fallback
from launcher.pipeline.stages import Stage
from launcher.project import shown
from launcher.runtime.removal import remove


class WorkFolder:
    """What one stage may write to while it runs."""

    def __init__(self, folder: Path, stage: Stage) -> None:
        """Nothing is made yet; `folder` is the one that the stage's outputs get into."""
        self._folder = folder
        self._stage = stage
        # In the folder that the outputs get into, so that a rename is enough.
        self.path = folder / WORK / stage.name
        self.code = folder / WORK / f"{stage.name}.code"
        self._key = folder / WORK / f"{stage.name}.key"
        # Beside the folder: the stage reads it and cannot write to it.
        self._fallback = folder / memory_fallback(stage.name)

    def open(self, key: str) -> None:
        """Make it, empty but for what an interrupted attempt with the same key left of a stage that
        continues.
        """
        if not (self._stage.continues and self._is_of(key)):
            self.remove()
        self.path.mkdir(parents=True, exist_ok=True)
        remove(self.code)
        atomic_write(self._key, key)

    def keep_fallback(self, fallback: MemoryFallback) -> None:
        """Have the stage go on with less memory, at this start and at every one with this key."""
        fallback.write(self._fallback)

    def forget_fallback(self) -> None:
        """Have the stage begin with what its recipe says."""
        remove(self._fallback)

    def names_left(self, key: str, pattern: str) -> list[str]:
        """Of what an interrupted attempt with this key left of a stage that continues."""
        if not (self._stage.continues and self._is_of(key)):
            return []
        return [path.name for path in self.path.glob(pattern)]

    def adopt(self) -> None:
        """Check the declared outputs and move them into the folder, in place of the old ones.

        Raises:
            UserError: one of them, or a part of it, is no plain file or folder.
        """
        found = list(self._outputs())
        for pattern in self._stage.outputs:
            for old in list(self._folder.glob(pattern)):
                remove(old)
        for output in found:
            target = self._folder / output.relative_to(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            output.rename(target)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        for path in (self._key, self.path, self.code, self._fallback):
            remove(path)
        with suppress(OSError):
            # Not empty: another stage continues.
            self.path.parent.rmdir()

    def _is_of(self, key: str) -> bool:
        try:
            return self._key.read_text(encoding="utf-8") == key
        except (OSError, UnicodeDecodeError):
            return False

    def _outputs(self) -> Iterator[Path]:
        _check_one(self.path)
        for pattern in self._stage.outputs:
            for output in _matching(self.path, PurePath(pattern).parts):
                _check(output)
                yield output


def _matching(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """As `Path.glob`, which would follow a link to a folder on its way."""
    for path in sorted(folder.iterdir()):
        if not fnmatchcase(path.name, parts[0]):
            continue
        if len(parts) == 1:
            yield path
        elif _check_one(path):
            yield from _matching(path, parts[1:])


def _check(path: Path) -> None:
    """See that a file or a folder, with all that is in it, is what it seems to be."""
    if _check_one(path):
        for below in sorted(path.iterdir()):
            _check(below)


def _check_one(path: Path) -> bool:
    """See that it is a file with one name or a folder, and on the disk; whether it is a folder.

    Raises:
        UserError: it is anything else.
    """
    if not path.name.isprintable():
        raise _refused(path, "has a name that cannot be printed")
    status = path.lstat()
    is_folder = stat.S_ISDIR(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        raise _refused(path, "is a symbolic link")
    if not (is_folder or stat.S_ISREG(status.st_mode)):
        raise _refused(path, "is not a file or a folder")
    if status.st_nlink > 1 and not is_folder:
        raise _refused(path, "has another name as well (a hard link)")
    # Whatever the stage's process may do to others by a mode, its outputs are data.
    mode = stat.S_IMODE(status.st_mode)
    plain = (mode & 0o777 | 0o700) if is_folder else (mode & 0o666 | 0o600)
    if mode != plain:
        path.chmod(plain)
    # The record, which says that they are there, must not reach the disk before them.
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    return is_folder


def _refused(path: Path, what: str) -> UserError:
    return UserError.one(
        shown(path),
        f"{what}, which no stage writes",
        "Nothing of it was used. Run the same command again; if it stays so, do not use this "
        "environment or image.",
    )
