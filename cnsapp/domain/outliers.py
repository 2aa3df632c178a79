"""Images that are far from all labelled ones: another organ, no tissue, a photograph of a desk.

Distance to the nearest neighbours in a space of features, always of other groups than the image's
own, so that twenty tiles of one odd slide do not hide one another. How far is far follows from the
distances of the labelled images themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import Floats, Interval, Ints, mean_interval, wilson_interval

Check = Callable[[], None]
NEIGHBOURS = 5
AT_ONCE = 4_000_000  # distances in memory
NOMINAL = 0.01  # share that is flagged where nothing is odd
CLEARLY = 1.5  # times the nominal share, from which more than chance is said
FEWEST = 50  # labelled images: fewer have no tail of one in a hundred
FEWEST_UNITS = 5  # groups: with fewer, whole groups can not be held out
Z_NINETY, Z_NOMINAL, Z_CLEAR = 1.281552, 2.326348, 4.264891  # of the normal: beyond them 10 in
# 100, 1 in 100 and 1 in 100,000


@dataclass(frozen=True)
class Outliers:
    """Which images stand out.

    Attributes
    ----------
    order
        Places of the flagged images, the farthest first.
    scores
        (N,) mean distance to the nearest neighbours; larger is odder.
    bound
        Score from which an image is flagged.
    share, interval
        Flagged share of all, with its 95 % interval by units (groups, else images).
    nominal
        Share that is flagged where nothing is odd.
    """

    order: Ints
    scores: Floats
    bound: float
    n: int
    n_units: int
    share: float
    interval: Interval | None
    nominal: float = NOMINAL

    @property
    def is_more_than_chance(self) -> bool:
        """Whether clearly more are flagged than where nothing is odd.

        The whole interval lies above one and a half times the nominal share: a tail is never quite
        what it is taken for, and of 50,000 images 1.2 in 100 would else be news.
        """
        return self.interval is not None and self.interval[0] > CLEARLY * self.nominal


def distances(
    rows: NDArray[np.floating],
    reference: NDArray[np.floating],
    units: Ints | None = None,
    reference_units: Ints | None = None,
    *,
    k: int = NEIGHBOURS,
    check: Check = lambda: None,
) -> Floats:
    """Return how far each row is from its nearest neighbours in the reference.

    Parameters
    ----------
    rows, reference
        (N, D) and (M, D) features of one scale.
    units, reference_units
        (N,) and (M,): neighbours of a row's own unit do not count. None: all do.
    k
        Neighbours whose mean distance is returned; fewer where there are fewer.
    check
        Called between parts of the work; raises to stop.

    Returns
    -------
    (N,) mean Euclidean distance, 0 upwards; infinite where a row has no neighbour.

    References
    ----------
    Ramaswamy et al., Efficient algorithms for mining outliers from large data sets, SIGMOD 2000;
    Sun et al., Out-of-distribution detection with deep nearest neighbors, ICML 2022.
    """
    m = len(reference)
    found = np.full(len(rows), np.inf)
    if m == 0:
        return found
    there = np.asarray(reference, np.float32)
    lengths = (there.astype(np.float64) ** 2).sum(1)
    step = max(1, AT_ONCE // m)
    for start in range(0, len(rows), step):
        check()
        part = np.asarray(rows[start : start + step], np.float32)
        squares = (part.astype(np.float64) ** 2).sum(1)[:, None] + lengths - 2.0 * (part @ there.T)
        if units is not None and reference_units is not None:
            squares[units[start : start + step, None] == reference_units[None]] = np.inf
        nearest = np.sqrt(np.maximum(np.partition(squares, min(k, m) - 1, axis=1)[:, :k], 0))
        known = np.isfinite(nearest)
        total, n = np.where(known, nearest, 0.0).sum(1), known.sum(1)
        found[start : start + step] = np.where(n > 0, total / np.maximum(n, 1), np.inf)
    return found


def among_labelled(scores: Floats, units: Ints) -> Outliers:
    """Flag labelled images whose distance is beyond the tail of the others.

    Parameters
    ----------
    scores
        (N,) from `distances` to images of other units.
    units
        (N,) group of each image, or the image itself.

    Notes
    -----
    The bound continues the tail of the logarithms, median to nine tenths, as a normal one to 1 in
    100. What lies beyond does not move it, as long as it is less than a tenth of all.

    Raises
    ------
    ValueError
        Fewer than 50 images.
    """
    if len(scores) < FEWEST:
        raise ValueError(f"{len(scores)} images are too few for a tail; {FEWEST} are needed")
    bound = _tail(scores, Z_NOMINAL)
    return _flagged(scores, scores > bound + 1e-9, bound, units)


def unlike_labelled(scores: Floats, labelled: Floats, units: Ints) -> Outliers:
    """Flag new images that are farther from the labelled ones than 99 in 100 of these.

    Parameters
    ----------
    scores
        (N,) from `distances` of the new images to the labelled ones.
    labelled
        (M,) the same of the labelled images, to images of other units: what is usual.
    units
        (N,) group of each new image, or the image itself.

    Notes
    -----
    An image is flagged where its conformal p-value, (1 + labelled ones as far) / (M + 1), is 0.01
    or less: of new images like the labelled ones that is 1 in 100 on average. With fewer than 99
    labelled images no p-value is as small: then only those farther than all of them are flagged,
    and `nominal` is 1 / (M + 1). Labelled images that are clearly odd themselves (1 in 100,000 of
    the tail, see `among_labelled`) do not count as usual: a handful of them would hide all others.

    Raises
    ------
    ValueError
        Fewer than 50 labelled images.

    References
    ----------
    Laxhammar and Falkman, Conformal prediction for distribution-independent anomaly detection,
    2010; Bates et al., Testing for outliers with conformal p-values, Annals of Statistics 2023.
    """
    m = len(labelled)
    if m < FEWEST:
        raise ValueError(f"{m} labelled images are too few to say what is usual")
    usual = np.sort(labelled[labelled <= _tail(labelled, Z_CLEAR) + 1e-9])
    m = len(usual)
    as_far = m - np.searchsorted(usual, scores, side="left")
    nominal = max(NOMINAL, 1 / (m + 1))
    most = int(nominal * (m + 1) + 1e-9)  # images that may be as far, the new one among them
    return _flagged(scores, as_far + 1 <= most, float(usual[m - most]), units, nominal)


def _tail(scores: Floats, z: float) -> float:
    """Return the score at `z` of a normal tail of the logarithms, by their median and 90 %."""
    logs = np.log(np.maximum(scores, 1e-9))
    middle, ninety = np.quantile(logs[np.isfinite(logs)], [0.5, 0.9])
    return float(np.exp(middle + (ninety - middle) * z / Z_NINETY))


def _flagged(
    scores: Floats,
    flags: NDArray[np.bool_],
    bound: float,
    units: Ints,
    nominal: float = NOMINAL,
) -> Outliers:
    n, where = len(scores), np.flatnonzero(flags)
    numbers = np.unique(units, return_inverse=True)[1].astype(np.int64)
    n_units = int(numbers.max()) + 1 if n else 0
    interval = None
    if n_units == n:
        interval = wilson_interval(len(where), n)
    elif n_units >= FEWEST_UNITS:
        spread = mean_interval(flags.astype(np.float64), numbers)
        interval = spread and (max(0.0, spread[0]), min(1.0, spread[1]))
    return Outliers(
        order=where[np.argsort(-scores[where], kind="stable")],
        scores=scores,
        bound=bound,
        n=n,
        n_units=n_units,
        share=len(where) / n if n else 0.0,
        interval=interval,
        nominal=nominal,
    )
