"""TRL's trainer, with the head of the model for the positions that bear loss and no others."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from trl import SFTTrainer

from trainer.prepared import IGNORED
from trainer.train.chunked_head import ChunkedHead, next_tokens
from trainer.train.early_stopping import put_weights
from trainer.train.micro_batches import (
    MicroBatch,
    MicroBatchLimits,
    joined_rows,
    micro_batches,
    split_rows,
)
from trainer.train.packed_attention import rows_apart

if TYPE_CHECKING:
    from trainer.train.checkpoint_callback import CheckpointCallback


class CompletionTrainer(SFTTrainer):  # type: ignore[misc]
    """The same loss as TRL's `nll`: mean over the completion's tokens, in nats per token.

    TRL takes every position through the head and measures the entropy and the likeliest token of
    each. Of a row whose prompt is five times as long as its answer, that is a third of the step.

    Its checkpoints are of our own form. transformers' `_save_checkpoint` writes tokenizer, model
    card and a pickle of its arguments into each, and leaves out what was summed up since the last
    line of metrics.

    Args:
        limits: of a micro-batch.
        checkpoints: saves and restores; it is also one of the callbacks.
        arguments: TRL's, whose batch is a whole update.
    """

    def __init__(
        self,
        *,
        limits: MicroBatchLimits,
        checkpoints: CheckpointCallback | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments, data_collator=joined_rows)
        self._limits = limits
        self._checkpoints = checkpoints
        if checkpoints is not None:
            checkpoints.attach(self)

    @property
    def summed_loss(self) -> float:
        """The loss of the steps since the last line of metrics, in nats per token."""
        return float(self._tr_loss)

    @property
    def last_logged_step(self) -> int:
        """The step of the last line of metrics."""
        return int(self._globalstep_last_logged)

    @property
    def trained_tokens(self) -> int:
        """How many tokens were trained so far."""
        return self._total_train_tokens

    def restore_counts(self, *, summed_loss: float, last_logged_step: int, tokens: int) -> None:
        """Go on with the counts of a checkpoint."""
        self._tr_loss = torch.tensor(summed_loss, device=self.args.device)
        self._globalstep_last_logged = last_logged_step
        self._total_train_tokens = tokens

    def save_to(self, folder: Path) -> None:
        """Write what transformers' trainer reads again when it is told to go on from a folder."""
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        del model, trial
        assert self._checkpoints is not None
        self._checkpoints.save(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # PEFT would load the adapter into one of its own making.
        del resume_from_checkpoint, model
        assert self._checkpoints is not None
        assert self._checkpoints.resumed is not None
        put_weights(self.model, self._checkpoints.resumed.adapter())

    def try_out(self, micro_batch: MicroBatch) -> None:
        """Compute a micro-batch's gradients and drop them, as if nothing had been."""
        device = self.args.device
        tokens = self._total_train_tokens
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            self.add_gradients(self.model.train(), micro_batch, predicted=1)
        self.model.zero_grad(set_to_none=True)
        self._total_train_tokens = tokens
        self._metrics["train"].clear()

    def optimizer_bytes_to_come(self) -> int:
        """What the optimizer will take from its first step on: two states of each trained weight.

        A small tensor's stay in fp32 where the others have 8 bits: that is not told apart here.
        """
        if self.optimizer.state:
            return 0
        weights = self.model.parameters()
        trained = sum(int(weight.numel()) for weight in weights if weight.requires_grad)
        return 2 * trained * (1 if "8bit" in str(self.args.optim) else 4)

    def training_step(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The gradients of an update's rows, summed up over its micro-batches; returns their loss.

        It stands in for transformers' accumulation, whose batches are of a fixed number of rows,
        and follow each other as they were drawn.
        """
        del num_items_in_batch
        model.train()
        rows = split_rows(inputs)
        predicted = sum(int((labels[1:] != IGNORED).sum()) for _, labels in rows)
        total = torch.zeros((), device=self.args.device)
        for micro_batch in micro_batches(rows, self._limits):
            total += self.add_gradients(model, micro_batch, predicted)
        return total

    def add_gradients(self, model: Any, micro_batch: MicroBatch, predicted: int) -> torch.Tensor:
        """Add a micro-batch's gradients to the others', and return its part of the loss.

        Args:
            predicted: completion tokens of the whole update.
        """
        inputs = self._prepare_inputs(micro_batch.inputs)
        apart = rows_apart(model, micro_batch.packed) if micro_batch.packed else nullcontext()
        with apart, self.maybe_activation_offload_context:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs, num_items_in_batch=predicted)
            # Inside as well: what checkpointing computes again has to see rows apart, too.
            self.accelerator.backward(loss)
        return loss.detach()

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
        positions = [len(piece) for piece in head.pieces]
        for piece, expected in zip(head.pieces, targets[wanted].split(positions), strict=True):
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
