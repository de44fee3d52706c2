"""Which rows are held out, which occur twice, and which are on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contract.digest import digest_of_value
from trainer.chat import Message


@dataclass(frozen=True)
class Conversation:
    """A row after reading: its place in the file, and its messages."""

    where: str
    messages: list[Message]

    @property
    def question_digest(self) -> str:
        """The digest of everything before the answer."""
        return digest_of_value(self.messages[:-1])

    @property
    def digest(self) -> str:
        """The digest of the whole conversation."""
        return digest_of_value(self.messages)


def split(
    rows: Sequence[Conversation], held_out_fraction: float
) -> tuple[list[Conversation], list[Conversation]]:
    """Split by each row's own question, so that adding rows moves no other row.

    A row is held out when its question's digest, read as a number from 0 to 1, is below the
    fraction. Rows with the same question stay on the same side, whatever their answers.

    Returns:
        The rows to train on, then the held-out rows, each in the order given.
    """
    bound = held_out_fraction * 16**16
    sides: tuple[list[Conversation], list[Conversation]] = ([], [])
    for row in rows:
        sides[int(row.question_digest[:16], 16) < bound].append(row)
    return sides


def duplicates(rows: Sequence[Conversation]) -> list[tuple[str, str]]:
    """Pairs (first place, later place) of rows that are the same, word for word."""
    first: dict[str, str] = {}
    pairs = []
    for row in rows:
        if row.digest in first:
            pairs.append((first[row.digest], row.where))
        else:
            first[row.digest] = row.where
    return pairs


def conflicts(rows: Sequence[Conversation]) -> list[tuple[str, str]]:
    """Pairs of rows that ask the same question and answer it differently."""
    first: dict[str, Conversation] = {}
    pairs = []
    for row in rows:
        earlier = first.setdefault(row.question_digest, row)
        if earlier.digest != row.digest:
            pairs.append((earlier.where, row.where))
    return pairs


def in_both(
    train: Sequence[Conversation], held_out: Sequence[Conversation]
) -> list[tuple[str, str]]:
    """Pairs (place in train, place in held-out) of rows that ask the same question."""
    trained = {row.question_digest: row.where for row in reversed(train)}
    return [
        (trained[row.question_digest], row.where)
        for row in held_out
        if row.question_digest in trained
    ]
