"""Whether a model may be used: each of the policy's demands against what was measured.

A demand is met where that is shown, and never because nothing was found:
`launcher/evaluate/paired_differences.py` says what is tested, and `./invoke bench gate_power` how
often that errs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contract.errors import UserError
from launcher.evaluate.paired_differences import (
    ONE_SIDED,
    TWO_SIDED,
    PairedDifferences,
    set_verdicts,
)
from launcher.evaluate.record import Evaluation, GateDecision, GateLine
from launcher.gate.policy import Policy
from launcher.pipeline.finished_run import Run


def decide(run: Run, evaluation: Evaluation, policy: Policy) -> GateDecision:
    """Compare an evaluation of a run's model with the policy.

    Raises:
        UserError: it is not of the model that the run holds now.
    """
    now = run.model_digest
    if evaluation.model.model_digest != now:
        name = evaluation.model.name
        raise UserError.one(
            "--model",
            f"the evaluation is out of date: {name} has changed since",
            f"./invoke evaluate --model {name}",
        )
    bound = policy.max_skill_loss
    decision = judge(
        evaluation.task.row_differences(),
        {skill.set: skill.row_differences() for skill in evaluation.skills if skill.base},
        min_task_gain=policy.min_task_gain,
        max_skill_loss=evaluation.max_skill_loss if bound is None else bound,
    )
    if not policy.verified:
        return decision
    return GateDecision.of([*decision.lines, _verified(run, now)], decision.lost)


def judge(
    task: Sequence[float],
    skills: Mapping[str, Sequence[float]],
    *,
    min_task_gain: float,
    max_skill_loss: float,
) -> GateDecision:
    """What the scores show, from each row's difference: the model's score less the base's.

    Args:
        task: the task's rows; none where no base was asked.
        skills: each set's rows.
    """
    lost = _lost(skills, max_skill_loss)
    lines = [
        _task(task, min_task_gain),
        _skills(skills, max_skill_loss),
        *_each_skill(skills, lost, max_skill_loss),
    ]
    return GateDecision.of(lines, list(lost))


def _task(differences: Sequence[float], min_gain: float) -> GateLine:
    """Is a gain shown, and as large as is asked for?

    Two demands, of significance and of relevance (Roychoudhury and others, Clinical Trials 15,
    2018): a gain that is no chance may still be one that nobody needs, and to show that it is above
    the wanted gain would take far more rows than to show it and find it so large.
    """
    demand = "must gain, and not by chance"
    if min_gain:
        demand = f"must gain at least {_points(min_gain)}, and not by chance"
    if not differences:
        return GateLine(name="task", outcome="failed", found=f"no base was evaluated; {demand}")
    found = PairedDifferences.of(differences)
    # What is large enough is to be shown as a gain; what is not may be shown to be too small.
    bound = 0.0 if found.mean >= min_gain else min_gain
    return _line("task", found, bound, demand, outside=TWO_SIDED)


def _skills(skills: Mapping[str, Sequence[float]], max_loss: float) -> GateLine:
    """All rows of all sets together: is the loss shown to be smaller than the bound?"""
    demand = f"must lose less than {_points(max_loss)}" if max_loss else "must gain"
    if not any(skills.values()):
        return GateLine(name="skills", outcome="failed", found=f"none was measured; {demand}")
    pooled = PairedDifferences.of([one for rows in skills.values() for one in rows])
    return _line("skills", pooled, -max_loss, demand, outside=ONE_SIDED)


def _each_skill(
    skills: Mapping[str, Sequence[float]], lost: Mapping[str, PairedDifferences], max_loss: float
) -> list[GateLine]:
    """The single sets: each is too small to show that it lost nothing, but may show a loss."""
    if not skills:
        return []
    if not lost:
        found = f"no loss above {_points(max_loss)} is shown in any of {len(skills)} sets"
        return [GateLine(name="each skill", outcome="passed", found=found)]
    shown = ", ".join(f"{name} {_signed(found.mean)}" for name, found in lost.items())
    found = f"{shown}; more than {_points(max_loss)} is lost there"
    return [GateLine(name="each skill", outcome="failed", found=found)]


def _lost(skills: Mapping[str, Sequence[float]], max_loss: float) -> dict[str, PairedDifferences]:
    sets = {name: PairedDifferences.of(rows) for name, rows in skills.items()}
    verdicts = set_verdicts(sets, max_loss)
    return {name: found for name, found in sets.items() if verdicts[name] == "worse"}


def _line(
    name: str, found: PairedDifferences, bound: float, demand: str, *, outside: float
) -> GateLine:
    outcome = found.shown_above(bound, outside)
    interval = found.interval(outside)
    limits = f"{_signed(interval.low)} to {_signed(interval.high)}"
    said = f"{_signed(found.mean)} ({limits}) on {found.rows} rows; {demand}"
    needed = None
    if outcome == "inconclusive":
        needed = found.rows_to_decide(bound, outside)
        said += (
            f": too close to tell; about {needed:,} rows would decide"
            if needed is not None
            else ": too near that for any number of rows to tell"
        )
    return GateLine(name=name, outcome=outcome, found=said, rows_needed=needed)


def _verified(run: Run, now: str) -> GateLine:
    proof = run.manifest.verification
    if proof is None or proof.model_digest != now:
        found = "not verified (./invoke import or ./invoke verify)"
        return GateLine(name="verified", outcome="failed", found=found)
    failed = [check.name for check in proof.checks if not check.passed]
    where = f" at {proof.address}" if proof.address is not None else ""
    found = f"on Ollama {proof.server}{where}: " + (
        f"failed in {', '.join(failed)}" if failed else f"{len(proof.checks)} checks passed"
    )
    return GateLine(name="verified", outcome="passed" if proof.passed else "failed", found=found)


def _points(share: float) -> str:
    """Points of 100: a gain, a loss or a bound, whichever way it goes."""
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"
