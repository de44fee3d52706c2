"""Look at a model in the middle of its training, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode, in which a model can be trained again afterwards.

    In evaluation mode on a CPU with AVX512-BF16, bitsandbytes repacks a 4-bit layer for inference,
    from where training does not come back, and computes in bf16 (`Linear4bit.forward`). Nothing
    else of such a layer depends on its mode, so it stays in training mode, where it computes as it
    does in training; dropout, in a layer of its own, is off.
    """
    from bitsandbytes.nn import Linear4bit

    before = {module: module.training for module in model.modules()}
    model.eval()
    for module in before:
        if isinstance(module, Linear4bit):
            module.training = True
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
