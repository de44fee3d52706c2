"""What the stage `prepare` finds out."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from pydantic import Field

from contract.data_rows import DataRows
from contract.record import Record
from contract.results.stage_result import StageResult


class LengthFigures(Record):
    """Lengths of rows in tokens: the least, the median, the 95th percentile and the most."""

    min: int
    median: int
    p95: int
    max: int


class TruncatedRow(Record):
    """A row that is longer than `max_length`, and how many tokens it loses."""

    where: str
    tokens: int


class PrepareResult(StageResult):
    """The data report: counts of rows, and lengths in tokens before any row is truncated.

    `lengths` has every row's length, sorted. `no_room` are rows with no answer left within
    `max_length`. `duplicates`, `conflicts` and `in_both` are pairs of rows: equal ones, ones with
    the same question and two answers, and of a training row and a held-out row with the same
    question, which is not scored. `unread`: columns and keys that were not read, such as `id` and
    `messages[].date`, and how many rows have each. `laid_out` are conversations of
    which each answer is a row of its own, since the base's template writes earlier turns in another
    way than it wrote them when they were answered.

    `files` has the rows of the dataset and of the evaluation set, as `data` and `evaluation`, by
    which one that is changed later is found.

    Of a dataset with very many findings of a kind, the first thousand are listed; `not_named` has
    how many there are beside them, by the field's name. `count` is of all.
    """

    stage = "prepare"

    rows: int
    train: int
    held_out: int
    max_length: int
    tokens: LengthFigures
    answer_tokens: LengthFigures
    lengths: list[int]
    cut: list[TruncatedRow]
    no_room: list[str]
    duplicates: list[tuple[str, str]]
    conflicts: list[tuple[str, str]]
    in_both: list[tuple[str, str]]
    laid_out: list[str]
    unread: dict[str, int] = Field(default_factory=dict)
    files: dict[str, DataRows] = Field(default_factory=dict)
    not_named: dict[str, int] = Field(default_factory=dict, exclude_if=operator.not_)

    def count(self, kind: str) -> int:
        """How many findings there are of a kind, a field's name such as `duplicates`."""
        return len(getattr(self, kind)) + self.not_named.get(kind, 0)

    @property
    def lost_tokens(self) -> int:
        """How many tokens are cut off, of all rows together."""
        return sum(length - self.max_length for length in self.lengths if length > self.max_length)


_MOST_NAMED = 12


def not_read(unread: Mapping[str, int]) -> str:
    """`not read: id (800 rows), messages[].date (12 rows)`."""
    names = [
        f"{name if name and name.isprintable() else repr(name)} "
        f"({count} {'row' if count == 1 else 'rows'})"
        for name, count in unread.items()
    ]
    if (more := len(names) - _MOST_NAMED) > 0:
        names[_MOST_NAMED:] = [f"and {more} more"]
    return f"not read: {', '.join(names)}"
