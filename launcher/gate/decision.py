"""Whether a model may be used: each of the policy's demands against what was measured."""

from __future__ import annotations

from contract.errors import UserError
from launcher.evaluate.intervals import verdict
from launcher.evaluate.record import Evaluation, GateDecision, GateLine
from launcher.evaluate.report import percent
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
    lines = [_task(evaluation, policy), _skills(evaluation, policy)]
    if policy.verified:
        lines.append(_verified(run, now))
    return GateDecision(ship=all(line.passed for line in lines), lines=lines)


def _task(evaluation: Evaluation, policy: Policy) -> GateLine:
    task = evaluation.task
    demand = f"better than its base by more than {100 * policy.min_task_gain:g}"
    if task.difference is None:
        return GateLine(
            name="task", passed=False, found=f"no base was evaluated; required: {demand}"
        )
    return GateLine(
        name="task",
        passed=verdict(task.difference, policy.min_task_gain) == "better",
        found=f"{task.set}: {percent(task.difference, signed=True)}; required: {demand}",
    )


def _skills(evaluation: Evaluation, policy: Policy) -> GateLine:
    bound = policy.max_skill_loss
    bound = evaluation.max_skill_loss if bound is None else bound
    demand = f"no skill worse by more than {100 * bound:g}"
    measured = [skill for skill in evaluation.skills if skill.difference is not None]
    if not measured:
        return GateLine(name="skills", passed=False, found=f"none was measured; required: {demand}")
    lost = [
        f"{skill.set} {percent(skill.difference, signed=True)}"
        for skill in measured
        if skill.difference is not None and verdict(skill.difference, bound) == "worse"
    ]
    found = ", ".join(lost) if lost else f"{len(measured)} sets"
    return GateLine(name="skills", passed=not lost, found=f"{found}; required: {demand}")


def _verified(run: Run, now: str) -> GateLine:
    proof = run.manifest.verification
    if proof is None or proof.model_digest != now:
        found = "not verified (./invoke import or ./invoke verify)"
        return GateLine(name="verified", passed=False, found=found)
    failed = [check.name for check in proof.checks if not check.passed]
    found = f"on Ollama {proof.server}: " + (
        f"failed in {', '.join(failed)}" if failed else f"{len(proof.checks)} checks passed"
    )
    return GateLine(name="verified", passed=proof.passed, found=found)
