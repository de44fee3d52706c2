"""Which step's adapter is kept, and when a training has gone on long enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


def evaluation_due(step: int, planned_steps: int, eval_steps: float) -> bool:
    """Whether the adapter is evaluated after this step: every so many, and after the last one.

    Args:
        eval_steps: as in transformers: a number of steps, or below 1 a share of the planned ones.
    """
    every = math.ceil(planned_steps * eval_steps) if eval_steps < 1 else int(eval_steps)
    return step % every == 0 or step >= planned_steps


@dataclass
class BestAdapter:
    """The adapter of least held-out loss so far, kept in memory until the training ends.

    transformers' `EarlyStoppingCallback` and `load_best_model_at_end` would do the same by way of
    `Trainer.evaluate` and a checkpoint on disk for each evaluation. That evaluation draws from the
    random numbers of the training (its data loader is seeded anew) and repacks a 4-bit base on a
    CPU: a training that is watched would be another one. An adapter is some megabytes, and a copy
    of it is all that is needed.

    These fields are all of the state: checkpoints hold them.
    """

    step: int | None = None
    loss: float = math.inf
    evaluations_since: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, step: int, loss: float, model: Any) -> None:
        """Keep the model's adapter if it is better than the best before it.

        Of two equal ones the earlier is kept. A loss that is NaN is never better.
        """
        if loss < self.loss:
            self.step, self.loss, self.evaluations_since = step, loss, 0
            self.weights = trained_weights(model)
        else:
            self.evaluations_since += 1

    def restore(self, model: Any) -> None:
        """Put what was kept back into the model; nothing, where nothing was."""
        if self.step is None:
            return
        put_weights(model, self.weights)


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of what is trained of a model, in main memory, by the names of its parameters."""
    return {
        name: parameter.detach().to("cpu", copy=True) for name, parameter in _trained(model).items()
    }


def put_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put what `trained_weights` returned back into the model.

    Raises:
        KeyError: they are those of another model.
    """
    for name, parameter in _trained(model).items():
        parameter.data.copy_(weights[name])


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: found for name, found in model.named_parameters() if found.requires_grad}
