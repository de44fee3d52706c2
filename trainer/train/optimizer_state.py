"""Adam's moments of one optimizer in the form of another, where a training changes it on its way.

An optimizer begun anew would take its first steps as long as the learning rate allows, since it
divides by moments that it does not have yet: the loss rises, and falls again later. So what the
checkpoint has is kept, quantized as bitsandbytes does after each step.
"""

from __future__ import annotations

from typing import Any

import torch

# As in `Optimizer2State.init_state`.
_BLOCK = 256


def take_over_moments(optimizer: Any) -> None:
    """Give bitsandbytes' Adam the moments of torch's, which it was given by `load_state_dict`.

    An optimizer that has its own, or none yet, is left as it is.

    Args:
        optimizer: accelerate's wrapper, or what it wraps.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)
    for group_number, group in enumerate(optimizer.param_groups):
        for number, parameter in enumerate(group["params"]):
            moments = optimizer.state.get(parameter, {})
            if "exp_avg" not in moments or not hasattr(optimizer, "init_state"):
                continue
            optimizer.state[parameter] = {}
            optimizer.init_state(group, parameter, group_number, number)
            state = optimizer.state[parameter]
            state["step"] = int(moments["step"])
            _put(moments["exp_avg"], state, "1")
            _put(moments["exp_avg_sq"], state, "2")


def _put(moment: torch.Tensor, state: dict[str, Any], which: str) -> None:
    """Write a moment into the state's buffer of this number, in the buffer's own form."""
    buffer = state[f"state{which}"]
    if buffer.dtype == torch.uint8:
        from bitsandbytes.functional import quantize_blockwise

        moment, found = quantize_blockwise(
            moment.to(buffer.device), code=state[f"qmap{which}"], blocksize=_BLOCK
        )
        state[f"absmax{which}"].copy_(found.absmax)
    buffer.copy_(moment.view_as(buffer))
