"""Which rows are held out, which occur twice, and which are on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contract.conversation import Conversation, Message
from contract.digest import digest_of_value


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


def unread_columns(conversations: Iterable[Conversation]) -> dict[str, int]:
    """Columns and keys that were not read, and how many rows have each; the most frequent first."""
    counts = Counter(name for one in conversations for name in sorted(one.unread))
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def split(
    rows: Sequence[DatasetRow], held_out_fraction: float
) -> tuple[list[DatasetRow], list[DatasetRow]]:
    """Split by each row's own question, so that adding rows moves no other row.

    A row is held out when its question's digest, read as a number from 0 to 1, is below the
    fraction. Rows with the same question stay on the same side, whatever their answers.

    Returns:
        The rows to train on, then the held-out rows, each in the order given.
    """
    bound = held_out_fraction * 16**16
    sides: tuple[list[DatasetRow], list[DatasetRow]] = ([], [])
    for row in rows:
        sides[int(row.question_digest[:16], 16) < bound].append(row)
    return sides


def duplicates(rows: Sequence[DatasetRow]) -> list[tuple[str, str]]:
    """Pairs (first place, later place) of rows that are the same, word for word."""
    first: dict[str, str] = {}
    pairs = []
    for row in rows:
        if row.digest in first:
            pairs.append((first[row.digest], row.where))
        else:
            first[row.digest] = row.where
    return pairs


def conflicts(rows: Sequence[DatasetRow]) -> list[tuple[str, str]]:
    """Pairs of rows that ask the same question and answer it differently."""
    first: dict[str, DatasetRow] = {}
    pairs = []
    for row in rows:
        earlier = first.setdefault(row.question_digest, row)
        if earlier.digest != row.digest:
            pairs.append((earlier.where, row.where))
    return pairs


def in_both(train: Sequence[DatasetRow], held_out: Sequence[DatasetRow]) -> list[tuple[str, str]]:
    """Pairs (place in train, place in held-out) of rows that ask the same question."""
    trained = {row.question_digest: row.where for row in reversed(train)}
    return [
        (trained[row.question_digest], row.where)
        for row in held_out
        if row.question_digest in trained
    ]
