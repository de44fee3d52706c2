"""What lies in `data/models/`: every run, how far it came, and the few figures that tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from contract import paths
from contract.base import BaseIdentity
from contract.errors import UserError
from contract.manifest import StageRecord
from contract.record import Record
from contract.results.prepare import PrepareResult
from contract.results.stage_result import ResultType
from contract.results.train import BaseAndTuned, TrainResult
from launcher.evaluate.paired_differences import Outcome
from launcher.evaluate.recorded_answers import recorded_evaluation
from launcher.pipeline.finished_run import Run, model_name, run_folders
from launcher.pipeline.stages import TRAIN, TRAINING_STAGES
from launcher.project import ROOT, shown
from launcher.promote.promoted_runs import PromotedRun
from launcher.runtime.disk_usage import used_bytes
from launcher.runtime.open_files import open_files, user_of

State = Literal["finished", "unfinished", "unreadable"]


class RunSummary(Record):
    """A run's folder in short; None is what is not known of it.

    Attributes:
        reason: why its manifest cannot be read.
        process: a process that works in its folder.
        stages: those that are recorded, of a run that is not finished.
        checkpoint: the step after which its training would be resumed.
        latest: it is the run that the model's name means.
        roles: those that stand at it.
        maybe_roles: those that stand at a run of its model, of which no promotion says which it is.
        rollback_roles: those that a rollback would point at it.
        gate: what the gate said of its last evaluation.
        created: when it was finished, or the last of its stages began.
    """

    model: str
    key: str
    folder: str
    state: State
    reason: str | None = None
    process: int | None = None
    stages: list[str]
    checkpoint: int | None = None
    latest: bool
    roles: list[str]
    maybe_roles: list[str]
    rollback_roles: list[str]
    size_bytes: int
    base: str | None = None
    train_rows: int | None = None
    held_out_rows: int | None = None
    held_out_loss: BaseAndTuned | None = None
    exact_match: BaseAndTuned | None = None
    gate: Outcome | None = None
    created: str | None = None

    @property
    def path(self) -> Path:
        """Its folder."""
        return ROOT / self.folder


def summaries(promoted: Sequence[PromotedRun], model: str = "") -> list[RunSummary]:
    """Every run here, or those of one model, in the order of models and then of time.

    Raises:
        UserError: there is no run of this model.
    """
    folders = run_folders(model)
    if model and not folders:
        known = sorted({model_name(folder.parent) for folder in run_folders()})
        remedy = f"Known: {', '.join(known)}." if known else "Train one: ./invoke train."
        raise UserError.one("--model", f"{model} has no run here", remedy)
    latest = {folder.parent: _latest(folder.parent) for folder in folders}
    opened = open_files(folders[0].parent.parent) if folders else {}
    found = [
        _summary(folder, latest[folder.parent] == folder, promoted, opened) for folder in folders
    ]
    return sorted(found, key=lambda run: (run.model, run.created or "", run.key))


def _summary(
    folder: Path, latest: bool, promoted: Sequence[PromotedRun], opened: Mapping[Path, int]
) -> RunSummary:
    run = Run(folder)
    state, reason = _state(run)
    records = _records(run, state)
    model = model_name(folder.parent)
    roles = [one for one in promoted if one.may_be(model, run.name)]
    prepared = _result(records, PrepareResult)
    trained = _result(records, TrainResult)
    evaluation = recorded_evaluation(run)
    gate = evaluation.gate if evaluation is not None else None
    return RunSummary(
        model=model,
        key=run.name,
        folder=shown(folder),
        state=state,
        reason=reason,
        process=user_of(folder, opened),
        stages=[stage for stage in records if state == "unfinished"],
        checkpoint=_checkpoint(folder),
        latest=latest,
        roles=[one.role for one in roles if one.current and one.key],
        maybe_roles=[one.role for one in roles if not one.key],
        rollback_roles=[one.role for one in roles if not one.current and one.key],
        size_bytes=used_bytes(folder),
        base=_base(run, state),
        train_rows=prepared.train if prepared else None,
        held_out_rows=prepared.held_out if prepared else None,
        held_out_loss=trained.held_out.loss if trained else None,
        exact_match=trained.held_out.exact_match if trained else None,
        gate=gate.outcome if gate is not None else None,
        created=_created(run, state, records),
    )


def _state(run: Run) -> tuple[State, str | None]:
    """How far a run came, and why its manifest cannot be read where that is so."""
    try:
        _ = run.manifest
    except FileNotFoundError:
        return "unfinished", None
    except UserError as error:
        return "unreadable", error.problems[0].what
    except OSError as error:
        return "unreadable", error.strerror
    return "finished", None


def _latest(folder: Path) -> Path | None:
    """The run that the model's name means."""
    with suppress(UserError, OSError):
        found = Run.find(model_name(folder))
        return found.folder if found.is_finished else None
    return None


def _records(run: Run, state: State) -> dict[str, StageRecord]:
    """The stages that are recorded, in the order of the graph."""
    if state == "finished":
        return {record.stage: record for record in run.manifest.stages}
    found = {}
    for stage in TRAINING_STAGES:
        with suppress(UserError, OSError):
            file = run.folder / paths.STAGES / f"{stage.name}.json"
            found[stage.name] = StageRecord.read(file)
    return found


def _result(records: Mapping[str, StageRecord], kind: type[ResultType]) -> ResultType | None:
    with suppress(KeyError, UserError):
        return records[kind.stage].typed_result(kind)
    return None


def _checkpoint(folder: Path) -> int | None:
    checkpoints = folder / paths.WORK / TRAIN.name / paths.CHECKPOINTS
    found = checkpoints.glob(paths.checkpoint_name("*"))
    steps = [step for one in found if (step := paths.checkpoint_step(one.name)) is not None]
    return max(steps, default=None)


def _base(run: Run, state: State) -> str | None:
    if state == "finished":
        return run.manifest.base.source
    with suppress(UserError, OSError):
        return BaseIdentity.read(run.folder / paths.BASE_RECORD).source
    return None


def _created(run: Run, state: State, records: Mapping[str, StageRecord]) -> str | None:
    if state == "finished":
        return run.manifest.created
    return max((record.started for record in records.values()), default=None)
