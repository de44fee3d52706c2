"""What the stage `preflight` finds out."""

from __future__ import annotations

from contract.results.stage_result import StageResult


class PreflightResult(StageResult):
    """What the base is, where nothing speaks against it.

    Attributes:
        architecture: the model's class, which llama.cpp's converter knows.
        parameters: of the whole model, with tied weights counted once.
        attention: transformers' name of the implementation that the class takes.
        adapted: the number of modules that get an adapter.
        notes: what people should know and nobody has to change.
    """

    stage = "preflight"

    architecture: str
    parameters: int
    attention: str
    adapted: int
    notes: list[str]
