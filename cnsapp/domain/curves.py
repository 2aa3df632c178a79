"""ROC and precision-recall curves, one class against the rest, with areas and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import (
    Floats,
    Interval,
    Ints,
    percentiles,
    shared_draws,
    unit_numbers,
    widened,
)

Draws = tuple[Ints, NDArray[np.float32]]  # as `shared_draws` gives them
MOST_POINTS = 200  # that are drawn
N_BINS = 64  # of the scores of either side, for the intervals


@dataclass(frozen=True)
class ClassCurves:
    """The curves of one class against all others.

    Attributes
    ----------
    n, n_rest
        Images of the class and of the others. With either at 0 all else is undefined.
    auc, auc_interval
        Area under the ROC curve, 0 to 1 (0.5 is chance): how often an image of the class has the
        higher probability than another one.
    ap, ap_interval
        Average precision, 0 to 1 (chance is the share of the class).
    roc
        (false positive rate, true positive rate), from (0, 0) to (1, 1), at most 200 points.
    pr
        (recall, precision): the precision holds from the recall before it to its own.
    """

    n: int
    n_rest: int
    auc: float | None
    auc_interval: Interval | None
    ap: float | None
    ap_interval: Interval | None
    roc: list[tuple[float, float]]
    pr: list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """The curves of all classes, and the means of their areas over the classes that have one."""

    n: int
    n_groups: int | None
    interval_by: str
    per_class: list[ClassCurves]
    macro_auc: float | None
    macro_auc_interval: Interval | None
    macro_ap: float | None
    macro_ap_interval: Interval | None


def one_vs_rest(
    probabilities: NDArray[np.floating],
    y: NDArray[np.integer],
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
) -> Curves:
    """Return the curves of every class against the rest.

    Parameters
    ----------
    probabilities
        (N, K), without NaN.
    y
        (N,) true class indices, 0 to K - 1.
    groups
        Group of each image, or None: what the intervals are resampled by.
    seed
        Of the bootstrap.

    Notes
    -----
    The areas are exact. Their intervals come from 2,000 resamples of the groups, in which the
    scores stand in up to 128 bins, cut so that none holds more than a sixtieth of either side.

    References
    ----------
    Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 2006; Davis and Goadrich,
    The relationship between precision-recall and ROC curves, ICML 2006.
    """
    p, true = np.asarray(probabilities, np.float64), np.asarray(y, np.int64)
    # in an order that follows from what they hold, so that the order of images changes nothing
    order = np.lexsort((true, *p.T[:2])) if p.shape[1] else np.arange(len(true))
    p, true = p[order], true[order]
    units = unit_numbers(None if groups is None else [groups[i] for i in order], len(true))
    draws = shared_draws(units, seed=seed)
    by_group = groups is not None and any(groups)
    found, aucs, aps = [], [], []
    for c in range(p.shape[1]):
        curve, drawn = _one_class(p[:, c], true == c, units, draws)
        found.append(curve)
        if drawn is not None:
            aucs.append(drawn[0])
            aps.append(drawn[1])
    n_units = int(units.max()) + 1 if len(units) else 0
    macro_auc, macro_ap = _mean([c.auc for c in found]), _mean([c.ap for c in found])
    return Curves(
        n=len(true),
        n_groups=n_units if by_group else None,
        interval_by="group" if by_group else "image",
        per_class=found,
        macro_auc=macro_auc,
        macro_auc_interval=_macro(aucs, macro_auc, n_units),
        macro_ap=macro_ap,
        macro_ap_interval=_macro(aps, macro_ap, n_units),
    )


def roc_points(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return all corners of a ROC curve: false and true positive rates, from 0 to 1."""
    hits, others = _cumulated(scores, positive)
    return np.r_[0.0, others / max(others[-1], 1)], np.r_[0.0, hits / max(hits[-1], 1)]


def _one_class(
    scores: Floats, positive: NDArray[np.bool_], units: Ints, draws: Draws | None
) -> tuple[ClassCurves, tuple[Floats, Floats] | None]:
    n, n_rest = int(positive.sum()), int((~positive).sum())
    if not n or not n_rest:
        return ClassCurves(n, n_rest, None, None, None, None, [], []), None
    hits, others = _cumulated(scores, positive)
    auc, ap = _areas(np.diff(hits, prepend=0)[None], np.diff(others, prepend=0)[None])
    value, precision = float(auc[0]), float(ap[0])
    drawn = draws and _resampled(scores, positive, draws, value, precision)
    holding = min(len(np.unique(units[positive])), len(np.unique(units[~positive])))
    spreads: list[Interval | None] = [None, None]
    if drawn is not None:
        spreads = [
            widened(percentiles(values, holding), at, holding)
            for values, at in zip(drawn, (value, precision), strict=True)
        ]
    curve = ClassCurves(
        n, n_rest, value, spreads[0], precision, spreads[1], _roc(hits, others), _pr(hits, others)
    )  # fmt: skip
    return curve, drawn


def _cumulated(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return how many of either side have at least each distinct score, highest score first."""
    order = np.argsort(-scores, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]
    hits = np.cumsum(positive[order])[ends].astype(np.float64)
    return hits, ends + 1.0 - hits


def _areas(hits: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return AUC and average precision of counts by score (B, bins), highest score first."""
    up, across = hits.cumsum(1), others.cumsum(1)
    n, n_rest = up[:, -1], across[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = ((up - hits / 2) * others).sum(1) / (n * n_rest)
        precision = np.where(up > 0, up / (up + across), 0.0)
        ap = (precision * hits).sum(1) / n
    undefined = (n == 0) | (n_rest == 0)
    return np.where(undefined, np.nan, auc), np.where(undefined, np.nan, ap)


def _resampled(
    scores: Floats, positive: NDArray[np.bool_], draws: Draws, auc: float, ap: float
) -> tuple[Floats, Floats]:
    """Return both areas of all resamples; what the bins lose of the areas is given back."""
    edges = np.unique(np.r_[_quantiles(scores[positive]), _quantiles(scores[~positive])])
    bins = len(edges) - np.searchsorted(edges, scores, side="right")  # 0: the highest scores
    n_bins = len(edges) + 1
    cells = bins * 2 + positive
    owner, times = draws
    held = np.bincount(owner * (2 * n_bins) + cells, minlength=times.shape[1] * 2 * n_bins)
    table = held.reshape(times.shape[1], 2 * n_bins)
    sums = (times @ table.astype(np.float32)).astype(np.float64)
    whole = table.sum(0)[None].astype(np.float64)
    binned = _areas(whole[:, 1::2], whole[:, ::2])
    drawn = _areas(sums[:, 1::2], sums[:, ::2])
    return (
        np.clip(drawn[0] + auc - binned[0], 0, 1),
        np.clip(drawn[1] + ap - binned[1], 0, 1),
    )


def _quantiles(values: Floats) -> Floats:
    distinct = np.unique(values)
    if len(distinct) <= N_BINS:
        return distinct
    return np.quantile(values, np.linspace(0, 1, N_BINS), method="nearest")


def _roc(hits: Floats, others: Floats) -> list[tuple[float, float]]:
    x = np.r_[0.0, others / others[-1]]
    y = np.r_[0.0, hits / hits[-1]]
    if len(x) > MOST_POINTS:  # a point each time the curve has run as far again
        way = x + y
        wanted = np.linspace(0, 2, MOST_POINTS)
        keep = np.unique(np.r_[np.searchsorted(way, wanted - 1e-12), len(x) - 1])
        keep = keep[keep < len(x)][-MOST_POINTS:]
        keep[0] = 0
        x, y = x[keep], y[keep]
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _pr(hits: Floats, others: Floats) -> list[tuple[float, float]]:
    """Return steps of recall with the precision that leaves the area of each step as it is."""
    gained = np.diff(hits, prepend=0.0)
    steps = np.flatnonzero(gained)
    precision = (hits / (hits + others))[steps]
    recall, gained = hits[steps] / hits[-1], gained[steps]
    if len(steps) > MOST_POINTS:
        at = np.minimum((recall * MOST_POINTS - 1e-9).astype(np.int64), MOST_POINTS - 1)
        starts = np.flatnonzero(np.r_[True, np.diff(at) > 0])
        area = np.add.reduceat(gained * precision, starts)
        precision = area / np.add.reduceat(gained, starts)
        recall = recall[np.r_[starts[1:] - 1, len(recall) - 1]]
    return list(zip(recall.tolist(), precision.tolist(), strict=True))


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _macro(drawn: list[Floats], value: float | None, n_units: int) -> Interval | None:
    """Return the interval of the mean: all classes share their resamples."""
    if not drawn or value is None:
        return None
    table = np.array(drawn)
    there = np.isfinite(table)
    n = there.sum(0)
    means = np.where(n > 0, np.where(there, table, 0.0).sum(0) / np.maximum(n, 1), np.nan)
    return widened(percentiles(means, n_units), value, n_units)
