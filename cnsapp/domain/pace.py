"""How fast somebody labels, and how long the rest will take: of the time spent labelling only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

LONGEST_GAP = 120.0  # seconds: whoever is silent longer has gone for coffee
FEWEST_GAPS = 10  # below, a rate says more about chance than about the annotator
BLOCKS = 10  # runs of neighbouring gaps; their means differ as the hours of a day do
# 95 % points of Student's t for 1 to 10 degrees of freedom: a range of 90 %
T90 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)


@dataclass(frozen=True)
class Pace:
    """How fast labels came.

    Attributes
    ----------
    n_labels
        Events given.
    n_gaps
        Pauses between two of them that count: not above the longest gap.
    active_seconds
        Sum of those pauses.
    per_minute
        Labels a minute of active time; None while fewer than `FEWEST_GAPS` gaps count or no time
        has passed.
    """

    n_labels: int
    n_gaps: int
    active_seconds: float
    per_minute: float | None


@dataclass(frozen=True)
class TimeLeft:
    """Active time that the rest will take, in seconds: expected, and a range of 90 %."""

    seconds: float
    low: float
    high: float


def labelling_pace(
    times: Sequence[float] | NDArray[np.floating], longest_gap: float = LONGEST_GAP
) -> Pace:
    """Return how fast labels came over the time spent labelling.

    Parameters
    ----------
    times
        (N,) seconds since any moment, one a label, in any order. Labels given with one key press
        share a time.
    longest_gap
        Seconds; a longer pause is not labelling, and neither it nor the label that ends it counts.

    Raises
    ------
    ValueError
        A time is not a number.
    """
    gaps = _gaps(times, longest_gap)
    active = float(gaps.sum())
    known = len(gaps) >= FEWEST_GAPS and active > 0
    return Pace(len(times), len(gaps), active, 60 * len(gaps) / active if known else None)


def time_left(
    times: Sequence[float] | NDArray[np.floating],
    n_left: int,
    longest_gap: float = LONGEST_GAP,
) -> TimeLeft | None:
    """Return how much active time `n_left` labels will take at this pace; None when unknown.

    The range comes from how much the mean gap differs between runs of neighbouring labels (a slow
    hour makes its labels slow together) and from the scatter of the single gaps, both relative to
    the expected time; it does not know of breaks, nor of images that get harder.

    Parameters
    ----------
    times, longest_gap
        See `labelling_pace`.
    n_left
        Images still to label, 0 or more.

    Raises
    ------
    ValueError
        A time is not a number, or `n_left` is negative.

    References
    ----------
    Law and Carson, A sequential procedure for determining the length of a steady-state simulation
    (batch means), Operations Research 1979.
    """
    if n_left < 0:
        raise ValueError(f"{n_left} labels left")
    gaps = _gaps(times, longest_gap)
    if n_left == 0:
        return TimeLeft(0.0, 0.0, 0.0)
    if len(gaps) < FEWEST_GAPS or not gaps.any():
        return None
    mean = float(gaps.mean())
    blocks = np.array_split(gaps, min(BLOCKS, len(gaps) // 5))  # at least two, of five or more
    means = np.array([block.mean() for block in blocks])
    of_mean = float(means.std(ddof=1)) / sqrt(len(blocks))
    of_gaps = float(gaps.std(ddof=1))
    of_mean = max(of_mean, of_gaps / sqrt(len(gaps)))  # few blocks can agree by chance
    relative = sqrt(of_mean**2 + of_gaps**2 / n_left) / mean
    factor = exp(T90[len(blocks) - 2] * relative)
    expected = n_left * mean
    return TimeLeft(expected, expected / factor, expected * factor)


def _gaps(times: Sequence[float] | NDArray[np.floating], longest: float) -> NDArray[np.float64]:
    """Return the pauses that count, in order of time, in seconds."""
    at = np.sort(np.asarray(times, np.float64))
    if not np.isfinite(at).all():
        raise ValueError("a time is not a number")
    gaps = np.diff(at)
    return gaps[gaps <= longest]
