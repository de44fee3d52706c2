"""What an evaluation found: `evaluation.json`, written whole, beside the run's manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contract import paths
from contract.atomic_write import atomic_write
from contract.errors import UserError
from contract.evaluation import Leak
from contract.record import read_record
from launcher.evaluate.intervals import Interval, Verdict


class _Record(BaseModel):
    # `model_...` is the field's word here, not pydantic's.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelIdentity(_Record):
    """Who was asked.

    `digest` is the served model's own, where a server gives it one; `model_digest` that of its
    files and settings, None where it was not made here.
    """

    name: str
    by: str
    digest: str
    model_digest: str | None


class Counts(_Record):
    """Answers that are something else than an answer: scored like all, and counted apart."""

    empty: int
    no_json: int
    truncated: int
    repetition_loop: int


class Scores(_Record):
    """One model's mean score on a set, with its 95 % interval."""

    score: Interval
    counts: Counts


class SetResult(_Record):
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


class Example(_Record):
    """A row of the task that the model has wrong, for people to look at."""

    where: str
    question: str
    expected: str
    model: str
    base: str | None


class GateLine(_Record):
    """One demand of the gate's policy, and what was found."""

    name: str
    passed: bool
    found: str


class GateDecision(_Record):
    """What the gate said of this evaluation."""

    ship: bool
    lines: list[GateLine]


class Evaluation(_Record):
    """All of it; `gate` is there once `./invoke gate` has decided."""

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
    def read(cls, run: Path, name: str) -> Evaluation:
        """The last evaluation of a run's model.

        Raises:
            UserError: there is none.
        """
        path = run / paths.EVALUATION
        if not path.exists():
            raise UserError.one(
                "--model", f"{name} was not evaluated yet", f"./invoke evaluate --model {name}"
            )
        return read_record(cls, path)

    def write(self, run: Path) -> None:
        """Put it into the run's folder, whole."""
        atomic_write(run / paths.EVALUATION, self.model_dump_json(indent=1) + "\n")

    @property
    def task(self) -> SetResult:
        """The task's own set."""
        return next(result for result in self.sets if result.kind == "task")

    @property
    def skills(self) -> list[SetResult]:
        """The sets of what the base knew."""
        return [result for result in self.sets if result.kind == "skill"]
