"""How often the gate errs, on simulated models whose true gains and losses are known.

`./invoke bench gate_power`. Each cell is 1,000 evaluations of the shipped sizes, judged by the
gate's own code with the shipped bounds. A row's two scores are correlated, as those of a base and
its fine-tuned self are: what is hard for one is hard for the other. Scores are right or wrong, or
graded in fifths as those of `json_f1` are, half of them wholly right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from launcher.configuration import profile_values
from launcher.evaluate.record import GateDecision
from launcher.gate.decision import judge
from launcher.gate.policy import read_policy

TRIALS = 1_000
TASK_ROWS, SET_ROWS = 100, 60
# Where the base stands on the task, and on each of the eight sets.
TASK_BASE = 0.4
BASES = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85)
SETS = len(BASES)
GRADED = frozenset({1, 4, 6})
CORRELATIONS = (0.3, 0.5, 0.7)
_PARTS = 5
_SEED = 13


@dataclass(frozen=True)
class Truth:
    """What is true of a model, as shares of a full score.

    Attributes:
        gain: on its task.
        losses: on each set.
        correlation: of a row's scores, base and model.
        graded: the sets with graded scores.
        graded_task: whether the task has them.
    """

    gain: float
    losses: Sequence[float]
    correlation: float
    graded: frozenset[int] = GRADED
    graded_task: bool = False


@dataclass(frozen=True)
class Found:
    """How many of the evaluations ended how.

    Attributes:
        lost: in which at least one single set is said to have lost.
    """

    trials: int
    shipped: int
    inconclusive: int
    failed: int
    lost: int


def shipped_bounds() -> tuple[float, float]:
    """The least gain on the task, and the most that skills may lose, as they are shipped."""
    policy = read_policy()
    bound = policy.max_skill_loss
    return policy.min_task_gain, profile_values("rtx")["max_skill_loss"] if bound is None else bound


def simulate(truth: Truth, *, trials: int = TRIALS, seed: int = _SEED) -> Found:
    """Evaluate a model of this truth again and again, and let the gate judge each time."""
    return count(decisions(truth, trials=trials, seed=seed))


def decisions(truth: Truth, *, trials: int, seed: int = _SEED) -> list[GateDecision]:
    """What the gate says of each evaluation."""
    rng = np.random.default_rng(seed)
    min_gain, max_loss = shipped_bounds()
    task = differences(
        rng,
        (trials, TASK_ROWS),
        TASK_BASE,
        truth.gain,
        correlation=truth.correlation,
        graded=truth.graded_task,
    ).tolist()
    sets = [
        differences(
            rng,
            (trials, SET_ROWS),
            base,
            -loss,
            correlation=truth.correlation,
            graded=number in truth.graded,
        ).tolist()
        for number, (base, loss) in enumerate(zip(BASES, truth.losses, strict=True))
    ]
    return [
        judge(
            task[trial],
            {f"set {number}": rows[trial] for number, rows in enumerate(sets)},
            min_task_gain=min_gain,
            max_skill_loss=max_loss,
        )
        for trial in range(trials)
    ]


def count(found: Sequence[GateDecision]) -> Found:
    """How many of these decisions say what."""
    outcomes = [decision.outcome for decision in found]
    return Found(
        trials=len(found),
        shipped=outcomes.count("passed"),
        inconclusive=outcomes.count("inconclusive"),
        failed=outcomes.count("failed"),
        lost=sum(bool(decision.lost) for decision in found),
    )


def differences(
    rng: np.random.Generator,
    shape: tuple[int, int],
    base: float,
    change: float,
    *,
    correlation: float,
    graded: bool,
) -> np.ndarray:
    """Each row's score less the base's, whose true mean is `change`."""
    if not graded:
        return _right_or_wrong(rng, shape, base, change, correlation)
    parts = _right_or_wrong(rng, (*shape, _PARTS), base, change, correlation)
    whole = rng.random(shape) < 0.5
    scores: np.ndarray = np.where(whole, parts[..., 0], parts.mean(axis=-1))
    return scores


def _right_or_wrong(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    base: float,
    change: float,
    correlation: float,
) -> np.ndarray:
    """1, 0 or -1 for each pair of answers."""
    model = base + change
    spread = np.sqrt(base * (1 - base) * model * (1 - model))
    both = min(base * model + correlation * spread, base, model)
    drawn = rng.random(shape)
    # In order: both right, the base alone, the model alone, neither.
    alone = (drawn >= base) & (drawn < base + model - both)
    scores: np.ndarray = alone.astype(float) - ((drawn >= both) & (drawn < base)).astype(float)
    return scores


def cells() -> list[tuple[str, Truth]]:
    """What is simulated, by what is true."""
    even, none = [0.1] * SETS, [0.0] * SETS
    found = []
    for correlation in CORRELATIONS:
        for kind, graded in (("right or wrong", frozenset[int]()), ("as shipped", GRADED)):
            for words, gain, losses in (
                ("task +20, no loss", 0.2, none),
                ("task +20, every set -10", 0.2, even),
                ("task +20, two sets -40", 0.2, [0, 0, 0, 0, 0, 0, 0.4, 0.4]),
                ("task +20, every set at the bound", 0.2, [shipped_bounds()[1]] * SETS),
                ("nothing changed", 0.0, none),
            ):
                truth = Truth(gain, losses, correlation, graded, bool(graded))
                found.append((f"{words:<34} {kind:<15} {correlation:>4}", truth))
    return found


def main() -> None:
    """Print a line for each cell, in hundredths of its evaluations."""
    min_gain, max_loss = shipped_bounds()
    print(
        f"{TRIALS:,} evaluations a cell; a task of {TASK_ROWS} rows, {SETS} sets of {SET_ROWS}; "
        f"min_task_gain {min_gain:g}, max_skill_loss {max_loss:g}\n"
    )
    print(f"{'what is true':<34} {'scores':<15} corr   ship  inconclusive  failed  a set lost")
    for words, truth in cells():
        found = simulate(truth)
        shares = [
            100 * number / found.trials
            for number in (found.shipped, found.inconclusive, found.failed, found.lost)
        ]
        ship, inconclusive, failed, lost = (f"{share:.1f}" for share in shares)
        print(f"{words}  {ship:>5}  {inconclusive:>12}  {failed:>6}  {lost:>10}")


if __name__ == "__main__":
    main()
