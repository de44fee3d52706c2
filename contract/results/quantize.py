"""What the stage `quantize` finds out."""

from __future__ import annotations

from contract.results.stage_result import StageResult


class QuantizeResult(StageResult):
    """The GGUF types made, and whether an importance matrix weighted them.

    `larger_than_asked`: file -> how many of its weights have rows of a length that the type does
    not take, and were given a larger one.
    """

    stage = "quantize"

    types: list[str]
    imatrix: bool
    larger_than_asked: dict[str, int]
