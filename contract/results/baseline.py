"""What the stage `baseline` finds out."""

from __future__ import annotations

from contract.results.stage_result import StageResult


class BaselineResult(StageResult):
    """The GGUF type that the base was converted to."""

    stage = "baseline"

    type: str
