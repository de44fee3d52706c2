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
        go_template: whether Ollama's template language can write the base's chat template, as far
            as that is known without the data.
        notes: what people should know and nobody has to change.
    """

    stage = "preflight"

    architecture: str
    parameters: int
    attention: str
    adapted: int
    go_template: bool | None
    notes: list[str]
