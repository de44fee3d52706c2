"""The type of every stage's result, by the stage's name.

The launcher checks a result against it when the stage ends, so that an unknown or a missing key is
found then and there.
"""

from __future__ import annotations

from contract.results.base import BaseResult
from contract.results.baseline import BaselineResult
from contract.results.convert import ConvertResult
from contract.results.merge import MergeResult
from contract.results.modelfile import ModelfileResult
from contract.results.preflight import PreflightResult
from contract.results.prepare import PrepareResult
from contract.results.quantize import QuantizeResult
from contract.results.questions import QuestionsResult
from contract.results.reference import ReferenceResult
from contract.results.rendering import RenderingResult
from contract.results.stage_result import StageResult
from contract.results.train import TrainResult

RESULTS: dict[str, type[StageResult]] = {
    kind.stage: kind
    for kind in (
        BaseResult,
        PreflightResult,
        PrepareResult,
        RenderingResult,
        TrainResult,
        MergeResult,
        ConvertResult,
        QuantizeResult,
        ModelfileResult,
        ReferenceResult,
        QuestionsResult,
        BaselineResult,
    )
}
