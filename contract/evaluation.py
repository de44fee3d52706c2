"""What a model is asked when it is evaluated: written by the stage `questions`, read by the
launcher, which asks a server and scores the answers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.conversation import Message, Tool
from contract.record import Record


class QuestionsRequest(Record):
    """What the stage `questions` is told.

    `metric` is for rows that name none; None takes the one that fits all expected answers of the
    set. `drop_leaked` drops rows that are in the training data, which are refused otherwise.
    """

    task: str
    metric: str | None
    columns: dict[str, str]
    system_prompt: str | None
    drop_leaked: bool


class Item(Record):
    """One question of a set, what is expected, and the metric of contract/metrics.py.

    `example`: a right answer, where the row has one: how long it is says how long answers are.
    """

    set: str
    kind: Literal["task", "skill"]
    where: str
    messages: list[Message]
    tools: list[Tool] = Field(default_factory=list)
    expected: str
    metric: str
    example: str | None = None


class Leak(Record):
    """A row that is in the training data.

    `overlap` is the share of its 13-grams that are found there; None where the row is the same,
    word for word.
    """

    where: str
    trained_where: str
    overlap: float | None


class Questions(Record):
    """All sets, and the rows that were dropped because they are in the training data."""

    items: list[Item]
    dropped: list[Leak]
