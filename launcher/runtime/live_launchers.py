"""Which launchers live: each holds a file of its own, under a random name, until it ends.

A process number says nothing in another container, and belongs to somebody else some day. A file
that can be locked belongs to a launcher that is dead, wherever it was; one that is not visible
here is nobody's to judge.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contract.digest import digest_of_value
from launcher.project import CACHE

_NAME_BYTES = 8


class LiveLaunchers:
    """The launchers of this project that use one engine, this one among them."""

    def __init__(self, engine: str, folder: Path = CACHE / "launchers") -> None:
        """
        Args:
            engine: the engine's own name for itself. What is left on another engine is kept apart:
                a file goes only when nothing there bears its name any more.
        """
        self._folder = folder / digest_of_value(engine)[:12]
        self._own: str | None = None

    def own_name(self) -> str:
        """This launcher's name, held from now on until this process ends."""
        if self._own is None:
            name = secrets.token_hex(_NAME_BYTES)
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            atexit.register(_forget, self._folder / name, descriptor)
            self._own = name
        return self._own

    def is_dead(self, name: str) -> bool:
        """Whether the launcher of this name was of this project, and has ended."""
        # What bears the name in a label may be anybody's, and say anything.
        if name == self._own or len(name) != 2 * _NAME_BYTES or not name.isalnum():
            return False
        with suppress(FileNotFoundError), self._alone():
            return _can_be_locked(self._folder / name)
        return False

    def forget_dead(self, named: Collection[str]) -> None:
        """Remove the files of dead launchers that nothing is named after any more."""
        with suppress(FileNotFoundError), self._alone():
            for file in self._folder.iterdir():
                if file.name not in {self._own, *named} and _can_be_locked(file):
                    file.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """So that no file is judged between its making and its locking."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _can_be_locked(file: Path) -> bool:
    descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _forget(file: Path, descriptor: int) -> None:
    with suppress(OSError):
        file.unlink()
    with suppress(OSError):
        os.close(descriptor)
