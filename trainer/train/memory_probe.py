"""The largest micro-batch of a training, forward and backward, before its first step.

Whether a training fits is to be known in its first minute, and not in the hour in which the longest
rows come together. Nothing is learned from it: no weight changes, and no random number is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer.train.micro_batches import MicroBatch, MicroBatchLimits, Row, packed, padded
from trainer.train.peak_memory import PeakMemory

if TYPE_CHECKING:
    from trainer.train.completion_loss import CompletionTrainer


class ProbeCallback(TrainerCallback):
    """Measures the peak of the largest micro-batch, and after the training that of the training.

    Args:
        micro_batch: the largest one.
        memory: that of the device that trains.
    """

    def __init__(self, micro_batch: MicroBatch, memory: PeakMemory) -> None:
        self._micro_batch = micro_batch
        self._memory = memory
        self._trainer: CompletionTrainer | None = None
        self.probe_bytes: int | None = None
        self.peak_bytes: int | None = None

    def attach(self, trainer: CompletionTrainer) -> None:
        """Say which trainer this is a callback of."""
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Try the largest micro-batch.

        Raises:
            RuntimeError: there is not memory enough, as torch says it.
        """
        del args, state, control
        assert self._trainer is not None
        self._memory.restart()
        self._trainer.try_out(self._micro_batch)
        self.probe_bytes = self._memory.bytes() + self._trainer.optimizer_bytes_to_come()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at the peak."""
        del args, state, control
        self.peak_bytes = self._memory.bytes()


def largest_micro_batch(longest: Sequence[Row], limits: MicroBatchLimits) -> MicroBatch:
    """The micro-batch with the most tokens that rows can make.

    Args:
        longest: the longest rows, as many as an update has, the longest first.
    """
    if limits.packed_tokens is None:
        return padded(longest[: limits.rows])
    # Rows that fill it to the last token: some update will have them, or nearly.
    chosen = [longest[0]]
    room = limits.packed_tokens - len(longest[0][0])
    for ids, labels in longest[1:]:
        if room <= 0:
            break
        chosen.append((ids[-room:], labels[-room:]))
        room -= len(ids)
    return packed(chosen)
