"""Whether a training fits a memory, and the smallest change of its recipe by which it would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contract.memory_estimate import (
    TrainingMemory,
    largest_micro_batch,
    training_memory,
)
from contract.model_shape import ModelShape
from contract.precision_policy import PrecisionPolicy
from contract.published_shapes import PUBLISHED, published_shape
from contract.recipe import TrainSection

# What a card is sold as, in GiB.
CARDS_GIB = (8, 12, 16, 24)
# torch's allocator cuts blocks to sizes of its own and leaves holes between them; a desktop takes
# its part of a card as well.
_USABLE = 0.95
# Shorter rows than these are no training; lengths in steps of a kernel's block.
_LEAST_LENGTH, _LENGTH_STEP = 256, 64


@dataclass(frozen=True)
class PlannedTraining:
    """A training whose memory can be estimated.

    Attributes:
        longest_row: in tokens; `max_length` where the rows are not known.
    """

    shape: ModelShape
    section: TrainSection
    policy: PrecisionPolicy
    longest_row: int

    def memory(self, shape: ModelShape | None = None, **changed: Any) -> TrainingMemory:
        """The estimate, with keys of the recipe changed, or with another base."""
        length = min(changed.pop("max_length", self.longest_row), self.longest_row)
        section = self.section.model_copy(update=changed)
        batch = largest_micro_batch(section, length)
        return training_memory(shape or self.shape, section, self.policy, batch)

    def fits(self, memory_bytes: float) -> bool:
        """Whether it fits a device with so much memory."""
        return fits(self.memory(), memory_bytes)


def fits(memory: TrainingMemory, device_bytes: float) -> bool:
    """Whether an estimate fits a device with so much memory."""
    return memory.total_bytes <= _USABLE * device_bytes


def smallest_change(training: PlannedTraining, device_bytes: float) -> dict[str, Any] | None:
    """The keys of a recipe that make it fit, with their values: least costly first.

    A smaller micro-batch with as many rows an update, then activations computed twice, then shorter
    rows, which learns something else. None where only another base would.
    """
    for changed in _changes(training):
        if fits(training.memory(**changed), device_bytes):
            return changed
    whole = list(_changes(training))[-1]
    lengths = range(_LEAST_LENGTH, training.longest_row, _LENGTH_STEP)
    for length in reversed(lengths):
        changed = {**whole, "max_length": length}
        if training.section.packing:
            changed["packing_length"] = min(training.section.packing_length, length)
        if fits(training.memory(**changed), device_bytes):
            return changed
    return None


def fitting_base(training: PlannedTraining, device_bytes: float) -> str | None:
    """The largest base of a published shape that fits with the recipe as it is, if one does."""
    smaller = []
    for repository in PUBLISHED:
        shape = published_shape(repository)
        assert shape is not None
        parameters = shape.parameters().total
        if parameters < training.shape.parameters().total and fits(
            training.memory(shape), device_bytes
        ):
            smaller.append((shape.family == training.shape.family, parameters, repository))
    return max(smaller)[-1] if smaller else None


def _changes(training: PlannedTraining) -> Iterator[dict[str, Any]]:
    """No change, smaller micro-batches, and the smallest with activations computed twice."""
    section = training.section
    changed: dict[str, Any] = {}
    yield changed
    if section.packing:
        # As the trainer's ladder does (trainer/train/memory_ladder.py).
        length = section.packing_length
        while length > training.longest_row:
            length = max(length // 2, training.longest_row)
            changed = {"packing_length": length}
            yield changed
    else:
        rows = section.batch_size * section.gradient_accumulation_steps
        for fewer in range(section.batch_size - 1, 0, -1):
            # As many rows an update, and so the same training.
            if section.batch_size % fewer == 0:
                changed = {"batch_size": fewer, "gradient_accumulation_steps": rows // fewer}
                yield changed
    if not section.gradient_checkpointing:
        yield {**changed, "gradient_checkpointing": True}
