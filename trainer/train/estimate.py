"""The memory that a training is estimated to take, from the base's folder."""

from __future__ import annotations

from pathlib import Path

from contract.memory_estimate import largest_micro_batch, training_memory
from contract.model_shape import ModelShape
from contract.recipe import TrainSection
from trainer.train.loading import policy_of


def estimated_bytes(base: Path, section: TrainSection, longest_row: int) -> int | None:
    """The peak of a training; None where the base's shape is not known.

    See `contract.memory_estimate.training_memory`.

    Args:
        longest_row: in tokens.
    """
    shape = ModelShape.read(base)
    if shape is None:
        return None
    batch = largest_micro_batch(section, longest_row)
    return training_memory(shape, section, policy_of(base, section), batch).total_bytes
