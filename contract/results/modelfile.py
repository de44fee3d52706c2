"""What the stage `modelfile` finds out."""

from __future__ import annotations

from contract.results.stage_result import StageResult


class ModelfileResult(StageResult):
    """Whether the chat template could be written in Ollama's language, and the stop tokens."""

    stage = "modelfile"

    template: bool
    stops: list[str]
