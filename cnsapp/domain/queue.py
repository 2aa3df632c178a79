"""What to label next: images spread over the whole set first, then those the model doubts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Reason = Literal["uncertain", "random"]
Strategy = Literal["spread", "uncertain"]

LABELS_TO_START = 5  # of every class, before a model's doubts mean anything
CHUNK = 2_000_000  # numbers in a block of distances: 8 MB


def spread_order(vectors: Floats, chosen: Sequence[int] | Ints, n: int) -> Ints:
    """Return the images that cover the set best beside those chosen already: greedy k-centre.

    Each image is the one farthest from all that are labelled or picked before it. Far means at
    another angle, seen from the mean of all: by plain distance the order begins with outliers, and
    25 labels teach less than by chance (colorectal tiles: 0.55 against 0.59 balanced accuracy, by
    angle 0.67). With nothing chosen the first is the image in the commonest direction. The same
    input gives the same order, a longer order begins with a shorter one, ties go to the lower
    index.

    Parameters
    ----------
    vectors
        (N, D) features, finite. Standardise and reduce long ones first (PCA to 64 columns).
    chosen
        Indices that are labelled already.
    n
        How many are wanted, 0 or more.

    Returns
    -------
    (min(n, N - chosen),) indices, none of them in `chosen`.

    Raises
    ------
    ValueError
        `vectors` is not a table of finite numbers, or an index lies outside it.

    References
    ----------
    Gonzalez, Clustering to minimize the maximum intercluster distance, Theor. Comput. Sci. 1985;
    Sener and Savarese, Active learning for convolutional neural networks: a core-set approach,
    ICLR 2018.
    """
    x, taken = _table(vectors), _indices(chosen, len(vectors))
    n = min(n, len(x) - len(taken))
    if n <= 0:
        return np.zeros(0, np.int64)
    x = directions(x)
    alike = nearest_cosine(x, x[taken]) if len(taken) else -(x @ x.mean(0))
    alike[taken] = np.inf  # never the least alike again
    first = int(np.argmin(alike))
    if not len(taken):
        alike[:] = -np.inf
    return _farthest_first(x, alike, first, n)


def _farthest_first(units: Floats, alike: Floats, first: int, n: int) -> Ints:
    """Pick n rows: `first`, then each the least like all before; `alike` (N,) is what they know.

    `alike` holds the cosine to what was there before, infinite for rows not to be picked.
    """
    order = np.empty(n, np.int64)
    for i in range(n):
        pick = order[i] = int(np.argmin(alike)) if i else first
        alike = np.maximum(alike, units @ units[pick])
        alike[pick] = np.inf
    return order


def directions(vectors: Floats) -> Floats:
    """Return the vectors (N, D) seen from their mean, at length 1 (0 where one is the mean)."""
    centred = vectors - vectors.mean(0)
    tiny = 1e-6 * float(np.abs(vectors).max(initial=0))  # what rounding leaves of one at the mean
    return _units(centred, tiny)


def nearest_cosine(units: Floats, anchors: Floats) -> Floats:
    """Return the cosine (N,) of unit vectors (N, D) to the nearest of the anchors (M, D)."""
    nearest = np.empty(len(units), np.float32)
    step = max(1, CHUNK // max(1, len(anchors)))
    for start in range(0, len(units), step):
        nearest[start : start + step] = (units[start : start + step] @ anchors.T).max(1)
    return nearest


def uncertain_diverse(
    margin: NDArray[np.floating],
    vectors: Floats,
    n: int,
    *,
    pool_factor: float = 4.0,
    random_share: float = 0.1,
    seed: int,
) -> list[tuple[int, Reason]]:
    """Return what to label next: images the model doubts, unlike each other, and some by chance.

    The `pool_factor` times `n` images of smallest margin are the pool. The most doubtful comes
    first, then from the pool always the image least like those before (k-centre of directions, as
    in `spread_order`), so that a batch does not ask one question many times. A share is drawn
    evenly from all images given instead: a score on doubtful images alone is too low, one on these
    speaks for the images that were unlabelled then; and they find what the model is wrong about
    and sure of.

    Parameters
    ----------
    margin
        (N,) of the images that have no label yet: probability of the likeliest class less that of
        the second, 0 to 1.
    vectors
        (N, D) features of the same images.
    n
        How many are wanted.
    pool_factor
        1 or more; 1 takes the smallest margins as they are.
    random_share
        0 to 1.
    seed
        The same seed and input give the same answer.

    Returns
    -------
    min(n, N) pairs (index, reason), mixed, each index once.

    Raises
    ------
    ValueError
        Lengths differ, a margin is not a number, or a setting is out of range.

    References
    ----------
    Zhdanov, Diverse mini-batch active learning, 2019 (pool, then spread); Sener and Savarese, ICLR
    2018 (k-centre); Scheffer et al., Active hidden Markov models for information extraction, IDA
    2001 (margin).

    Notes
    -----
    On 1,200 colorectal tiles, after a start with `spread_order` and in batches of 25, a linear head
    reached 95 % of its full accuracy with half the labels that images by chance took (0.52, mean of
    32 seeds; 0.45 to 0.59 as the head is regularised more or less). On 489 cells of smears, whose
    seven grades are hard to tell apart, it took 0.90. k-means++, k-means and plain margins instead
    of k-centre lay within the scatter of the seeds.
    """
    x, doubt = _table(vectors), 1 - np.asarray(margin, np.float64)
    if doubt.shape != (len(x),):
        raise ValueError(f"{doubt.shape} margins for {len(x)} vectors")
    if not np.isfinite(doubt).all():
        raise ValueError("a margin is not a number")
    if pool_factor < 1 or not 0 <= random_share <= 1:
        raise ValueError(f"pool_factor {pool_factor} or random_share {random_share} out of range")
    n = min(n, len(x))
    if n <= 0:
        return []
    rng = np.random.default_rng(seed)
    by_chance = rng.choice(len(x), round(n * random_share), replace=False).astype(np.int64)
    left = np.setdiff1d(np.arange(len(x)), by_chance)
    n_doubted = n - len(by_chance)
    pool = left[np.argsort(-doubt[left], kind="stable")[: round(pool_factor * n_doubted)]]
    unknown = np.full(len(pool), -np.inf, np.float32)
    picks = pool[_farthest_first(directions(x)[pool], unknown, 0, n_doubted)]
    both: list[tuple[int, Reason]] = [(int(i), "uncertain") for i in picks]
    both += [(int(i), "random") for i in by_chance]
    return [both[i] for i in rng.permutation(len(both))]


def lookalikes(
    vectors: Floats, anchors: Sequence[int], exclude: Iterable[int], n: int
) -> tuple[Ints, Floats]:
    """Return the images most like any of several, the most alike first.

    Parameters
    ----------
    vectors
        (N, D) features, finite. Standardise them first: where all point one way, all are alike.
    anchors
        Indices of the images to match, one or more; they are never in the answer.
    exclude
        Further indices that are not wanted, such as those labelled already.
    n
        How many are wanted.

    Returns
    -------
    Indices (M,) and their cosine similarity (M,) to the nearest anchor, -1 to 1, falling; ties by
    index. A vector of zeros is like nothing: 0.

    Raises
    ------
    ValueError
        No anchor, or an index outside the table.
    """
    x, asked = _table(vectors), _indices(anchors, len(vectors))
    if not len(asked):
        raise ValueError("no anchor given")
    units = _units(x)
    alike = nearest_cosine(units, units[asked])
    wanted = np.ones(len(x), bool)
    wanted[asked] = False
    wanted[_indices(list(exclude), len(x))] = False
    found = np.flatnonzero(wanted)
    found = found[np.argsort(-alike[found], kind="stable")[: max(0, n)]]
    return found, np.clip(alike[found], -1, 1)


def start_strategy(counts_per_class: Iterable[int], least: int = LABELS_TO_START) -> Strategy:
    """Return `uncertain` once every class has `least` labels, until then `spread`.

    Parameters
    ----------
    counts_per_class
        Number of labelled images of each class of the project; empty without classes.
    least
        Labels of every class from which on a model's doubts mean something.
    """
    counts = list(counts_per_class)
    return "uncertain" if counts and min(counts) >= least else "spread"


def _units(vectors: Floats, tiny: float = 0.0) -> Floats:
    """Return the vectors at length 1; those not longer than `tiny` at 0."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Floats = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > tiny)
    return units


def _table(vectors: Floats) -> Floats:
    x = np.asarray(vectors, np.float32)
    if x.ndim != 2:
        raise ValueError(f"vectors are {x.shape}, not (N, D)")
    if not np.isfinite(x).all():
        raise ValueError("a vector holds what is not a number")
    return x


def _indices(given: Sequence[int] | Ints, n: int) -> Ints:
    found = np.unique(np.asarray(given, np.int64))
    if len(found) and not (found[0] >= 0 and found[-1] < n):
        raise ValueError(f"an index lies outside 0 to {n - 1}")
    return found
