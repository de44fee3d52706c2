"""Which rows are held out, which occur twice, and which are on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.conversation import Conversation, Message
from contract.digest import digest_of_value

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class DatasetRow:
    """A row after reading: its place in the file, and what it says."""

    where: str
    conversation: Conversation

    @property
    def question_digest(self) -> str:
        """The digest of everything before the answer."""
        return _digest(self.conversation, self.conversation.messages[:-1])

    @property
    def digest(self) -> str:
        """The digest of the whole conversation."""
        return _digest(self.conversation, self.conversation.messages)


def _digest(conversation: Conversation, messages: Sequence[Message]) -> str:
    said = list(messages)
    return digest_of_value([said, conversation.tools] if conversation.tools else said)


class UnreadColumns:
    """Columns and keys that were not read, and how many rows have each."""

    def __init__(self) -> None:
        """No row is counted yet."""
        self._rows: Counter[str] = Counter()

    def add(self, conversation: Conversation) -> None:
        """Count a row."""
        self._rows.update(conversation.unread)

    def counts(self) -> dict[str, int]:
        """How many rows have each, the most frequent first."""
        return dict(sorted(self._rows.items(), key=lambda entry: (-entry[1], entry[0])))


def is_held_out(question_digest: str, held_out_fraction: float) -> bool:
    """Whether a row is held out: by its own question, so that adding rows moves no other row.

    It is when its question's digest, read as a number from 0 to 1, is below the fraction. Rows with
    the same question stay on the same side, whatever their answers.
    """
    return int(question_digest[:16], 16) < held_out_fraction * 16**16


class RowDigests:
    """The digests of rows, in their order: 16 bytes of each one's question, and of the whole row.

    In one of 10^20 datasets of a thousand million rows, two have equal ones by chance.
    """

    def __init__(self, questions: bytes | bytearray = b"", rows: bytes | bytearray = b"") -> None:
        """Begin with these, 16 bytes of each."""
        self._questions = bytearray(questions)
        self._rows = bytearray(rows)

    def __len__(self) -> int:
        return len(self._rows) // _DIGEST_BYTES

    def append(self, question_digest: str, row_digest: str) -> None:
        """Add a row's, both hexadecimal."""
        self._questions += bytes.fromhex(question_digest[: 2 * _DIGEST_BYTES])
        self._rows += bytes.fromhex(row_digest[: 2 * _DIGEST_BYTES])

    def without(self, left_out: np.ndarray) -> RowDigests:
        """Those of the rows for which `left_out`, a row of booleans, is false."""
        return RowDigests(
            _halves(self._questions)[~left_out].tobytes(), _halves(self._rows)[~left_out].tobytes()
        )

    def __add__(self, others: RowDigests) -> RowDigests:
        return RowDigests(self._questions + others._questions, self._rows + others._rows)

    def duplicates(self) -> np.ndarray:
        """Pairs (first row, later row) of rows that are the same, word for word; (pairs, 2)."""
        first = _first_equal(self._rows)
        return _pairs(first, first != np.arange(len(first)))

    def conflicts(self) -> np.ndarray:
        """Pairs of rows that ask the same question and answer it differently; (pairs, 2)."""
        first = _first_equal(self._questions)
        rows = _halves(self._rows)
        return _pairs(first, (rows != rows[first]).any(axis=1))

    def asked_in(self, train: RowDigests) -> np.ndarray:
        """Pairs (row of `train`, row of these) of rows that ask the same question; (pairs, 2)."""
        before = len(train)
        first = _first_equal(train._questions + self._questions)
        pairs = _pairs(first, (first < before) & (np.arange(len(first)) >= before))
        pairs[:, 1] -= before
        return pairs


def _halves(digests: bytes | bytearray) -> np.ndarray:
    """Digests as two numbers each; (rows, 2), uint64."""
    halves: np.ndarray = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
    return halves


def _first_equal(digests: bytes | bytearray) -> np.ndarray:
    """For each digest the number of the first that is equal; its own where there is none before."""
    halves = _halves(digests)
    # Stable: among equal ones, the first of the file comes first.
    order = np.lexsort((halves[:, 0], halves[:, 1]))
    ranked = halves[order]
    begins: np.ndarray = np.ones(len(ranked), dtype=bool)
    begins[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    first: np.ndarray = np.empty_like(order)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _pairs(first: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    later = np.flatnonzero(chosen)
    pairs: np.ndarray = np.stack([first[later], later], axis=1)
    return pairs
