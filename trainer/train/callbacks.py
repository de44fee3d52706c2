"""Follow a training run: progress events, a file of metrics, and a stop at a NaN loss."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from contract.errors import UserError
from contract.results.train import TrainingMetrics
from trainer.entrypoint import Reporter


class MetricsCallback(TrainerCallback):
    """Passes what transformers' trainer reports to the launcher and to `metrics.jsonl`."""

    def __init__(self, metrics: Path, reporter: Reporter) -> None:
        self._metrics = metrics
        self._reporter = reporter
        self._started_s = time.monotonic()
        self._figures: dict[str, float] = {}
        self.losses: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock, now that the model is loaded."""
        del args, state, control
        self._metrics.write_text("")
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
            figures=self._figures,
        )

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
        seconds = time.monotonic() - self._started_s
        loss = float(logs["loss"])
        tokens = float(logs.get("num_tokens", 0.0))
        line = TrainingMetrics(
            step=state.global_step,
            epoch=round(float(logs.get("epoch", 0.0)), 4),
            loss=loss,
            learning_rate=float(logs["learning_rate"]),
            grad_norm=float(logs.get("grad_norm", math.nan)),
            tokens=int(tokens),
            tokens_per_s=round(tokens / seconds, 1) if seconds else 0.0,
            seconds=round(seconds, 3),
        )
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(line.model_dump_json() + "\n")
        if not math.isfinite(loss):
            raise UserError.one(
                f"step {state.global_step}",
                f"the loss is {loss}",
                "Lower learning_rate, or use precision fp32.",
            )
        self.losses.append(loss)
        self._figures = {"loss": loss, "tokens/s": line.tokens_per_s}
