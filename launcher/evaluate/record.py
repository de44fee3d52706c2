"""What an evaluation found: `evaluation.json`, written whole, beside the run's manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from contract import paths
from contract.errors import UserError
from contract.evaluation import Leak
from contract.record import Record
from launcher.evaluate.intervals import Interval, Verdict
from launcher.evaluate.paired_differences import Outcome, PairedDifferences, differences

# From a run's folder.
ATTEMPT = paths.EVALUATION_FOLDER / "attempt.json"


class ModelIdentity(Record):
    """Who was asked.

    `by` is the server and its version, `address` where it was (None: llama-server, here), and
    `image` the id of the image that it ran in, where the launcher started its container. `digest`
    is the served model's own, where a server gives it one; `model_digest` that of its files and
    settings, None where it was not made here.
    """

    name: str
    by: str
    address: str | None = None
    image: str | None = None
    digest: str
    model_digest: str | None

    @property
    def answered(self) -> str:
        """Who answered, for people: `Ollama 0.34.1 at http://127.0.0.1:11434`."""
        return self.by if self.address is None else f"{self.by} at {self.address}"

    @property
    def answers_file(self) -> str:
        """Where its answers are kept: other files, settings or servers answer otherwise."""
        by = self.by.lower().replace(" ", "-")
        return f"{self.digest.removeprefix('sha256:')[:16]}-{by}.jsonl"


class Counts(Record):
    """Answers that are something else than an answer: scored like all, and counted apart."""

    empty: int
    no_json: int
    truncated: int
    repetition_loop: int


class Scores(Record):
    """One model's mean score on a set, with its 95 % interval, and each row's score."""

    score: Interval
    counts: Counts
    row_scores: list[float]


class SetResult(Record):
    """One set: the model's scores, the base's, and what tells them apart.

    `verdict`: of the task by its own 95 % interval; of a skill by Holm over all skills, and worse
    only by more than the bound. `regression`: a skill that is worse so. `max_new_tokens`: the least
    and the most that an answer to one of its rows could have.
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
    max_new_tokens: tuple[int, int]

    def paired(self) -> PairedDifferences | None:
        """The rows' differences from the base, summed up; None without a base."""
        return PairedDifferences.of(self.row_differences()) if self.base is not None else None

    def row_differences(self) -> list[float]:
        """Each row's score less the base's; none without a base."""
        if self.base is None:
            return []
        return differences(self.model.row_scores, self.base.row_scores)


class Example(Record):
    """A row of the task that the model has wrong, for people to look at."""

    where: str
    question: str
    expected: str
    model: str
    base: str | None


class EvaluationAttempt(Record):
    """An evaluation that began, and whom it asks; it is gone once that evaluation is written.

    So where it is there, `evaluation.json` is of an earlier one.
    """

    remedy: ClassVar[str] = "Run ./invoke evaluate again."

    model: ModelIdentity
    started: str

    @classmethod
    def of_run(cls, run: Path) -> EvaluationAttempt | None:
        """The last evaluation of a run's model where it did not end, or None."""
        path = run / ATTEMPT
        return cls.read(path) if path.exists() else None

    @property
    def text(self) -> str:
        """For whoever reads the scores of the one before it."""
        return (
            f"the evaluation by {self.model.answered} that began at {self.started} did not end: "
            "the scores are those of an earlier one"
        )


class GateLine(Record):
    """One demand of the gate's policy, whether it is met, and what was found.

    `rows_needed`: how many rows would decide what is inconclusive, None where that is not known.
    """

    name: str
    outcome: Outcome
    found: str
    rows_needed: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_two_outcomes(cls, values: Any) -> Any:
        # As logs of promotions have it that were written when there were two.
        return _with_outcome(values, "passed")

    @property
    def passed(self) -> bool:
        """Whether the demand is shown to be met."""
        return self.outcome == "passed"


class GateDecision(Record):
    """What the gate said of this evaluation: passed only if every line is.

    `lost`: the skills of which a loss beyond the bound is shown.
    """

    outcome: Outcome
    lines: list[GateLine]
    lost: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _of_two_outcomes(cls, values: Any) -> Any:
        return _with_outcome(values, "ship")

    @classmethod
    def of(cls, lines: list[GateLine], lost: list[str]) -> GateDecision:
        """Failed where a line is, inconclusive where none is and one is that."""
        outcomes = {line.outcome for line in lines}
        order: tuple[Outcome, ...] = ("failed", "inconclusive", "passed")
        outcome = next(outcome for outcome in order if outcome in outcomes)
        return cls(outcome=outcome, lines=lines, lost=lost)

    @property
    def ship(self) -> bool:
        """Whether the model may be used."""
        return self.outcome == "passed"


def _with_outcome(values: Any, key: str) -> Any:
    if not isinstance(values, dict) or key not in values:
        return values
    rest = {name: value for name, value in values.items() if name != key}
    return {**rest, "outcome": "passed" if values[key] is True else "failed"}


class Evaluation(Record):
    """All of it; `gate` is there once `./invoke gate` has decided.

    `limit`: the most rows of each set that were asked, as a sample; None where all were.
    `max_new_tokens`: the most that any answer could have; each set has its own below that.
    """

    remedy: ClassVar[str] = "Run ./invoke evaluate again."

    model: ModelIdentity
    base: ModelIdentity | None
    sets: list[SetResult]
    dropped: list[Leak]
    examples: list[Example]
    limit: int | None
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
