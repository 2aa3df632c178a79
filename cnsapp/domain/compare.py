"""Is one model better than another on the same images? Paired, by group, with many pairs in mind.

Two scores with overlapping intervals may still differ, and two that look different may not: what
counts is the difference on the same images. Its interval comes from resampling whole groups, the
same ones for both models; its p value from exchanging the two models' answers: group by group where
images of one patient belong together, else image by image. That is McNemar's exact test where all
classes have the same number of images. Where they have not, McNemar's test speaks of accuracy, and
may even favour the other model: the exchange weighs images as balanced accuracy does. Holm's
correction keeps many pairs from making a winner by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb, lgamma, log

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import (
    Interval,
    percentiles,
    resampled_sums,
    unit_numbers,
    widened,
    wilson_interval,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

N_RESAMPLES = 4000
N_SWAPS = 20_000
ALL_SWAPS = 14  # groups up to which every way of swapping is tried
LEVEL = 0.05
MCNEMAR, SWAPS, IMAGES = "McNemar's exact test", "exchange by group", "exchange by image"
ALL_COUNTS = 200_000  # ways to count the exchanged images of each class, up to which all are tried
AT_ONCE = 4_000_000  # numbers held while exchanges are summed


@dataclass(frozen=True)
class Pair:
    """Two models on the same images; every figure is `first` against `second`.

    Attributes
    ----------
    first, second
        Places of the two in the list of models.
    difference
        Balanced accuracy of the first less that of the second, -1 to 1; None without images.
    interval
        95 % paired bootstrap interval of the difference; None below two groups (or images).
    standard_error
        Of the difference, by the same resamples.
    both, only_first, only_second, neither
        Images that both, one, or none of the two got right: McNemar's table.
    p_value, p_holm
        Two-sided, before and after Holm's correction for all pairs; None where undefined.
    test
        `MCNEMAR`, `IMAGES` or `SWAPS`.
    mcnemar_p
        Of McNemar's exact test, which speaks of accuracy, before any correction; None where images
        belong to groups.
    agreement
        Share of the images that both call the same, right or wrong; None without images.
    """

    first: int
    second: int
    difference: float | None
    interval: Interval | None
    standard_error: float | None
    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float | None
    p_holm: float | None
    test: str
    agreement: float | None
    mcnemar_p: float | None = None

    @property
    def shown(self) -> bool:
        """Whether a difference is shown, with all pairs in mind."""
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclass(frozen=True)
class Compared:
    """Some models on the same images.

    Attributes
    ----------
    n, n_groups
        Images, and groups they come from (None: no groups known).
    scores, intervals
        Balanced accuracy of each model with its 95 % bootstrap interval.
    accuracies
        Share of right answers of each model.
    pairs
        Every two models, in order.
    """

    n: int
    n_groups: int | None
    scores: list[float | None]
    intervals: list[Interval | None]
    accuracies: list[float | None]
    pairs: list[Pair]


def compare(
    y_true: NDArray[np.integer],
    answers: NDArray[np.integer],
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Compared:
    """Compare the answers of models on the same images.

    Parameters
    ----------
    y_true
        (N,) class indices, 0 to `n_classes` - 1.
    answers
        (M, N) what each model says; -1 is an answer outside these classes, and wrong.
    groups
        Group of each image (patient, slide), or None.
    seed
        Of the resamples.
    n_resamples
        Of the bootstrap.

    Raises
    ------
    ValueError
        Lengths differ, or fewer than two models.

    References
    ----------
    McNemar, Note on the sampling error of the difference between correlated proportions,
    Psychometrika 1947; Holm, A simple sequentially rejective multiple test procedure, Scand. J.
    Statist. 1979; Field and Welsh, Bootstrapping clustered data, JRSS B 2007; Good, Permutation,
    parametric and bootstrap tests of hypotheses, 2005 (exchange of whole groups).
    """
    true, said = np.asarray(y_true, np.int64), np.asarray(answers, np.int64)
    if said.ndim != 2 or said.shape[1] != len(true) or len(said) < 2:
        raise ValueError(f"answers are {said.shape} for {len(true)} images")
    if groups is not None and len(groups) != len(true):
        raise ValueError(f"{len(groups)} groups for {len(true)} images")
    grouped = groups is not None and any(groups)
    units = unit_numbers(groups, len(true))
    hits = said == true  # (M, N)
    drawn = _resampled(true, hits, n_classes, units, seed, n_resamples)  # (M, R) or None
    scores = [_score(true, right, n_classes) for right in hits]
    n_units = int(units.max()) + 1 if len(units) else 0
    pairs = [
        _pair(a, b, true, said, hits, n_classes, units, scores, drawn, grouped, seed)
        for a, b in combinations(range(len(said)), 2)
    ]
    adjusted = holm([pair.p_value for pair in pairs])
    return Compared(
        n=len(true),
        n_groups=n_units if grouped else None,
        scores=scores,
        intervals=[
            None if drawn is None else widened(percentiles(drawn[m], n_units), scores[m], n_units)
            for m in range(len(said))
        ],
        accuracies=[float(right.mean()) if len(true) else None for right in hits],
        pairs=[replace(pair, p_holm=p) for pair, p in zip(pairs, adjusted, strict=True)],
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided p value of McNemar's exact (binomial) test, 0 to 1.

    Parameters
    ----------
    only_first, only_second
        Images that only the one, or only the other got right.

    References
    ----------
    McNemar, Psychometrika 1947.
    """
    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    tail = term = comb(n, least)
    for k in range(least, 0, -1):  # whole numbers: exact, however small the tail
        term = term * k // (n - k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n if n < 1000 else float((2 * tail << 80) // 2**n) / 2.0**80)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values after Holm's step-down correction, in the same order; None stays None.

    References
    ----------
    Holm, Scandinavian Journal of Statistics 1979.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        found[i] = highest
    return found


def exchange_p(weights: NDArray[np.floating], seed: int = 0) -> float | None:
    """Return the two-sided p value of a sum whose terms may each have either sign, 0 to 1.

    If two models are equally good, it is chance which of them answered which way in a group, so
    the difference that a group contributes might as well have the other sign. All ways are tried
    up to `ALL_SWAPS` groups that differ, else `N_SWAPS` drawn ones.

    Parameters
    ----------
    weights
        (G,) what each group adds to the difference.

    Returns
    -------
    Share of the ways in which the difference is at least as large; None without groups.
    """
    given = np.asarray(weights, np.float64)
    if len(given) < 2:
        return None
    w = given[given != 0]
    if not len(w):
        return 1.0
    seen = abs(w.sum()) - 1e-12
    if len(w) <= ALL_SWAPS:
        ways = (np.arange(2 ** len(w))[:, None] >> np.arange(len(w))) & 1
        return float((np.abs((2 * ways - 1) @ w) >= seen).mean())
    generator, larger, left = np.random.default_rng(seed), 0, N_SWAPS
    while left:
        part = max(1, min(left, AT_ONCE // len(w)))
        signs = generator.integers(0, 2, (part, len(w)), dtype=np.int8) * 2 - 1
        larger += int((np.abs(signs @ w) >= seen).sum())
        left -= part
    return (larger + 1) / (N_SWAPS + 1)


def exchange_images_p(
    weights: NDArray[np.floating], counts: NDArray[np.integer], seen: float, seed: int = 0
) -> float:
    """Return the two-sided p value of a difference whose images may each have either sign, 0 to 1.

    How many of a class's images keep their sign is binomial, so that all ways need not be listed:
    only the counts of each class, up to `ALL_COUNTS` of them, else `N_SWAPS` drawn ones.

    Parameters
    ----------
    weights, counts
        (K,) what an image of each class adds to the difference, and how many images of it one model
        got right and the other wrong.
    seen
        The difference, without its sign.
    """
    known = [(float(w), int(n)) for w, n in zip(weights, counts, strict=True) if n]
    if np.prod([n + 1.0 for _, n in known]) > ALL_COUNTS:
        generator = np.random.default_rng(seed)
        total = sum(w * (2.0 * generator.binomial(n, 0.5, N_SWAPS) - n) for w, n in known)
        return (int((np.abs(total) >= seen - 1e-12).sum()) + 1) / (N_SWAPS + 1)
    sums, chances = np.zeros(1), np.ones(1)
    for w, n in known:
        kept = np.arange(n + 1)
        logs = np.array([lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for k in kept.tolist()])
        chance = np.exp(logs - n * log(2))
        sums = (sums[:, None] + w * (2.0 * kept - n)).ravel()
        chances = (chances[:, None] * chance).ravel()
    return min(1.0, float(chances[np.abs(sums) >= seen - 1e-12].sum()))


def _pair(
    a: int,
    b: int,
    true: Ints,
    said: Ints,
    hits: NDArray[np.bool_],
    n_classes: int,
    units: Ints,
    scores: Sequence[float | None],
    drawn: Floats | None,
    grouped: bool,
    seed: int,
) -> Pair:
    one, two = hits[a], hits[b]
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    first, second = scores[a], scores[b]
    p, test, plain = None, SWAPS if grouped else MCNEMAR, None
    if len(true) and grouped:
        p = exchange_p(_by_group(true, one, two, n_classes, units), seed)
    elif len(true):
        p = plain = mcnemar_exact(only_first, only_second)
        share = _share(true, n_classes)
        apart_in = np.bincount(true[one != two], minlength=n_classes)
        if len(np.unique(share[apart_in > 0])) > 1:  # an image of a rare class weighs more
            test, p = (
                IMAGES,
                exchange_images_p(share, apart_in, abs(_step(true, one, two, share)), seed),
            )
    apart = None if drawn is None else drawn[a] - drawn[b]
    return Pair(
        first=a,
        second=b,
        difference=None if first is None or second is None else first - second,
        interval=None if apart is None else _honest(apart, first, second, units),
        standard_error=None if apart is None else float(np.nanstd(apart)),
        both=int((one & two).sum()),
        only_first=only_first,
        only_second=only_second,
        neither=int((~one & ~two).sum()),
        p_value=p,
        p_holm=None,
        test=test,
        agreement=float((said[a] == said[b]).mean()) if len(true) else None,
        mcnemar_p=plain,
    )


def _honest(
    apart: Floats, first: float | None, second: float | None, units: Ints
) -> Interval | None:
    """Return the interval of a difference, not a point where all groups (or images) agree."""
    n_units = int(units.max()) + 1
    found = percentiles(apart, n_units)
    if found is None or first is None or second is None or found[1] - found[0] > 1e-12:
        return found
    step = abs(first - second)
    sure = wilson_interval(step * n_units, n_units)  # the rule of three, in short
    if sure is None:
        return None
    if step < 1e-12:
        return -sure[1], sure[1]
    return (sure[0], sure[1]) if first > second else (-sure[1], -sure[0])


def _by_group(
    true: Ints, one: NDArray[np.bool_], two: NDArray[np.bool_], n_classes: int, units: Ints
) -> Floats:
    """Return (G,) what each group adds to the difference of the balanced accuracies."""
    step = (one.astype(np.float64) - two) * _share(true, n_classes)[true]
    weights: Floats = np.bincount(units, weights=step)  # type: ignore[assignment]
    return weights


def _share(true: Ints, n_classes: int) -> Floats:
    """Return (K,) what an image of each class weighs in the balanced accuracy: 1 / (n_c K)."""
    n = np.bincount(true, minlength=n_classes)
    share: Floats = 1 / (np.maximum(n, 1) * (n > 0).sum())
    return share


def _step(true: Ints, one: NDArray[np.bool_], two: NDArray[np.bool_], share: Floats) -> float:
    return float(((one.astype(np.float64) - two) * share[true]).sum())


def _score(true: Ints, right: NDArray[np.bool_], n_classes: int) -> float | None:
    n = np.bincount(true, minlength=n_classes)
    if not n.any():
        return None
    hits = np.bincount(true[right], minlength=n_classes)
    return float((hits[n > 0] / n[n > 0]).mean())


def _resampled(
    true: Ints, hits: NDArray[np.bool_], n_classes: int, units: Ints, seed: int, n_resamples: int
) -> Floats | None:
    """Return balanced accuracies (M, R) of all models under the same resamples of whole groups."""
    n_models = len(hits)
    # all that is known of an image: its class, and which models got it right
    kinds, cells = np.unique(np.vstack([true[None], hits]).T, axis=0, return_inverse=True)
    features = np.zeros((len(kinds), (1 + n_models) * n_classes), np.int64)
    row = np.arange(len(kinds))
    features[row, kinds[:, 0]] = 1
    for m in range(n_models):
        features[row, (m + 1) * n_classes + kinds[:, 0]] = kinds[:, 1 + m]
    cells = cells.ravel().astype(np.int64)
    sums = resampled_sums(units, cells, len(kinds), features, seed=seed, n_resamples=n_resamples)
    if sums is None:
        return None
    counts = sums.reshape(len(sums), 1 + n_models, n_classes)
    n, right = counts[:, :1], counts[:, 1:]
    seen = np.broadcast_to(n > 0, right.shape)
    recall = np.divide(right, n, out=np.full_like(right, np.nan), where=seen)
    found: Floats = np.nanmean(recall, axis=2).T
    return found
