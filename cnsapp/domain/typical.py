"""What a class looks like: its most typical images, prototypes of its kinds, and its odd ones.

All take unit rows of one class alone; their product is the similarity of two images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]
Ints = NDArray[np.int64]

MOST_COMPARED = 2000  # images that all others are compared with; more are drawn from, by the seed
NEIGHBOURS = 10  # of its class that an image is compared with, to tell how far it stands apart
ROUNDS = 50  # of k-medoids; it settles long before


@dataclass(frozen=True)
class Odd:
    """How odd the images of a class are.

    Attributes
    ----------
    order
        (N,) the oddest first, ties by index.
    apart
        (N,) share of the class that stands closer to its own neighbours, 0 to 1; NaN without
        features.
    doubted
        (N,) share of the class that the model is surer of, 0 to 1; NaN without an answer.
    """

    order: Ints
    apart: Floats
    doubted: Floats


def typical_order(rows: Rows) -> Ints:
    """Return the images (N,) by mean similarity to the class, the most typical first.

    Ties go to the lower index. It is the order of the cosines to the mean of the class.
    """
    x = np.asarray(rows, np.float64)
    closeness = x @ (x.sum(0) / max(1, len(x)))
    return np.lexsort((np.arange(len(rows)), -np.round(closeness, 9)))


def prototypes(rows: Rows, k: int, *, seed: int = 0) -> tuple[Ints, Ints]:
    """Choose images that stand for the kinds of a class, and say how many each stands for.

    Parameters
    ----------
    rows
        (N, d) unit rows.
    k
        How many, 1 or more; fewer where there are fewer images that differ.
    seed
        Of the images that are chosen from, where there are more than 2,000.

    Returns
    -------
    Indices (M,), that of the largest kind first, and the images nearest to each (M,), adding up to
    N.

    Raises
    ------
    ValueError
        `k` is below 1.

    References
    ----------
    Kaufman and Rousseeuw, Finding groups in data, 1990 (k-medoids, its greedy start); Park and Jun,
    A simple and fast algorithm for k-medoids clustering, Expert Syst. Appl. 2009 (its rounds).
    """
    if k < 1:
        raise ValueError(f"{k} prototypes cannot be chosen")
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    pool = _sample(len(rows), seed)
    x = np.asarray(rows, np.float64)[pool]
    apart = np.maximum(1 - x @ x.T, 0.0)
    chosen = _settled(apart, _greedy(apart, k))
    nearest = (np.asarray(rows, np.float64) @ x[chosen].T).argmax(1)
    sizes = np.bincount(nearest, minlength=len(chosen))
    by = np.lexsort((pool[chosen], -sizes))
    return pool[chosen][by], sizes[by]


def odd_order(rows: Rows, confidence: Floats, *, seed: int = 0) -> Odd:
    """Rank the images of a class by how odd they are: apart from it, or doubted by the model.

    Parameters
    ----------
    rows
        (N, d) unit rows, NaN where there are none.
    confidence
        (N,) out-of-fold probability of the class, 0 to 1; NaN where there is none.
    seed
        Of the images that are compared with, where there are more than 2,000.

    Returns
    -------
    See `Odd`. The order is that of the mean of both shares, of one where the other is not known;
    images of which nothing is known come last.

    References
    ----------
    Ramaswamy, Rastogi and Shim, Efficient algorithms for mining outliers from large data sets,
    SIGMOD 2000 (distance to the nearest neighbours).
    """
    x = np.asarray(rows, np.float64)
    apart = _shares(-_closeness(x, seed))
    doubted = _shares(-np.asarray(confidence, np.float64))
    known = np.isfinite(apart).astype(int) + np.isfinite(doubted)
    total = np.nan_to_num(apart) + np.nan_to_num(doubted)
    score = np.where(known > 0, total / np.maximum(known, 1), -1.0)
    return Odd(np.lexsort((np.arange(len(x)), -np.round(score, 9))), apart, doubted)


def _closeness(x: Floats, seed: int) -> Floats:
    """Return the mean cosine (N,) to the nearest others; NaN without features or others."""
    found = np.full(len(x), np.nan)
    there = np.flatnonzero(np.isfinite(x).all(1)) if len(x) else np.zeros(0, np.int64)
    among = there[_sample(len(there), seed)]
    k = min(NEIGHBOURS, len(among) - 1)
    if k < 1:
        return found
    for start in range(0, len(there), MOST_COMPARED):
        of = there[start : start + MOST_COMPARED]
        alike = x[of] @ x[among].T
        alike[of[:, None] == among[None, :]] = -np.inf
        found[of] = -np.partition(-alike, k - 1, axis=1)[:, :k].mean(1)
    return found


def _shares(values: Floats) -> Floats:
    """Return the share (N,) of the finite values below each, 0 to 1; equals share the middle."""
    found = np.full(len(values), np.nan)
    there = np.isfinite(values)
    ordered = np.sort(np.round(values[there], 9))
    if len(ordered):
        mine = np.round(values[there], 9)
        below, up_to = (np.searchsorted(ordered, mine, side) for side in ("left", "right"))
        found[there] = (below + up_to - 1) / 2 / max(1, len(ordered) - 1)
    return found


def _sample(n: int, seed: int) -> Ints:
    if n <= MOST_COMPARED:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, MOST_COMPARED, replace=False))


def _greedy(apart: Floats, k: int) -> Ints:
    """Choose one after the other what brings all images nearest to what is chosen."""
    chosen = [int(apart.sum(1).argmin())]
    nearest = apart[chosen[0]].copy()
    while len(chosen) < min(k, len(apart)):
        gain = np.maximum(nearest[None, :] - apart, 0.0).sum(1)
        if gain.max() < 1e-9:  # the rest are copies of those chosen
            break
        chosen.append(int(gain.argmax()))
        nearest = np.minimum(nearest, apart[chosen[-1]])
    return np.array(chosen, np.int64)


def _settled(apart: Floats, chosen: Ints) -> Ints:
    """Move each medoid to the middle of the images that are nearest to it, until none moves."""
    for _ in range(ROUNDS):
        mine = apart[:, chosen].argmin(1)
        moved = chosen.copy()
        for kind in range(len(chosen)):
            members = np.flatnonzero(mine == kind)
            if len(members):
                moved[kind] = members[apart[np.ix_(members, members)].sum(1).argmin()]
        if (moved == chosen).all():
            break
        chosen = moved
    return chosen
