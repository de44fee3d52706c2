"""How long a training is, before it begins: in steps, in tokens, and by the last one's rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from contract.recipe import Recipe, TrainSection
from contract.results.prepare import PrepareResult
from contract.results.train import TrainingMetrics


@dataclass(frozen=True)
class TrainingExtent:
    """The length of a training.

    Attributes:
        steps: updates of the adapter.
        tokens: of prompts and completions, over all epochs. An estimate where rows are held out:
            they are as long as the others on average.
    """

    steps: int
    tokens: int


def training_extent(recipe: Recipe, report: PrepareResult) -> TrainingExtent:
    """The extent of a recipe's training on data that are prepared.

    Steps as transformers counts them (`Trainer.set_initial_training_values`): an epoch's last
    update may have fewer rows than the others.
    """
    section = recipe.section(TrainSection)
    lengths = [min(length, report.max_length) for length in report.lengths]
    epoch_tokens = sum(lengths) * report.train / max(len(lengths), 1)
    update = section.batch_size * section.gradient_accumulation_steps
    epoch_steps = max(math.ceil(report.train / update), 1)
    return TrainingExtent(
        steps=math.ceil(section.epochs * epoch_steps),
        tokens=round(section.epochs * epoch_tokens),
    )


def last_rate(metrics: Path) -> float | None:
    """Tokens a second of a training, evaluations included; None where it left no metrics."""
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()
        last = TrainingMetrics.model_validate_json(lines[-1])
    except (OSError, UnicodeDecodeError, IndexError, ValidationError):
        return None
    return last.tokens / last.seconds if last.seconds > 0 and last.tokens > 0 else None


def trains_alike(one: Recipe, other: Recipe) -> bool:
    """Whether a step of one takes about as long as a step of the other: same base, same card."""
    sections = [recipe.section(TrainSection) for recipe in (one, other)]
    keys = (
        *("device", "precision", "quantize_base", "batch_size", "packing", "packing_length"),
        *("gradient_checkpointing", "activation_offloading"),
    )
    same_base = one.model_to_fine_tune == other.model_to_fine_tune
    return same_base and all(getattr(sections[0], k) == getattr(sections[1], k) for k in keys)
