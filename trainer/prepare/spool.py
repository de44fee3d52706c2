"""Rows on disk between reading and tokenizing: a file without a name, which ends with the stage."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.conversation import Conversation
from trainer.prepare.splitting import DatasetRow, RowDigests

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class SpooledRows:
    """The rows of one side of the split. In memory are 40 bytes of each: digests and an offset.

    Attributes:
        digests: of all rows, in their order.
    """

    def __init__(self, folder: Path) -> None:
        """No row yet; they will lie on this folder's disk, not where temporary files are memory."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._ends = array("Q", [0])
        self.digests = RowDigests()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, row: DatasetRow, question_digest: str) -> None:
        """Add a row, whose question has this digest."""
        one = row.conversation
        values = [row.where, one.messages, one.tools, sorted(one.unlearned), sorted(one.unread)]
        line = (_ENCODER.encode(values) + "\n").encode()
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))
        self.digests.append(question_digest, row.digest)

    def __iter__(self) -> Iterator[DatasetRow]:
        self._file.seek(0)
        for line in self._file:
            yield _row(line)

    def where(self, index: int) -> str:
        """The place of a row in its file."""
        self._file.flush()
        start, end = self._ends[index : index + 2]
        return _row(os.pread(self._file.fileno(), end - start, start)).where


def _row(line: bytes) -> DatasetRow:
    where, messages, tools, unlearned, unread = json.loads(line)
    return DatasetRow(where, Conversation(messages, tools, frozenset(unlearned), frozenset(unread)))
