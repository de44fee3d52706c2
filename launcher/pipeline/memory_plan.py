"""What a training will take of this machine's memory, from the base's shape."""

from __future__ import annotations

from typing import Any

from contract.machine_memory import memory_bytes
from contract.memory_fit import PlannedTraining
from contract.model_shape import ModelShape
from contract.precision_policy import precision_policy
from contract.published_shapes import published_shape
from contract.recipe import Recipe, TrainSection
from contract.results.prepare import PrepareResult
from launcher.pipeline.bases import CachedBase, LocalBase
from launcher.runtime.gpus import training_card

# What a training may take of a machine that does other things as well, and of a card, whose memory
# is estimated to a tenth or so.
_SHARE_OF_MACHINE, _SHARE_OF_CARD = 0.6, 0.85

# A weight in 4 bits is made a number again at each use, which takes a processor half as long again;
# activations that are computed twice, a third.
_FASTEST_FIRST: list[dict[str, Any]] = [
    {"quantize_base": quantize_base, "gradient_checkpointing": twice}
    for quantize_base, twice in (("none", False), ("none", True), ("nf4", False), ("nf4", True))
]


def shape_of(base: CachedBase | LocalBase) -> ModelShape | None:
    """The shape of a base: from its own files where they are here, or else as it was published.

    Raises:
        UserError: its `config.json` is damaged.
    """
    if (base.model / "config.json").exists():
        return ModelShape.read(base.model)
    if isinstance(base, CachedBase) and base.request.kind == "hub":
        return published_shape(base.request.repository)
    return None


def planned_training(
    recipe: Recipe, shape: ModelShape, attention: str | None, report: PrepareResult | None
) -> PlannedTraining:
    """What the estimate is made from.

    Args:
        attention: what the base's class takes, where `preflight` looked at it.
        report: of the rows, where they are prepared.
    """
    section = recipe.section(TrainSection)
    eager = shape.family_traits.eager
    policy = precision_policy(section, None, attention or ("eager" if eager else "sdpa"))
    longest = recipe.max_length
    if report is not None and report.lengths:
        longest = min(longest, max(report.lengths))
    return PlannedTraining(shape, section, policy, longest)


def with_memory_decided(recipe: Recipe, shape: ModelShape | None) -> Recipe:
    """The recipe with what it leaves to memory decided: the fastest by the estimate that fits.

    By what the device has, and not by what is free at the moment: a training that goes on later is
    to be the same one.

    Raises:
        UserError: there is a driver, and it does not answer.
    """
    choices = [
        {key: value for key, value in choice.items() if getattr(recipe, key) == "auto"}
        for choice in _FASTEST_FIRST
    ]
    if not choices[-1]:
        return recipe
    size_bytes = _device_memory_bytes(recipe)
    if shape is not None and size_bytes is not None:
        share = _SHARE_OF_MACHINE if recipe.device == "cpu" else _SHARE_OF_CARD
        for choice in choices:
            decided = recipe.model_copy(update=choice)
            memory = planned_training(decided, shape, None, None).memory()
            if memory.total_bytes <= share * size_bytes:
                return decided
    return recipe.model_copy(update=choices[-1])


def _device_memory_bytes(recipe: Recipe) -> int | None:
    if recipe.device == "cpu":
        return memory_bytes()
    card = training_card(recipe.device, recipe.lock, recipe.precision)
    return None if card is None else card.memory_bytes
