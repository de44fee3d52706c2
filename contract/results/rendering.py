"""What the stage `rendering` finds out."""

from __future__ import annotations

from contract.results.stage_result import StageResult


class RenderingResult(StageResult):
    """How many of the data's prompts llama.cpp writes as they are trained: all that were asked."""

    stage = "rendering"

    prompts: int
