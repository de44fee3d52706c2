"""What two models' scores on the same rows show: how sure a difference is, and what it could hide.

Both models answer every row, so the rows' differences are tested, and how hard a row is falls out
(the paired t test; for evaluations of language models: Miller, arXiv 2411.00640). Each row counts
once: no set has a weight, since rows of unequal weight would make the same evaluation see less.

- That a score has *not* fallen is never shown by a test that finds nothing: few rows find nothing
  either. It is shown where the lower end of the one-sided 95 % interval is above the bound
  (non-inferiority; Blackwelder, Controlled Clinical Trials 3, 1982). Where the upper end is below
  it, the opposite is shown. Between the two nothing is, and more rows would decide.
- Several sets are several chances to be wrong. A verdict on a single one of them is Holm's
  (Scandinavian Journal of Statistics 6, 1979): false in at most 5 % of evaluations, whichever sets
  it is about.
- Where answers are right or wrong and nothing between, two made-up rows are added, half a row at
  each end of the scale and one without a difference (Agresti and Min, Statistics in Medicine 24,
  2005): without them, 25 equal rows would leave no doubt at all. Where scores are graded, they
  count by the share of the rows whose difference is -1, 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from launcher.evaluate.intervals import Interval, Verdict
from launcher.evaluate.student_t import quantile, upper_tail

# `passed`: shown to be above the bound; `failed`: shown to be below it; else neither is shown.
Outcome = Literal["passed", "failed", "inconclusive"]

# Of a one-sided test, and at each end of a two-sided 95 % interval.
ONE_SIDED, TWO_SIDED = 0.05, 0.025
POWER = 0.8
# Farther away than so many times the rows that there are, an estimate of them says nothing.
_MOST_TIMES = 100
# A variance of rounding errors alone.
_NOTHING = 1e-12


@dataclass(frozen=True)
class PairedDifferences:
    """The differences of two models' scores over the same rows, summed up.

    Attributes:
        mean: as it was found.
        centre: the mean with the made-up rows, where there are any; intervals lie around it.
        error: the standard error of `centre`.
        freedom: the degrees of freedom of Student's t.
    """

    rows: int
    mean: float
    centre: float
    error: float
    freedom: int

    @classmethod
    def of(cls, found: Sequence[float]) -> PairedDifferences:
        """Sum up the rows' differences, at least one, each from -1 to 1."""
        rows = len(found)
        total = math.fsum(found)
        squares = math.fsum(one * one for one in found)
        mean = total / rows
        # How much of a made-up row there is at each end, taken together.
        made_up = sum(one in (-1.0, 0.0, 1.0) for one in found) / rows
        if squares - rows * mean * mean <= _NOTHING * rows:
            made_up = 1.0
        # As much again is the same for both.
        counted = rows + 2 * made_up
        centre = total / counted
        variance = (squares + made_up - counted * centre * centre) / (counted - 1)
        return cls(rows, mean, centre, math.sqrt(variance / counted), max(1, round(counted) - 1))

    def interval(self, outside: float = TWO_SIDED) -> Interval:
        """The mean, and the limits beyond each of which the truth lies in so many of cases."""
        half = quantile(1 - outside, self.freedom) * self.error
        return Interval(self.mean, max(-1.0, self.centre - half), min(1.0, self.centre + half))

    def shown_above(self, bound: float, outside: float = TWO_SIDED) -> Outcome:
        """Whether the interval lies above the bound, below it, or on both sides of it."""
        interval = self.interval(outside)
        if interval.low > bound:
            return "passed"
        return "failed" if interval.high < bound else "inconclusive"

    def p_below(self, bound: float) -> float:
        """How often at most rows look so bad whose true difference is the bound or more."""
        return upper_tail((bound - self.centre) / self.error, self.freedom)

    def p_above(self, bound: float) -> float:
        """How often at most rows look so good whose true difference is the bound or less."""
        return upper_tail((self.centre - bound) / self.error, self.freedom)

    def smallest_visible(self, outside: float = TWO_SIDED) -> float:
        """The smallest true loss, or gain, that so many such rows would show in 80 % of cases."""
        return min(1.0, _reach(outside) * self.error)

    def rows_to_decide(self, bound: float, outside: float = TWO_SIDED) -> int | None:
        """How many rows would show in 80 % of cases on which side of the bound it is.

        It is an estimate: the mean and the variance are taken to stay as they are. None where the
        mean is so near the bound that no sensible number of rows would.
        """
        distance = abs(self.centre - bound)
        deviation = self.error * math.sqrt(self.rows)
        if _reach(outside) * deviation >= distance * math.sqrt(_MOST_TIMES * self.rows):
            return None
        return math.ceil((_reach(outside) * deviation / distance) ** 2)


def mean_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The mean of ours less theirs over the same rows, in the same order."""
    return PairedDifferences.of(differences(ours, theirs)).interval()


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours less theirs, row by row."""
    return [one - other for one, other in zip(ours, theirs, strict=True)]


def set_verdicts(sets: Mapping[str, PairedDifferences], max_loss: float) -> dict[str, Verdict]:
    """What is shown of single sets, by Holm: `worse` by more than `max_loss`, or `better` at all.

    A set is said to be worse falsely in at most 5 % of evaluations, whatever number of sets there
    are, and to be better falsely in at most 2.5 %, as in a two-sided test.
    """
    worse = holm([found.p_below(-max_loss) for found in sets.values()])
    better = holm([found.p_above(0.0) for found in sets.values()])
    verdicts: dict[str, Verdict] = {}
    for name, p_worse, p_better in zip(sets, worse, better, strict=True):
        verdicts[name] = "inconclusive"
        if p_worse <= ONE_SIDED:
            verdicts[name] = "worse"
        elif p_better <= TWO_SIDED:
            verdicts[name] = "better"
    return verdicts


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value adjusted for there being several: what is at most 0.05 is found at 5 %."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    ordered = sorted(range(len(p_values)), key=lambda number: p_values[number])
    for place, number in enumerate(ordered):
        highest = max(highest, min(1.0, p_values[number] * (len(p_values) - place)))
        adjusted[number] = highest
    return adjusted


def _reach(outside: float) -> float:
    """How many standard errors away a truth must be to be shown in 80 % of cases."""
    normal = NormalDist()
    return normal.inv_cdf(1 - outside) + normal.inv_cdf(POWER)
