"""Scores one can publish: with n, with intervals, undefined where nothing can be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Interval = tuple[float, float]

N_RESAMPLES = 2000


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class. `n` counts its images, `n_predicted` the images called so.

    Each figure lies in 0 to 1, or is None where it is undefined (no image of the class, or none
    called so). `recall_interval` is Wilson's 95 % interval.
    """

    n: int
    n_predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    recall_interval: Interval | None


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of predictions.

    Attributes
    ----------
    n, n_groups
        Images, and groups they come from (None: no groups known).
    balanced_accuracy
        Mean recall over the classes that have images, 0 to 1; None without images.
    interval
        95 % bootstrap interval of the balanced accuracy; None below 2 resampling units.
    interval_by
        `group` or `image`: what was resampled.
    accuracy
        Share of right answers, 0 to 1; None without images.
    per_class
        One row a class, in class order.
    confusion
        Counts: row = true class, column = predicted class.
    """

    n: int
    n_groups: int | None
    balanced_accuracy: float | None
    interval: Interval | None
    interval_by: str
    accuracy: float | None
    per_class: list[ClassScore]
    confusion: list[list[int]]

    def as_json(self) -> dict[str, object]:
        """Return plain data (dict, list, int, float, None)."""
        return asdict(self)


def confusion_matrix(y_true: Ints, y_pred: Ints, n_classes: int) -> Ints:
    """Return counts (n_classes, n_classes): row = true class, column = predicted class."""
    flat = np.asarray(y_true, np.int64) * n_classes + np.asarray(y_pred, np.int64)
    return np.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)


def balanced_accuracy(confusion: Ints) -> float | None:
    """Return the mean recall over the classes that have images, 0 to 1; None when none has."""
    n = confusion.sum(1)
    if not n.any():
        return None
    return float((np.diag(confusion)[n > 0] / n[n > 0]).mean())


def wilson_interval(hits: int, n: int, z: float = 1.959964) -> Interval | None:
    """Return Wilson's interval of a proportion; None for n = 0.

    References
    ----------
    Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    if n == 0:
        return None
    p, z2 = hits / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    y_true: Ints,
    y_pred: Ints,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of the balanced accuracy.

    Whole groups are drawn with replacement; an image without group is a group of its own.

    Returns
    -------
    (low, high) in 0 to 1, or None with fewer than two groups (or images).

    References
    ----------
    Efron and Tibshirani, An introduction to the bootstrap, 1993; Field and Welsh, Bootstrapping
    clustered data, JRSS B 2007.
    """
    units = unit_numbers(groups, len(y_true))
    n_units = int(units.max()) + 1 if len(units) else 0
    if n_units < 2:
        return None
    total = np.zeros((n_units, n_classes), np.float32)
    hits = np.zeros_like(total)
    np.add.at(total, (units, y_true), 1)
    np.add.at(hits, (units, y_true), np.asarray(y_true) == np.asarray(y_pred))
    # what enters a resample is only how often each distinct row of counts is drawn
    rows, inverse = np.unique(np.hstack([total, hits]), axis=0, return_inverse=True)
    share = np.bincount(inverse.ravel(), minlength=len(rows)) / n_units
    draws = np.random.default_rng(seed).multinomial(n_units, share, size=n_resamples)
    sums = draws.astype(np.float32) @ rows  # (resamples, 2 n_classes)
    n, right = sums[:, :n_classes], sums[:, n_classes:]
    recall = np.divide(right, n, out=np.full_like(right, np.nan), where=n > 0)
    scores = np.nanmean(recall, axis=1)
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def unit_numbers(groups: Sequence[str | None] | None, n: int) -> Ints:
    """Number what is drawn together (N,): groups; an image without one, or all where none has."""
    if groups is None or not any(groups):
        return np.arange(n, dtype=np.int64)
    numbers: dict[object, int] = {}
    keys = [group or (i,) for i, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def evaluate(
    y_true: NDArray[np.integer],
    y_pred: NDArray[np.integer],
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score predictions.

    Parameters
    ----------
    y_true, y_pred
        (N,) class indices, 0 to `n_classes` - 1.
    groups
        Group of each image (patient, slide), or None.
    seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        Lengths differ, or an index is out of range.
    """
    true, pred = np.asarray(y_true, np.int64), np.asarray(y_pred, np.int64)
    if true.shape != pred.shape or (groups is not None and len(groups) != len(true)):
        raise ValueError(f"lengths differ: {true.shape}, {pred.shape}")
    for values in (true, pred):
        if len(values) and not (values.min() >= 0 and values.max() < n_classes):
            raise ValueError(f"class index outside 0 to {n_classes - 1}")
    confusion = confusion_matrix(true, pred, n_classes)
    by_group = groups is not None and any(groups)
    return Evaluation(
        n=len(true),
        n_groups=int(unit_numbers(groups, len(true)).max()) + 1 if by_group else None,
        balanced_accuracy=balanced_accuracy(confusion),
        interval=bootstrap_interval(true, pred, n_classes, groups, seed=seed),
        interval_by="group" if by_group else "image",
        accuracy=float((true == pred).mean()) if len(true) else None,
        per_class=[_class_score(confusion, c) for c in range(n_classes)],
        confusion=confusion.tolist(),
    )


def _class_score(confusion: Ints, c: int) -> ClassScore:
    hits, n, called = int(confusion[c, c]), int(confusion[c].sum()), int(confusion[:, c].sum())
    return ClassScore(
        n=n,
        n_predicted=called,
        precision=hits / called if called else None,
        recall=hits / n if n else None,
        f1=2 * hits / (n + called) if n else None,
        recall_interval=wilson_interval(hits, n),
    )
