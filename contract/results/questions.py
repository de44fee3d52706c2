"""What the stage `questions` finds out."""

from __future__ import annotations

from contract.results.stage_result import StageResult


class QuestionsResult(StageResult):
    """How many questions there are, and how many were dropped as part of the training data."""

    stage = "questions"

    items: int
    dropped: int
