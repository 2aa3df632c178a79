"""Student's t and what it says of an interval from few groups."""

from __future__ import annotations

from functools import lru_cache
from math import atan, erfc, isfinite, pi, sqrt

import numpy as np

TAIL = 0.025  # beyond each end of a 95 % interval


def student_p(t: float, degrees: float) -> float:
    """Return the two-sided p-value of Student's t."""
    if not isfinite(t):
        return 0.0
    if degrees > 200:
        return erfc(abs(t) / sqrt(2))
    # the density in the angle is cos^(degrees - 1): smooth, so that a fine grid is exact enough
    angle = np.linspace(atan(abs(t) / sqrt(degrees)), pi / 2, 4001)
    whole = np.linspace(0, pi / 2, 4001)
    tail = np.trapezoid(np.cos(angle) ** (degrees - 1), angle)
    return float(min(1.0, tail / np.trapezoid(np.cos(whole) ** (degrees - 1), whole)))


@lru_cache(maxsize=512)
def student_quantile(degrees: float) -> float:
    """Return the |t| that is exceeded with probability 0.05, by halving."""
    low, high = 1.9, 13.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, degrees) > 0.05 else (low, middle)
    return high


def tail_of(n_units: float) -> float:
    """Return which share of the resamples lies beyond each end of a 95 % interval.

    Resamples of few groups spread too little: by the factor of n - 1 in n, and since their spread
    is itself a guess. Plain percentiles (0.025) of 6 groups hold the truth in 82 of 100 cases.

    Parameters
    ----------
    n_units
        Groups (or images) that are drawn; 1 or fewer count as 2.

    References
    ----------
    Hesterberg, What teachers should know about the bootstrap, The American Statistician 2015 (the
    expanded percentile interval).
    """
    if n_units > 1000:
        return TAIL
    n = max(float(n_units), 2.0)
    return min(TAIL, erfc(sqrt(n / (n - 1) / 2) * student_quantile(n - 1)) / 2)
