"""A service outside this process that a launcher starts, and stops again when it is done.

A mark says which start of it was whose: a launcher that is killed leaves the service running and
its mark unlocked, and the next one knows that nobody else wants it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class StartedService:
    """The mark of one service, by the name of each of its starts."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def was_left_behind(self, start: str) -> bool:
        """Whether a launcher that is dead started it, and it runs since then."""
        with suppress(FileNotFoundError), self._mark.open() as mark:
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return mark.read() == start
        return False

    @contextmanager
    def started_as(self, start: str) -> Iterator[None]:
        """Say that this start is ours, and that the service is stopped when the block ends."""
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        with self._mark.open("a+") as mark:
            # Held by another launcher, it is that one which stops it.
            with suppress(BlockingIOError):
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mark.truncate(0)
                mark.write(start)
                mark.flush()
            try:
                yield
            finally:
                self._mark.unlink(missing_ok=True)
