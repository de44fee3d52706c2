"""How sure one model's mean score is; for the difference of two, see `paired_differences.py`.

The percentile bootstrap (Efron 1979), from a seed. Where answers are right or wrong and nothing
between, one made-up row at each end of the scale is added before it draws: without them, 25 right
answers of 25 would leave no doubt at all (for counts this is near Agresti and Coull's interval, The
American Statistician 52, 1998).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

_SEED = 20_240_901
_DRAWS = 1_000
_OUTSIDE = 0.025

Verdict = Literal["better", "worse", "inconclusive"]


class Interval(NamedTuple):
    """A mean, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_score(scores: Sequence[float]) -> Interval:
    """The mean of scores from 0 to 1, at least one of them."""
    counted = all(float(score).is_integer() for score in scores)
    # Each stands in the sample twice, so that a made-up one may count half.
    drawn_from = [*scores, *scores, *([0.0, 0.0, 1.0, 1.0] if counted else ())]
    rows = len(drawn_from) // 2
    draw = random.Random(_SEED).choices
    means = sorted(math.fsum(draw(drawn_from, k=rows)) / rows for _ in range(_DRAWS))
    outside = round(_DRAWS * _OUTSIDE)
    return Interval(math.fsum(scores) / len(scores), means[outside], means[-outside - 1])


def verdict(difference: Interval, by: float = 0.0) -> Verdict:
    """Whether the difference is surely more than `by`, in which direction."""
    if difference.low > by:
        return "better"
    if difference.high < -by:
        return "worse"
    return "inconclusive"
