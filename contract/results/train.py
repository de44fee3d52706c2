"""What the stage `train` finds out."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, JsonValue

from contract.record import Record
from contract.results.stage_result import StageResult


class TrainingMetrics(Record):
    """A line of `metrics.jsonl`: the mean loss since the line before, in nats per token.

    `held_out_loss` is that of the adapter as it is after this step, over all held-out rows; None
    where it was not measured. `tokens` and `seconds` count from the start of the training, without
    loading the model. `times` are the keys that differ from one training to its repetition.
    """

    times: ClassVar[tuple[str, ...]] = ("tokens_per_s", "seconds")

    step: int
    epoch: float
    loss: float
    held_out_loss: float | None
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_s: float
    seconds: float


class StepLosses(Record):
    """A point of the curve: both losses of a line of `metrics.jsonl`."""

    step: int
    loss: float
    held_out_loss: float | None


class BaseAndTuned(Record):
    """One measure of two models: the base, and the same with the adapter."""

    base: float
    tuned: float


class Example(Record):
    """A held-out question and three answers to it."""

    prompt: str
    expected: str
    base: str
    tuned: str


class HeldOutScores(Record):
    """What `held_out.json` says: how both models do on rows that were not trained on.

    `loss` is in nats per completion token, over all held-out rows. `exact_match` is the share of
    the `answered_rows` whose answer is the expected one, letter for letter. None is what was not
    measured, because no row is held out or none was to be answered.
    """

    held_out_rows: int
    answered_rows: int
    loss: BaseAndTuned | None
    exact_match: BaseAndTuned | None
    examples: list[Example]


class MemoryFigures(Record):
    """The memory of a training at its peak, in bytes: estimated, probed and measured.

    On a GPU what torch's allocator holds there, with CUDA's context; on a CPU the process's largest
    resident set. None is what was not known or not measured.

    Attributes:
        estimate_bytes: from the base's shape and the recipe (`contract/memory_estimate.py`).
        probe_bytes: of the largest micro-batch before the first step, with the optimizer's state.
        peak_bytes: of the whole training.
    """

    estimate_bytes: int | None = None
    probe_bytes: int | None = None
    peak_bytes: int | None = None


class TrainResult(StageResult):
    """The device's name, the losses during the training, and the held-out scores.

    The training ended after `steps` of the `planned_steps` that the recipe's epochs are.
    `best_step` is the evaluated step of least held-out loss, whose adapter is the one that is kept;
    None where none was evaluated, and the last step's is kept. `resumed_after` are the steps after
    which it was cut off and went on from a checkpoint. `changed` are the keys of the recipe that
    were changed because memory ran out, or because the base's rows cannot be packed, with the
    values that it ended with. `memory` is what it was estimated to take beside what it took.
    """

    stage = "train"

    device: str
    losses: list[StepLosses]
    steps: int
    planned_steps: int
    best_step: int | None
    resumed_after: list[int]
    changed: dict[str, JsonValue] = Field(default_factory=dict)
    memory: MemoryFigures | None = None
    held_out: HeldOutScores
