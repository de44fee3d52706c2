"""What a run's model answered in its last evaluation, as its folder still has it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from contract import paths
from contract.errors import UserError
from contract.evaluation import Item, Questions
from contract.metrics import score
from launcher.evaluate.answer_bounds import max_new_tokens
from launcher.evaluate.record import Evaluation
from launcher.evaluate.response_cache import ResponseCache
from launcher.evaluate.sampling import sample
from launcher.pipeline.finished_run import Run


@dataclass(frozen=True)
class RecordedAnswer:
    """A question of an evaluation, what the model said, and its score."""

    item: Item
    text: str
    score: float


def recorded_evaluation(run: Run) -> Evaluation | None:
    """The run's last evaluation; None without one, and where another version wrote it."""
    with suppress(FileNotFoundError, UserError):
        return Evaluation.read(run.folder / paths.EVALUATION)
    return None


def recorded_answers(run: Run, evaluation: Evaluation) -> list[RecordedAnswer]:
    """The answers to an evaluation's questions, in their order; none where they are not all there:
    a later evaluation may have asked other questions.
    """
    folder = run.evaluation_folder
    try:
        items = Questions.read(folder / paths.QUESTIONS).items
    except (FileNotFoundError, UserError):
        return []
    if evaluation.limit is not None:
        items = sample(items, evaluation.limit)
    file = folder / paths.ANSWERS / evaluation.model.answers_file
    # Whether one of the models reasoned is recorded nowhere, and makes other bounds.
    for reasons in (False, True):
        cache = ResponseCache(
            file,
            [item.messages for item in items],
            [max_new_tokens(item, evaluation.max_new_tokens, reasons=reasons) for item in items],
            [item.tools for item in items],
        )
        if not cache.missing:
            return [
                RecordedAnswer(item, answer.text, score(item.metric, answer.text, item.expected))
                for item, answer in zip(items, cache.answers, strict=True)
            ]
    return []
