"""What the stage `reference` finds out."""

from __future__ import annotations

from contract.reference import Agreement
from contract.results.stage_result import StageResult


class ReferenceResult(StageResult):
    """How many questions have a reference answer; GGUF type -> how near it is to the merged
    model; how near that is to the trained one.
    """

    stage = "reference"

    questions: int
    agreements: dict[str, Agreement]
    merge: Agreement
