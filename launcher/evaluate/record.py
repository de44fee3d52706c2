"""What an evaluation found: `evaluation.json`, written whole, beside the run's manifest."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from contract import paths
from contract.errors import UserError
from contract.evaluation import Leak
from contract.record import Record
from launcher.evaluate.intervals import Interval, Verdict


class ModelIdentity(Record):
    """Who was asked.

    `digest` is the served model's own, where a server gives it one; `model_digest` that of its
    files and settings, None where it was not made here.
    """

    name: str
    by: str
    digest: str
    model_digest: str | None


class Counts(Record):
    """Answers that are something else than an answer: scored like all, and counted apart."""

    empty: int
    no_json: int
    truncated: int
    repetition_loop: int


class Scores(Record):
    """One model's mean score on a set, with its 95 % interval."""

    score: Interval
    counts: Counts


class SetResult(Record):
    """One set: the model's scores, the base's, and what tells them apart.

    `regression`: a skill that fell by more than the bound, beyond its interval.
    """

    set: str
    kind: Literal["task", "skill"]
    metrics: list[str]
    rows: int
    model: Scores
    base: Scores | None
    difference: Interval | None
    verdict: Verdict | None
    regression: bool


class Example(Record):
    """A row of the task that the model has wrong, for people to look at."""

    where: str
    question: str
    expected: str
    model: str
    base: str | None


class GateLine(Record):
    """One demand of the gate's policy, and what was found."""

    name: str
    passed: bool
    found: str


class GateDecision(Record):
    """What the gate said of this evaluation."""

    ship: bool
    lines: list[GateLine]


class Evaluation(Record):
    """All of it; `gate` is there once `./invoke gate` has decided."""

    remedy: ClassVar[str] = "Run ./invoke evaluate again."

    model: ModelIdentity
    base: ModelIdentity | None
    sets: list[SetResult]
    dropped: list[Leak]
    examples: list[Example]
    max_new_tokens: int
    max_skill_loss: float
    created: str
    gate: GateDecision | None = None

    @classmethod
    def of_run(cls, run: Path, name: str) -> Evaluation:
        """The last evaluation of a run's model.

        Raises:
            UserError: there is none.
        """
        path = run / paths.EVALUATION
        if not path.exists():
            raise UserError.one(
                "--model", f"{name} has not been evaluated yet", f"./invoke evaluate --model {name}"
            )
        return cls.read(path)

    @property
    def task(self) -> SetResult:
        """The task's own set."""
        return next(result for result in self.sets if result.kind == "task")

    @property
    def skills(self) -> list[SetResult]:
        """The sets of what the base knew."""
        return [result for result in self.sets if result.kind == "skill"]
