"""What the dataset looks like in tokens: lengths, truncated rows, repetitions."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from contract.results.prepare import LengthFigures, PrepareResult, TruncatedRow
from trainer.prepare.splitting import DatasetRow, UnreadColumns
from trainer.prepare.tokenizing import Tokens

Finding = TypeVar("Finding")

# Of each kind of finding; further ones are counted.
MAX_NAMED = 1000


@dataclass(frozen=True)
class TokenizedRow:
    """A conversation and its tokens: all of them, or those of one of its answers of `of`."""

    row: DatasetRow
    tokens: Tokens
    of: int = 1

    @property
    def where(self) -> str:
        """The row's place in the file, and which of its answers this is where it has several."""
        answer = self.row.conversation.messages[: self.tokens.answer + 1]
        number = sum(message["role"] == "assistant" for message in answer)
        return self.row.where + (f" answer {number}" if self.of > 1 else "")

    def as_json(self) -> dict[str, Any]:
        """The row as the training stage reads it."""
        return {
            "where": self.where,
            "messages": self.row.conversation.messages[: self.tokens.answer + 1],
            "tools": self.row.conversation.tools,
            "input_ids": self.tokens.input_ids,
            "completion_mask": self.tokens.completion_mask,
            "prompt_ids": self.tokens.prompt_ids,
        }


class Findings(Generic[Finding]):
    """Findings of one kind: the first thousand by name, and how many there are."""

    def __init__(self) -> None:
        """None yet."""
        self.named: list[Finding] = []
        self.count = 0

    def add(self, finding: Finding) -> None:
        """Add one at the end."""
        self.count += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(finding)

    @property
    def more(self) -> int:
        """How many are not named."""
        return self.count - len(self.named)


def places(
    pairs: np.ndarray, one: Callable[[int], str], other: Callable[[int], str]
) -> Findings[tuple[str, str]]:
    """Pairs of places of pairs of rows, whose numbers are an array of (pairs, 2)."""
    found = Findings[tuple[str, str]]()
    found.named = [(one(int(first)), other(int(later))) for first, later in pairs[:MAX_NAMED]]
    found.count = len(pairs)
    return found


class DatasetReport:
    """What is found out while rows pass by, as they are before any is truncated.

    In memory are 8 bytes of each row, and the first thousand findings of each kind.
    """

    def __init__(self, max_length: int) -> None:
        """No row is seen yet; `max_length` is in tokens."""
        self._max_length = max_length
        self._conversations = 0
        self._lengths = array("I")
        self._answer_lengths = array("I")
        self._unread = UnreadColumns()
        self._cut = Findings[TruncatedRow]()
        self._no_room = Findings[str]()
        self._laid_out = Findings[str]()

    def add(self, rows: Sequence[TokenizedRow]) -> None:
        """See the rows of one conversation, of which there is at least one."""
        self._conversations += 1
        self._unread.add(rows[0].row.conversation)
        if rows[0].of > 1:
            self._laid_out.add(rows[0].row.where)
        for row in rows:
            length = len(row.tokens.input_ids)
            self._lengths.append(length)
            self._answer_lengths.append(row.tokens.learned_tokens)
            if length > self._max_length:
                beyond = length - self._max_length
                self._cut.add(TruncatedRow(where=row.where, tokens=beyond))
                if not row.tokens.cut_to(self._max_length).learned_tokens:
                    self._no_room.add(row.where)

    @property
    def rows(self) -> int:
        """How many rows of tokens there are."""
        return len(self._lengths)

    def result(
        self,
        *,
        train: int,
        duplicates: Findings[tuple[str, str]],
        conflicts: Findings[tuple[str, str]],
        in_both: Findings[tuple[str, str]],
    ) -> PrepareResult:
        """The report, of at least one row.

        Args:
            train: how many of the rows of tokens are to train on.
            duplicates, conflicts: see `RowDigests`.
            in_both: pairs of a training row and a held-out row with the same question, which was
                left out.
        """
        lengths = _sorted(self._lengths)
        kinds: dict[str, Findings[Any]] = {
            "cut": self._cut,
            "no_room": self._no_room,
            "duplicates": duplicates,
            "conflicts": conflicts,
            "in_both": in_both,
            "laid_out": self._laid_out,
        }
        return PrepareResult(
            rows=self._conversations + in_both.count,
            train=train,
            held_out=self.rows - train,
            max_length=self._max_length,
            tokens=length_figures(lengths),
            answer_tokens=length_figures(_sorted(self._answer_lengths)),
            lengths=lengths,
            unread=self._unread.counts(),
            not_named={name: kind.more for name, kind in kinds.items() if kind.more},
            **{name: kind.named for name, kind in kinds.items()},
        )


def _sorted(lengths: array[int]) -> list[int]:
    # Equal lengths are one object: 8 bytes a row instead of 40.
    return [length for length, rows in sorted(Counter(lengths).items()) for _ in range(rows)]


def length_figures(lengths: Sequence[int]) -> LengthFigures:
    """Minimum, median, 95th percentile (nearest rank) and maximum of one or more sorted lengths."""
    rank = -(-95 * len(lengths) // 100)
    return LengthFigures(
        min=lengths[0],
        median=round(statistics.median(lengths)),
        p95=lengths[rank - 1],
        max=lengths[-1],
    )
