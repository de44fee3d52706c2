"""What the stage `merge` finds out."""

from __future__ import annotations

from contract.results.stage_result import StageResult


class MergeResult(StageResult):
    """The type that the merged model's weights are stored in, and how many the adapter changed."""

    stage = "merge"

    dtype: str
    merged: int
