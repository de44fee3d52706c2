"""When a training saves a checkpoint, what goes into it, and how a training goes on from one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from contract.disk_space import full_disk
from contract.recipe import CheckpointSection
from trainer.entrypoint import Reporter
from trainer.train.callbacks import EvaluationCallback, MetricsCallback
from trainer.train.checkpoints import Checkpoint, CheckpointStore, TrainingState
from trainer.train.early_stopping import trained_weights
from trainer.train.optimizer_state import take_over_moments
from trainer.train.stop_request import StopRequest

if TYPE_CHECKING:
    from trainer.train.completion_loss import CompletionTrainer


class CheckpointCallback(TrainerCallback):
    """Asks for a checkpoint where one is due, or where somebody asked for a stop.

    It stands behind the other two, whose state it saves. Nothing that it does changes a training:
    the adapter is the same to the byte with and without checkpoints.

    Args:
        store: where they are kept.
        schedule: after how many steps and minutes one is due.
        stop: ends the training at the end of the step, with a checkpoint.
        resumed: the checkpoint that the training goes on from.
        changed: keys of the recipe that were changed since memory ran out.
    """

    def __init__(
        self,
        store: CheckpointStore,
        schedule: CheckpointSection,
        *,
        stop: StopRequest,
        evaluation: EvaluationCallback,
        metrics: MetricsCallback,
        resumed: Checkpoint | None,
        changed: Mapping[str, JsonValue],
        reporter: Reporter,
    ) -> None:
        self._store = store
        self._schedule = schedule
        self._stop = stop
        self._evaluation = evaluation
        self._metrics = metrics
        self._reporter = reporter
        self._saved_s = time.monotonic()
        self._trainer: CompletionTrainer | None = None
        self._changed = changed
        self.resumed = resumed
        self.resumed_after: list[int] = []
        if resumed is not None:
            state = resumed.state
            self.resumed_after = [*state.resumed_after, state.step]
            metrics.restore(state.metrics, seconds=state.seconds)
            evaluation.losses.update(state.held_out_losses)
            best = evaluation.best
            best.step, best.loss = state.best_step, state.best_loss
            best.evaluations_since = state.evaluations_since
            best.weights = resumed.best()

    def attach(self, trainer: CompletionTrainer) -> None:
        """Say which trainer this is a callback of."""
        self._trainer = trainer

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Start the clock, now that the model is loaded, and put the trainer's counts back."""
        del args, state, control
        self._saved_s = time.monotonic()
        if self.resumed is not None and self._trainer is not None:
            # It may be another one by now, for lack of memory.
            take_over_moments(optimizer)
            self._trainer.restore_counts(
                summed_loss=self.resumed.state.summed_loss,
                last_logged_step=self.resumed.state.last_logged_step,
                tokens=self.resumed.state.tokens,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint, where one is due."""
        del args
        if control.should_training_stop:
            # Stopped early. One that went on from here would train on.
            return
        if self._stop.made:
            control.should_save = control.should_training_stop = True
        elif state.global_step < state.max_steps and self._due(state.global_step):
            control.should_save = True

    def _due(self, step: int) -> bool:
        steps, minutes = self._schedule.checkpoint_steps, self._schedule.checkpoint_minutes
        return (steps is not None and step % steps == 0) or (
            minutes is not None and time.monotonic() - self._saved_s >= minutes * 60
        )

    def save(self, trainer: CompletionTrainer) -> None:
        """Write a checkpoint of the trainer as it is after a step."""
        best = self._evaluation.best
        step = trainer.state.global_step
        state = TrainingState(
            step=step,
            summed_loss=trainer.summed_loss,
            last_logged_step=trainer.last_logged_step,
            tokens=trainer.trained_tokens,
            seconds=self._metrics.seconds(),
            metrics=self._metrics.lines,
            held_out_losses=self._evaluation.losses,
            best_step=best.step,
            best_loss=best.loss,
            evaluations_since=best.evaluations_since,
            resumed_after=self.resumed_after,
            changed=dict(self._changed),
        )
        self._saved_s = time.monotonic()
        try:
            self._store.save(
                state,
                adapter=trained_weights(trainer.model),
                best=best.weights,
                save_trainer=trainer.save_to,
            )
        except Exception as error:
            # The training is not to end by it: there may be room again before the next one.
            if (full := full_disk(error, self._store.folder)) is None:
                raise
            self._reporter.note(f"no checkpoint after step {step}: {full.problems[0]}")
            return
        if self._stop.made:
            self._reporter.note(f"stopped after step {step}, with a checkpoint")

    @property
    def resume_from(self) -> Path | None:
        """The folder that transformers' trainer is told to go on from."""
        return self.resumed.folder if self.resumed is not None else None
