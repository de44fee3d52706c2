"""What the stage `prepare` finds out."""

from __future__ import annotations

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
    `max_length`. The next three are pairs of rows: equal ones, ones with the same question and
    two answers, and of a training row and a held-out row with the same question, which is not
    scored. `laid_out` are conversations of which each answer is a row of its own, since the base's
    template writes earlier turns in another way than it wrote them when they were answered.
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
