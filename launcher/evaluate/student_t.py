"""Student's t distribution for a whole number of degrees of freedom, without a numerics library.

The finite sums of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

# From here on, the normal distribution is the same to four decimals of a quantile.
_NEARLY_NORMAL = 20_000
_HALVINGS = 60
_FARTHEST = 1e6


def upper_tail(t: float, freedom: int) -> float:
    """The probability of a value above `t`."""
    if freedom >= _NEARLY_NORMAL:
        return NormalDist().cdf(-t)
    inside = _between(abs(t), freedom)
    return (1 - inside) / 2 if t >= 0 else (1 + inside) / 2


@lru_cache(maxsize=1024)
def quantile(probability: float, freedom: int) -> float:
    """The value below which this share lies, of at least one half."""
    if freedom >= _NEARLY_NORMAL:
        return NormalDist().inv_cdf(probability)
    low, high = 0.0, 1.0
    while 1 - upper_tail(high, freedom) < probability and high < _FARTHEST:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if 1 - upper_tail(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def _between(t: float, freedom: int) -> float:
    """The probability of a value between -t and t."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    # The sum's first term is cos for an odd number, and 1 for an even one.
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (step - 1) / step
    inside = math.sin(angle) * total
    return 2 / math.pi * (angle + inside) if odd else inside
