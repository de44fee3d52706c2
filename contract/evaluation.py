"""What a model is asked when it is evaluated: written by the stage `questions`, read by the
launcher, which asks a server and scores the answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contract.record import read_record


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QuestionsRequest(_Record):
    """What the stage `questions` is told.

    `metric` is that of rows that name none; None takes what fits all expected answers of the set.
    `drop_leaked` leaves out rows that stand in the training data, where otherwise they are refused.
    """

    task: str
    metric: str | None
    columns: dict[str, str]
    system_prompt: str | None
    drop_leaked: bool

    @classmethod
    def read(cls, path: Path) -> QuestionsRequest:
        """What the launcher wrote."""
        return read_record(cls, path)


class Item(_Record):
    """One question of a set, what is expected, and the metric of contract/metrics.py."""

    set: str
    kind: Literal["task", "skill"]
    where: str
    messages: list[dict[str, str]]
    expected: str
    metric: str


class Leak(_Record):
    """A row that stands in the training data.

    `overlap` is the share of its 13-grams that are found there; None where it is the same row word
    for word.
    """

    where: str
    trained_where: str
    overlap: float | None


class Questions(_Record):
    """All sets, and the rows that were left out because they stand in the training data."""

    items: list[Item]
    dropped: list[Leak]

    @classmethod
    def read(cls, path: Path) -> Questions:
        """What the stage left."""
        return read_record(cls, path)
