"""What of the runs can go: older ones, unfinished ones, and what killed launchers left.

A model's latest finished run stays, and so does what a role stands at or would be rolled back to,
what the gate let pass last, what somebody works with, and what cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from contract import paths
from contract.errors import UserError
from launcher.pipeline.finished_run import named_latest
from launcher.project import shown
from launcher.promote.promoted_runs import PromotedRun
from launcher.runs.run_summary import RunSummary, summaries
from launcher.runtime.disk_usage import used_bytes
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.removal import remove


@dataclass(frozen=True)
class Removable:
    """A run that can go, or a work folder in a run that stays.

    Attributes:
        why: for people: what it is.
    """

    run: RunSummary
    path: Path
    size_bytes: int
    why: str

    @property
    def is_run(self) -> bool:
        """Whether the whole run goes."""
        return self.path == self.run.path


@dataclass(frozen=True)
class Kept:
    """A run that stays, and why."""

    run: RunSummary
    why: str


@dataclass(frozen=True)
class RemovalPlan:
    """All runs, or those of one model: what can go, and what stays."""

    removable: list[Removable]
    kept: list[Kept]

    @property
    def size_bytes(self) -> int:
        """What all that can go takes on the disk."""
        return sum(one.size_bytes for one in self.removable)


def removal_plan(promoted: Sequence[PromotedRun], model: str = "") -> RemovalPlan:
    """What can go now; nothing is removed.

    Raises:
        UserError: there is no run of this model.
    """
    plan = RemovalPlan([], [])
    for _, group in groupby(summaries(promoted, model), key=lambda run: run.path.parent):
        runs = list(group)
        passed = [run.key for run in runs if run.gate == "passed"]
        for run in runs:
            if why := _stays(run, last_passed=passed[-1:] == [run.key]):
                plan.kept.append(Kept(run, why))
                plan.removable.extend(_left_in(run))
            else:
                plan.removable.append(Removable(run, run.path, run.size_bytes, _described(run)))
    return plan


def remove_all(
    promoted: Callable[[], Sequence[PromotedRun]], plan: RemovalPlan, model: str = ""
) -> Iterator[tuple[Removable, str]]:
    """Remove what a plan names and what can still go now, one after the other.

    Args:
        promoted: what the roles stand at now; call this while no promotion can begin.

    Returns:
        Each of them once it is gone, with "", or with why it stays.
    """
    left = {one.path: one for one in removal_plan(promoted(), model).removable}
    for planned in plan.removable:
        still = left.get(planned.path)
        if still is None:
            yield planned, "" if not planned.path.exists() else "it may not go any more"
            continue
        try:
            _remove(still)
        except UserError as error:
            yield still, error.problems[0].what
        else:
            yield still, ""


def _stays(run: RunSummary, *, last_passed: bool) -> str:
    """Why a run stays; empty where it can go."""
    reasons = (
        (run.roles, f"promoted: {', '.join(run.roles)}"),
        (run.rollback_roles, f"a rollback of {', '.join(run.rollback_roles)} returns to it"),
        (run.maybe_roles, f"may be what {', '.join(run.maybe_roles)} stands at"),
        (run.process, f"in use by process {run.process}"),
        (run.state == "unreadable", f"cannot be read: {run.reason}"),
        (run.path.is_symlink(), "is a symbolic link"),
        (run.latest, "the latest finished run"),
        # A stage of it is to run again; what was trained is all there.
        (run.key == named_latest(run.path.parent), "the run that was brought up to date last"),
        (last_passed, "the last that passed the gate"),
    )
    return next((why for stays, why in reasons if stays), "")


def _described(run: RunSummary) -> str:
    if run.state == "finished":
        return f"older run of {(run.created or '')[:10]}"
    said = f"unfinished, has {', '.join(run.stages)}" if run.stages else "unfinished, has no stage"
    if run.checkpoint is not None:
        said += f"; could be resumed after step {run.checkpoint}"
    return said


def _left_in(run: RunSummary) -> Iterator[Removable]:
    """The work folders in a run that stays, where nobody works."""
    if run.state != "finished" or run.process is not None or run.path.is_symlink():
        return
    for below in (run.path, run.path / paths.EVALUATION_FOLDER):
        work = below / paths.WORK
        if work.is_dir() and not work.is_symlink():
            why = "work folder that a killed launcher left"
            yield Removable(run, work, used_bytes(work), why)


def _remove(one: Removable) -> None:
    """Remove it, once no launcher works in its run.

    Raises:
        UserError: one does, or the run was finished or taken up meanwhile.
    """
    run = one.run.path
    with ExitStack() as held:
        for folder in (run, run / paths.EVALUATION_FOLDER):
            if folder.is_dir():
                held.enter_context(exclusive_lock(folder))
        manifest = run / paths.MANIFEST
        if manifest.exists() != (one.run.state == "finished"):
            raise UserError.one(shown(run), "was changed meanwhile")
        if one.is_run:
            # First: half a run is none.
            manifest.unlink(missing_ok=True)
        remove(one.path)
