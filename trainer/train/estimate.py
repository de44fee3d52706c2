"""The memory that a training is estimated to take, from the base's folder and the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contract.memory_estimate import largest_micro_batch, training_memory
from contract.model_shape import ModelShape
from contract.recipe import TrainSection
from trainer.prepared import PreparedRow
from trainer.train.loading import policy_of


def estimated_bytes(base: Path, section: TrainSection, rows: Sequence[PreparedRow]) -> int | None:
    """The peak of the training on these rows; None where the base's shape is not known.

    See `contract.memory_estimate.training_memory`.
    """
    shape = ModelShape.read(base)
    if shape is None or not rows:
        return None
    longest = max(len(row["input_ids"]) for row in rows)
    batch = largest_micro_batch(section, longest)
    return training_memory(shape, section, policy_of(base, section), batch).total_bytes
