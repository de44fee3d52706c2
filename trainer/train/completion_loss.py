"""TRL's trainer, with the head of the model for the positions that bear loss and no others."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from trl import SFTTrainer

from trainer.prepared import IGNORED
from trainer.train.chunked_head import POSITIONS, ChunkedHead, next_tokens


class CompletionTrainer(SFTTrainer):  # type: ignore[misc]
    """The same loss as TRL's `nll`: mean over the completion's tokens, in nats per token.

    TRL takes every position through the head and measures the entropy and the likeliest token of
    each. Of a row whose prompt is five times as long as its answer, that is a third of the step.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, divided by the completion tokens of all its accumulated batches.

        A mixture of experts with a loss of its routers, and whoever asks for the logits, get TRL's.
        """
        if self.aux_loss_enabled or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        given = {name: value for name, value in inputs.items() if name != "labels"}
        targets = next_tokens(inputs["labels"])
        wanted = targets != IGNORED
        head = ChunkedHead(model, given, wanted)

        def summed(piece: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
            return cross_entropy(head.logits(piece), expected, reduction="sum")

        total = torch.zeros((), device=targets.device)
        for piece, expected in zip(head.pieces, targets[wanted].split(POSITIONS), strict=True):
            if len(head.pieces) == 1:
                total = total + summed(piece, expected)
            else:
                # Of several, one at a time has its logits in memory, in the backward pass as well.
                total = total + checkpoint(summed, piece, expected, use_reentrant=False)
        count = wanted.sum() if num_items_in_batch is None else num_items_in_batch
        self._count_tokens(given)
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)

    def _count_tokens(self, given: dict[str, Any]) -> None:
        # As TRL does, whose `log` reports them. Packed rows have no mask, and nothing to mask.
        mask = given.get("attention_mask")
        tokens = mask.sum().item() if mask is not None else given["input_ids"].numel()
        self._total_train_tokens += int(tokens)
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
