"""What the stage `convert` finds out."""

from __future__ import annotations

from contract.record import Record
from contract.reference import Agreement
from contract.results.stage_result import StageResult


class ReadBack(Record):
    """What `gguf/read_back.json` says: a GGUF file gives the merged model's answers.

    Of `prompts` greedy answers, `equal` are the same, token for token; the others are up to a
    near tie. `by` is the program that read the file.
    """

    file: str
    by: str
    prompts: int
    equal: int
    agreement: Agreement


class ConvertResult(StageResult):
    """The GGUF types written, the file that was read back, and whether the adapter has a file."""

    stage = "convert"

    types: list[str]
    read_back: ReadBack
    adapter: bool
