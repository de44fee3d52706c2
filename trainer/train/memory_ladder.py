"""What a training gives up, one thing after the other, where memory runs out.

Each rung keeps what is learned: as many rows an update, in the same order, and so as many updates
and the same loss but for rounding. What would change that (shorter rows, another optimizer) is left
to whoever wrote the recipe.
"""

from __future__ import annotations

import gc
from typing import Any

import torch

from contract.recipe import TrainSection

# Of torch's allocator on a CPU, whose error has no type of its own.
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


def next_rung(section: TrainSection) -> dict[str, Any] | None:
    """The keys that change on the next rung, with their new values; None where there is none left.

    The micro-batch is divided first, and accumulated more often: that costs least. Then activations
    are computed again in the backward pass (Chen et al., arXiv 1604.06174).
    """
    if section.batch_size > 1:
        fewer = _largest_proper_divisor(section.batch_size)
        more = section.gradient_accumulation_steps * section.batch_size // fewer
        return {"batch_size": fewer, "gradient_accumulation_steps": more}
    if not section.gradient_checkpointing:
        return {"gradient_checkpointing": True}
    return None


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


def _largest_proper_divisor(number: int) -> int:
    # So that the rows of an update stay as many.
    return next(fewer for fewer in range(number // 2, 0, -1) if number % fewer == 0)
