"""What a training gives up, one thing after the other, where memory runs out.

Each rung keeps what is learned: as many rows an update, in the same order, and so as many updates
and the same loss but for rounding (that of the optimizer's moments as well, on one rung). Shorter
rows are no rung: what is cut off is not learned, and which rows are to lose their ends is for
whoever wrote the recipe to say.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch

from contract.recipe import Recipe

# Of torch's allocator on a CPU, whose error has no type of its own.
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


def next_rung(recipe: Recipe) -> dict[str, Any] | None:
    """The keys that change on the next rung, with their new values; None where there is none left.

    The rungs are those of `_RUNGS`. Which one is next is read off the recipe alone, so that the way
    down from it is always the same.
    """
    return next((keys for rung in _RUNGS if (keys := rung(recipe)) is not None), None)


def further(recipe: Recipe, *found: dict[str, Any]) -> dict[str, Any]:
    """Of several sets of changed keys, the one that is furthest down this recipe's ladder."""
    # What a base whose rows cannot be packed begins with.
    padded = {"packing": False} if any(one.get("packing") is False for one in found) else {}
    wanted = [{**padded, **one} for one in found]
    ladder = reversed(list(_ladder(recipe, padded)))
    return next((changed for changed in ladder if changed in wanted), {})


def _ladder(recipe: Recipe, changed: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """All keys that are changed on each rung, from these on."""
    while changed is not None:
        yield changed
        rung = next_rung(recipe.model_copy(update=changed))
        changed = {**changed, **rung} if rung else None


def said(changed: dict[str, Any]) -> str:
    """`batch_size 2, gradient_accumulation_steps 16`."""
    return ", ".join(
        f"{key} {str(value).lower() if isinstance(value, bool) else value}"
        for key, value in changed.items()
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, on a card or on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_ALLOCATOR)


def first_line(error: BaseException) -> str:
    """What an error says, without the pages of advice that torch adds."""
    return str(error).strip().partition("\n")[0]


def release_memory() -> None:
    """Give back what nobody holds any more; a trainer and its model hold each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _shorter_packs(recipe: Recipe) -> dict[str, Any] | None:
    """Fewer tokens at a time; where a row may be as long, it would take as much by itself."""
    shorter = max(recipe.packing_length // 2, recipe.max_length)
    if not recipe.packing or shorter >= recipe.packing_length:
        return None
    return {"packing_length": shorter}


def _fewer_rows(recipe: Recipe) -> dict[str, Any] | None:
    """Fewer rows at a time, more often accumulated."""
    if recipe.packing or recipe.batch_size == 1:
        return None
    fewer = _largest_proper_divisor(recipe.batch_size)
    more = recipe.gradient_accumulation_steps * recipe.batch_size // fewer
    return {"batch_size": fewer, "gradient_accumulation_steps": more}


def _checkpointed_activations(recipe: Recipe) -> dict[str, Any] | None:
    """Activations are computed again in the backward pass (Chen et al., arXiv 1604.06174)."""
    return None if recipe.gradient_checkpointing else {"gradient_checkpointing": True}


def _quantized_moments(recipe: Recipe) -> dict[str, Any] | None:
    """Adam's moments in 8 bits instead of 32 (Dettmers et al., arXiv 2110.02861).

    `take_over_moments` hands on those of the checkpoint.
    """
    if recipe.device != "cuda" or not recipe.optim.startswith("adamw_torch"):
        return None
    return {"optim": "paged_adamw_8bit"}


def _offloaded_activations(recipe: Recipe) -> dict[str, Any] | None:
    """What the backward pass needs waits in main memory."""
    if recipe.device != "cuda" or recipe.activation_offloading:
        return None
    return {"activation_offloading": True}


# By what they cost, the cheapest first. Each gives up one thing, a bit at a time, and returns the
# keys that change; None where there is nothing left of it.
_RUNGS: tuple[Callable[[Recipe], dict[str, Any] | None], ...] = (
    _shorter_packs,
    _fewer_rows,
    _checkpointed_activations,
    _quantized_moments,
    _offloaded_activations,
)


def _largest_proper_divisor(number: int) -> int:
    # So that the rows of an update stay as many.
    return next(fewer for fewer in range(number // 2, 0, -1) if number % fewer == 0)
