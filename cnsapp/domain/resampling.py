"""Intervals that respect groups: whole groups are drawn with replacement, never single images.

Images of one patient or slide resemble each other, so that a hundred of them tell less than a
hundred images of a hundred patients. An interval by image would be too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.student import student_quantile, tail_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Interval = tuple[float, float]

N_RESAMPLES = 2000
MOST_UNITS = 2000  # what is drawn beyond that is put together at random
AT_ONCE = 20_000_000  # numbers held while resamples are summed
Z = 1.959964  # of a two-sided 95 % interval


def unit_numbers(groups: Sequence[str | None] | None, n: int) -> Ints:
    """Number what is drawn together (N,): groups; an image without one, or all where none has."""
    if groups is None or not any(groups):
        return np.arange(n, dtype=np.int64)
    numbers: dict[object, int] = {}
    keys = [group or (i,) for i, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def wilson_interval(hits: float, n: float, z: float = Z) -> Interval | None:
    """Return Wilson's interval of a proportion; None for n = 0.

    References
    ----------
    Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    if n == 0:
        return None
    p, z2 = hits / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(max(0.0, p * (1 - p) / n) + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def counts_by_unit(units: Ints, cells: Ints, features: Ints | None, n_cells: int) -> Ints:
    """Return what each unit holds (U, F): the features of its images added up.

    Parameters
    ----------
    units
        (N,) unit of each image, 0 to U - 1.
    cells
        (N,) cell of each image, 0 to `n_cells` - 1: all that is known of it.
    features
        (n_cells, F) whole numbers that an image of each cell adds; None: which cell it is.
    """
    n_units = int(units.max()) + 1 if len(units) else 0
    if features is None:
        flat = np.bincount(units * n_cells + cells, minlength=n_units * n_cells)
        return flat.reshape(n_units, n_cells)
    found = np.zeros((n_units, features.shape[1]), np.int64)
    for column in range(features.shape[1]):
        weights = features[cells, column]
        hit = np.flatnonzero(weights)
        found[:, column] = np.bincount(units[hit], weights=weights[hit], minlength=n_units)
    return found


def resampled_sums(
    units: Ints,
    cells: Ints,
    n_cells: int,
    features: Ints | None = None,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
    most_units: int = MOST_UNITS,
) -> Floats | None:
    """Draw units with replacement and return the sums of the features (resamples, F).

    The order of images and the names of units change nothing. More than `most_units` units are put
    together at random into as many, which leaves the spread as it is and bounds the time.

    Parameters
    ----------
    units, cells, n_cells, features
        As in `counts_by_unit`; units where every image is one of its own cost no table of images.

    Returns
    -------
    None with fewer than two units.

    References
    ----------
    Field and Welsh, Bootstrapping clustered data, JRSS B 2007; Wolter, Introduction to variance
    estimation, 2007, chapter 2 (random groups).
    """
    n_units = int(units.max()) + 1 if len(units) else 0
    if n_units < 2:
        return None
    generator = np.random.default_rng(seed)
    if n_units == len(units):  # an image is a unit: only how often each cell is drawn matters
        present, times = np.unique(cells, return_counts=True)
        rows = np.eye(n_cells, dtype=np.int64) if features is None else features
        return _drawn(rows[present], times, generator, n_resamples)
    rows = counts_by_unit(units, cells, features, n_cells)
    rows, times = _distinct(rows)
    if len(rows) > most_units:
        rows, times = _put_together(np.repeat(rows, times, axis=0), most_units, generator)
    return _drawn(rows, times, generator, n_resamples)


def shared_draws(
    units: Ints, *, seed: int = 0, n_resamples: int = N_RESAMPLES, most_units: int = MOST_UNITS
) -> tuple[Ints, NDArray[np.float32]] | None:
    """Draw units once, for several figures that must be resampled together.

    Returns
    -------
    What each image is drawn with (N,), 0 to M - 1 with M at most `most_units`, and how often that
    is drawn (resamples, M); None with fewer than two units.
    """
    n_units = int(units.max()) + 1 if len(units) else 0
    if n_units < 2:
        return None
    generator = np.random.default_rng(seed)
    m = min(n_units, most_units)
    lot = np.arange(n_units)
    if n_units > m:
        lot[generator.permutation(n_units)] = np.arange(n_units) * m // n_units
    picked = generator.integers(0, m, (n_resamples, m), dtype=np.int64)
    picked += np.arange(n_resamples)[:, None] * m
    times = np.bincount(picked.ravel(), minlength=n_resamples * m).reshape(n_resamples, m)
    return lot[units], times.astype(np.float32)


def percentiles(values: Floats, n_units: float = inf) -> Interval | None:
    """Return the 95 % percentile interval of one figure's resamples.

    None where it is undefined in more than a tenth of them: a class that few units hold is then
    missing from many, and an interval of the others would say too much.

    Parameters
    ----------
    values
        (resamples,) of the figure, NaN where undefined.
    n_units
        Units that the figure rests on: with few of them the interval reaches further out (see
        `cnsapp.domain.student.tail_of`).
    """
    defined = values[np.isfinite(values)]
    if len(defined) < 0.9 * len(values) or not len(defined):
        return None
    tail = tail_of(n_units)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def widened(interval: Interval | None, value: float | None, n_units: float) -> Interval | None:
    """Return an interval that is honest where all units agree.

    Where everything is right (or wrong) no resample differs, and the percentiles meet in a point.
    Then Wilson's interval of `n_units` agreeing units stands in: the rule of three, in short.
    """
    if interval is None or value is None or interval[1] - interval[0] > 1e-12:
        return interval
    if n_units <= 0:
        return None
    sure = wilson_interval(value * n_units, n_units)
    return sure and (min(sure[0], value), max(sure[1], value))


def mean_interval(values: NDArray[np.floating], units: Ints) -> Interval | None:
    """Return the 95 % interval of a mean, by units: mean ± Student's t cluster-robust errors.

    References
    ----------
    Cameron and Miller, A practitioner's guide to cluster-robust inference, J. Human Resources 2015.
    """
    n_units = int(units.max()) + 1 if len(units) else 0
    if n_units < 2:
        return None
    mean = float(np.mean(values))
    off = np.bincount(units, weights=np.asarray(values, np.float64) - mean, minlength=n_units)
    error = sqrt(n_units / (n_units - 1) * float(off @ off)) / len(values)
    reach = student_quantile(n_units - 1)
    return mean - reach * error, mean + reach * error


def _distinct(rows: Ints) -> tuple[Ints, Ints]:
    """Return the distinct rows, in an order that follows from what they hold, and their counts."""
    mixer = np.random.default_rng(20_07).integers(1, 2**62, rows.shape[1]) | 1
    signs = (rows * mixer).sum(1)  # wraps around: a hash in whole numbers, the same everywhere
    _, first, times = np.unique(signs, return_index=True, return_counts=True)
    return rows[first], times


def _put_together(rows: Ints, n: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
    order = generator.permutation(len(rows))
    starts = np.linspace(0, len(rows), n, endpoint=False).astype(np.int64)
    return np.add.reduceat(rows[order], starts, axis=0), np.ones(n, np.int64)


def _drawn(rows: Ints, times: Ints, generator: np.random.Generator, n_resamples: int) -> Floats:
    n_units, n_rows = int(times.sum()), len(rows)
    weights = rows.astype(np.float64)
    found = np.empty((n_resamples, rows.shape[1]))
    step = max(1, AT_ONCE // max(n_units if n_rows * 20 > n_units else n_rows, 1))
    owner = np.repeat(np.arange(n_rows), times) if n_rows * 20 > n_units else None
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        if owner is None:
            drawn = generator.multinomial(n_units, times / n_units, size=n)
        else:  # many kinds of units: numbers are drawn and counted, ten times as fast
            picked = owner[generator.integers(0, n_units, (n, n_units), dtype=np.int32)]
            picked += np.arange(n)[:, None] * n_rows
            drawn = np.bincount(picked.ravel(), minlength=n * n_rows).reshape(n, n_rows)
        found[start : start + n] = drawn.astype(np.float64) @ weights
    return found
