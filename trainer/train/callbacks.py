"""Follow a training run: progress events, a file of metrics, evaluations, and when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from contract.errors import UserError
from contract.results.train import StepLosses, TrainingMetrics
from trainer.entrypoint import Reporter
from trainer.memory import give_back_free_pages
from trainer.train.early_stopping import BestAdapter, evaluation_due

_UPDATES_BETWEEN = 8


class EvaluationCallback(TrainerCallback):
    """Measures the held-out loss every so often, keeps the best adapter, and stops early.

    It stands before `MetricsCallback`, which writes a line for every step that is evaluated.

    Args:
        evaluate: the held-out loss of the model, after this step.
        eval_steps: see `evaluation_due`; None never evaluates.
        patience: evaluations without a lower loss after which the training stops; 0 for never.
    """

    def __init__(
        self, evaluate: Callable[[Any, int], float], *, eval_steps: float | None, patience: int
    ) -> None:
        self._evaluate = evaluate
        self._eval_steps = eval_steps
        self._patience = patience
        self.losses: dict[int, float] = {}
        self.best = BestAdapter()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Evaluate, where it is due."""
        del args
        step = state.global_step
        if self._eval_steps is None or not evaluation_due(step, state.max_steps, self._eval_steps):
            return
        self.losses[step] = self._evaluate(model, step)
        self.best.offer(step, self.losses[step], model)
        control.should_log = True
        if 0 < self._patience <= self.best.evaluations_since:
            control.should_training_stop = True


class FreePagesCallback(TrainerCallback):
    """Gives back what lies free on a CPU, every few updates.

    It holds up a training of 135 million parameters by some 75 ms, and by as much again in which
    the pages are taken anew: after every update that would be a tenth of its time.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Give it back, where it is time."""
        del args, control
        if state.global_step % _UPDATES_BETWEEN == 0:
            give_back_free_pages()


class MetricsCallback(TrainerCallback):
    """Passes what transformers' trainer reports to the launcher and to `metrics.jsonl`.

    Args:
        metrics: the file, which is begun anew; a training that goes on writes its lines again.
        held_out_losses: those of the steps that were evaluated, as they come.
    """

    def __init__(
        self, metrics: Path, reporter: Reporter, held_out_losses: Mapping[int, float]
    ) -> None:
        self._metrics = metrics
        self._reporter = reporter
        self._held_out_losses = held_out_losses
        self._started_s = time.monotonic()
        self._seconds_before = 0.0
        self._figures: dict[str, float] = {}
        self.lines: list[TrainingMetrics] = []

    @property
    def losses(self) -> list[StepLosses]:
        """The curves of both losses so far."""
        return [
            StepLosses(step=line.step, loss=line.loss, held_out_loss=line.held_out_loss)
            for line in self.lines
        ]

    def restore(self, lines: list[TrainingMetrics], *, seconds: float) -> None:
        """Go on from these lines, written in so many seconds of training."""
        self.lines = list(lines)
        self._seconds_before = seconds

    def seconds(self) -> float:
        """How long the training has taken, without the time between its parts."""
        return self._seconds_before + time.monotonic() - self._started_s

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock, now that the model is loaded."""
        del args, state, control
        self._metrics.write_text("".join(f"{line.model_dump_json()}\n" for line in self.lines))
        for line in self.lines:
            self._reporter.metrics(line.step, _tracked(line))
        self._started_s = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report an optimiser step."""
        del args, control
        self._reporter.progress(
            "training",
            done=state.global_step,
            total=state.max_steps,
            unit="steps",
            figures={**self._figures, **self._newest_held_out()},
        )

    def _newest_held_out(self) -> dict[str, float]:
        losses = list(self._held_out_losses.values())
        return {"held-out loss": losses[-1]} if losses else {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Write a line of metrics.

        Raises:
            UserError: the loss is NaN or infinite; going on would only waste time.
        """
        del args, control
        if not logs or "loss" not in logs:
            return
        seconds = self.seconds()
        loss = float(logs["loss"])
        tokens = float(logs.get("num_tokens", 0.0))
        line = TrainingMetrics(
            step=state.global_step,
            epoch=round(float(logs.get("epoch", 0.0)), 4),
            loss=loss,
            held_out_loss=self._held_out_losses.get(state.global_step),
            learning_rate=float(logs["learning_rate"]),
            grad_norm=float(logs.get("grad_norm", math.nan)),
            tokens=int(tokens),
            tokens_per_s=round(tokens / seconds, 1) if seconds else 0.0,
            seconds=round(seconds, 3),
        )
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(line.model_dump_json() + "\n")
        self._reporter.metrics(line.step, _tracked(line))
        if not math.isfinite(loss):
            raise UserError.one(
                f"step {state.global_step}",
                f"the loss is {loss}",
                "Lower learning_rate, or use precision fp32.",
            )
        self.lines.append(line)
        self._figures = {"loss": loss, "tokens/s": line.tokens_per_s}


def _tracked(line: TrainingMetrics) -> dict[str, float]:
    """A line's figures by the names that transformers gives them in trackers."""
    held_out = {} if line.held_out_loss is None else {"eval/loss": line.held_out_loss}
    return {
        "train/loss": line.loss,
        "train/learning_rate": line.learning_rate,
        "train/grad_norm": line.grad_norm,
        "train/epoch": line.epoch,
        "train/tokens_per_s": line.tokens_per_s,
        **held_out,
    }
