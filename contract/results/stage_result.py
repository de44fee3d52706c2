"""What every stage's result has in common.

Each stage has a module of its own here, so that a new key of one changes no other stage's code.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from contract.record import Record


class StageResult(Record):
    """The base of every stage's result; `stage` is the stage's name."""

    stage: ClassVar[str]


ResultType = TypeVar("ResultType", bound=StageResult)
