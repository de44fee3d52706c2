"""What a report says of a finished run, read from its records once; nothing is computed anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from contract import paths
from contract.errors import UserError
from contract.manifest import ImageRecord, Manifest, Verification
from contract.record import other_version
from contract.results.prepare import PrepareResult
from contract.results.train import TrainingMetrics, TrainResult
from launcher.evaluate.record import Evaluation, EvaluationAttempt
from launcher.pipeline.finished_run import Run
from launcher.project import lock_file, shown
from launcher.runtime.dependency_locks import lock_digest, pinned

# `outdated`: of a model that the run made earlier.
ProofState = Literal["none", "outdated", "passed", "failed"]


@dataclass(frozen=True)
class Lock:
    """A dependency lock by its digest, and its packages where it lies here as it was then."""

    name: str
    digest: str
    packages: Mapping[str, str] | None


@dataclass(frozen=True)
class Facts:
    """A run's records.

    Attributes:
        run: the beginning of its key, which names its folder.
        metrics: the lines of `metrics.jsonl`; none where the file is gone.
        evaluation: the last one, if there is one; `attempt` is a later one that did not end.
        model_digest: of the served model, by what the run recorded.
    """

    run: str
    manifest: Manifest
    prepared: PrepareResult
    trained: TrainResult
    metrics: tuple[TrainingMetrics, ...]
    evaluation: Evaluation | None
    attempt: EvaluationAttempt | None
    model_digest: str

    @classmethod
    def of(cls, run: Run) -> Facts:
        """Read them.

        Raises:
            UserError: one is not there, or another version of this project wrote it.
        """
        serving, evaluation = run.folder / paths.SERVING, run.folder / paths.EVALUATION
        if not serving.exists():
            raise UserError.one(shown(serving), "does not exist", "Run ./invoke train again.")
        return cls(
            run=run.name,
            manifest=run.manifest,
            prepared=run.manifest.result(PrepareResult),
            trained=run.manifest.result(TrainResult),
            metrics=_metrics(run.folder / paths.METRICS),
            evaluation=Evaluation.read(evaluation) if evaluation.exists() else None,
            attempt=EvaluationAttempt.of_run(run.folder),
            model_digest=run.recorded_model_digest,
        )

    @property
    def model(self) -> str:
        """The trained model's name."""
        return self.manifest.recipe.output_model_name

    @property
    def proof(self) -> Verification | None:
        """The last verification."""
        return self.manifest.verification

    @property
    def proof_state(self) -> ProofState:
        """What the last verification says of the model that the run holds now."""
        if self.proof is None:
            return "none"
        if self.proof.model_digest != self.model_digest:
            return "outdated"
        return "passed" if self.proof.passed else "failed"

    @property
    def evaluation_is_outdated(self) -> bool:
        """Whether the evaluated model is one that the run made earlier."""
        return (
            self.evaluation is not None and self.evaluation.model.model_digest != self.model_digest
        )

    @property
    def seconds(self) -> float:
        """What all its stages took."""
        return sum(record.seconds for record in self.manifest.stages)

    @property
    def engines(self) -> list[str]:
        """Where its stages ran, each once."""
        return list(dict.fromkeys(record.engine for record in self.manifest.stages))

    @property
    def pythons(self) -> list[str]:
        """The versions of Python that its stages ran on, each once."""
        found = (record.python for record in self.manifest.stages)
        return list(dict.fromkeys(version for version in found if version is not None))

    @property
    def images(self) -> list[ImageRecord]:
        """The images that its stages ran in, each once; none with the local engine."""
        found = [record.image for record in self.manifest.stages if record.image is not None]
        return list({image.digest: image for image in found}.values())

    @cached_property
    def locks(self) -> list[Lock]:
        """The locks that it was made with."""
        return [_lock(name, digest) for name, digest in sorted(self.manifest.locks.items())]

    @cached_property
    def inputs(self) -> dict[str, str]:
        """What its stages read beside each other's outputs, by digest."""
        found = {}
        for record in self.manifest.stages:
            inputs = record.decided_by.get("inputs")
            if isinstance(inputs, dict):
                found.update({name: str(digest) for name, digest in inputs.items()})
        return dict(sorted(found.items()))


def _metrics(path: Path) -> tuple[TrainingMetrics, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ()
    try:
        return tuple(TrainingMetrics.model_validate_json(line) for line in lines)
    except ValidationError as error:
        raise other_version(str(path), error, TrainingMetrics.remedy) from None


def _lock(name: str, digest: str) -> Lock:
    stem = Path(name).stem
    here = lock_file(stem).is_file() and lock_digest(stem) == digest
    return Lock(name, digest, pinned(stem) if here else None)
