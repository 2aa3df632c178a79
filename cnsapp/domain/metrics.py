"""Scores one can publish: with n, with intervals, undefined where nothing can be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import (
    N_RESAMPLES,
    Floats,
    Interval,
    Ints,
    percentiles,
    resampled_sums,
    unit_numbers,
    widened,
    wilson_interval,
)

__all__ = [
    "ClassScore",
    "Evaluation",
    "Floats",
    "Interval",
    "Ints",
    "SystemScore",
    "balanced_accuracy",
    "bootstrap_interval",
    "confusion_matrix",
    "evaluate",
    "unit_numbers",
    "wilson_interval",
]


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class. `n` counts its images, `n_predicted` the images called so.

    Each figure lies in 0 to 1, or is None where it is undefined (no image of the class, or none
    called so). Intervals are 95 %; those of recall and precision are Wilson's where images are
    their own units and come from resampled groups otherwise (None where too few groups hold the
    class); that of F1 is always resampled. `interval_by` says which.
    """

    n: int
    n_predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    recall_interval: Interval | None
    precision_interval: Interval | None = None
    f1_interval: Interval | None = None
    n_groups: int | None = None  # that hold images of the class
    interval_by: str = "image"


@dataclass(frozen=True)
class SystemScore:
    """Scores at the level of organ systems, the parents of the classes.

    Attributes
    ----------
    n_systems
        Systems with images.
    balanced_accuracy, interval
        Mean recall over the systems that have images, an answer being right when its system is.
    accuracy, accuracy_interval
        Share of images whose system is right, 0 to 1.
    n_errors, n_errors_within
        Wrong answers, and those of them that stay within the system.
    within
        Their share, 0 to 1; None without errors.
    within_interval
        95 %, resampled by group or Wilson's by image.
    """

    n_systems: int
    balanced_accuracy: float | None
    interval: Interval | None
    accuracy: float | None
    accuracy_interval: Interval | None
    n_errors: int
    n_errors_within: int
    within: float | None
    within_interval: Interval | None


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
    accuracy, accuracy_interval
        Share of right answers, 0 to 1; None without images.
    per_class
        One row a class, in class order.
    confusion
        Counts: row = true class, column = predicted class.
    macro_f1, macro_f1_interval
        Mean F1 over the classes that have images.
    kappa, mcc, kappa_interval, mcc_interval
        Cohen's kappa and Matthews' correlation, -1 to 1; None where only one class occurs.
    top2, top2_interval
        Share of images whose class is among the two likeliest, where that was given.
    systems
        At the level of organ systems, where those were given.
    """

    n: int
    n_groups: int | None
    balanced_accuracy: float | None
    interval: Interval | None
    interval_by: str
    accuracy: float | None
    per_class: list[ClassScore]
    confusion: list[list[int]]
    accuracy_interval: Interval | None = None
    macro_f1: float | None = None
    macro_f1_interval: Interval | None = None
    kappa: float | None = None
    mcc: float | None = None
    kappa_interval: Interval | None = None
    mcc_interval: Interval | None = None
    top2: float | None = None
    top2_interval: Interval | None = None
    systems: SystemScore | None = None

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
    true, pred = np.asarray(y_true, np.int64), np.asarray(y_pred, np.int64)
    units = unit_numbers(groups, len(true))
    cells = true * n_classes + pred
    features = _features(n_classes)[:, : 2 * n_classes]
    sums = resampled_sums(units, cells, n_classes**2, features, seed=seed, n_resamples=n_resamples)
    if sums is None:
        return None
    value = balanced_accuracy(confusion_matrix(true, pred, n_classes))
    holding = _units_holding(units, true, n_classes)
    scores = _nan_mean(_ratio(sums[:, n_classes:], sums[:, :n_classes]))
    agreeing = _harmonic(holding, int(units.max()) + 1)
    return widened(percentiles(scores, agreeing), value, agreeing)


def evaluate(
    y_true: NDArray[np.integer],
    y_pred: NDArray[np.integer],
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    seed: int = 0,
    *,
    second: NDArray[np.integer] | None = None,
    systems: Sequence[int] | None = None,
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
    second
        (N,) the second likeliest class of each image, or None.
    systems
        (n_classes,) number of each class's organ system, or None.

    Raises
    ------
    ValueError
        Lengths differ, or an index is out of range.

    References
    ----------
    Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, Comput.
    Biol. Chem. 2004 (Matthews' correlation for many classes).
    """
    true, pred = np.asarray(y_true, np.int64), np.asarray(y_pred, np.int64)
    if true.shape != pred.shape or (groups is not None and len(groups) != len(true)):
        raise ValueError(f"lengths differ: {true.shape}, {pred.shape}")
    for values in (true, pred) if second is None else (true, pred, second):
        if len(values) and not (values.min() >= 0 and values.max() < n_classes):
            raise ValueError(f"class index outside 0 to {n_classes - 1}")
    if second is not None and len(second) != len(true):
        raise ValueError(f"lengths differ: {true.shape}, {second.shape}")
    k = n_classes
    # all that scores need to know of an image: its class, its answer, and whether a second helps
    cells = true * k + pred
    if second is not None:
        cells = cells + k * k * ((pred == true) | (np.asarray(second) == true))
    features = _features(k, with_second=second is not None, systems=systems)
    units = unit_numbers(groups, len(true))
    times = np.bincount(cells, minlength=len(features))
    whole = _Figures(times[None] @ features, k, systems)
    sums = resampled_sums(units, cells, len(features), features, seed=seed)
    drawn = None if sums is None else _Figures(sums, k, systems)
    by_group = groups is not None and any(groups)
    n_units = int(units.max()) + 1 if len(units) else 0
    spread = _Spread(whole, drawn, by_group, _units_holding(units, true, k), n_units)
    return Evaluation(
        n=len(true),
        n_groups=n_units if by_group else None,
        balanced_accuracy=_number(whole.balanced[0]),
        interval=spread.resampled("balanced", spread.agreeing),
        interval_by="group" if by_group else "image",
        accuracy=_number(whole.accuracy[0]),
        per_class=[_class_score(spread, c) for c in range(k)],
        confusion=confusion_matrix(true, pred, k).tolist(),
        accuracy_interval=spread.share("accuracy", len(true), n_units),
        macro_f1=_number(whole.macro_f1[0]),
        macro_f1_interval=spread.resampled("macro_f1", spread.agreeing),
        kappa=_number(whole.kappa[0]),
        mcc=_number(whole.mcc[0]),
        kappa_interval=spread.resampled("kappa", spread.agreeing),
        mcc_interval=spread.resampled("mcc", spread.agreeing),
        top2=None if second is None else _number(whole.top2[0]),
        top2_interval=None if second is None else spread.share("top2", len(true), n_units),
        systems=None if systems is None else _system_score(spread),
    )


class _Figures:
    """All figures of rows of sums (B, F): the predictions themselves, or their resamples."""

    def __init__(self, sums: NDArray[np.number], k: int, systems: Sequence[int] | None) -> None:
        total = np.asarray(sums, np.float64)
        self.n, self.hits, self.called = total[:, :k], total[:, k : 2 * k], total[:, 2 * k : 3 * k]
        n, right = self.n.sum(1), self.hits.sum(1)
        self.recall = _ratio(self.hits, self.n)
        self.precision = _ratio(self.hits, self.called)
        self.f1 = np.where(self.n > 0, _ratio(2 * self.hits, self.n + self.called), np.nan)
        self.balanced = _nan_mean(self.recall)
        self.macro_f1 = _nan_mean(self.f1)
        self.accuracy = _ratio(right, n)
        self.top2 = _ratio(total[:, 3 * k], n)
        chance = (self.n * self.called).sum(1)
        self.kappa = _ratio(right * n - chance, n * n - chance)
        spread = (n * n - (self.n**2).sum(1)) * (n * n - (self.called**2).sum(1))
        self.mcc = _ratio(right * n - chance, np.sqrt(np.maximum(spread, 0.0)))
        if systems is not None:
            s = max(systems) + 1 if len(systems) else 0
            rest = total[:, 3 * k + 1 :]
            self.system_n, self.system_hits = rest[:, :s], rest[:, s : 2 * s]
            self.system_balanced = _nan_mean(_ratio(self.system_hits, self.system_n))
            self.system_accuracy = _ratio(self.system_hits.sum(1), n)
            self.errors = n - right
            self.errors_within = self.system_hits.sum(1) - right
            self.within = _ratio(self.errors_within, self.errors)


@dataclass(frozen=True)
class _Spread:
    """Where the intervals of the figures come from."""

    whole: _Figures
    drawn: _Figures | None
    by_group: bool
    holding: Ints  # units that hold images of each class
    n_units: int

    @property
    def agreeing(self) -> float:
        """How many units agree where all classes are right."""
        return _harmonic(self.holding, self.n_units)

    def resampled(self, name: str, n_units: float, column: int | None = None) -> Interval | None:
        """Return the percentile interval of a figure, honest where all units agree."""
        if self.drawn is None:
            return None
        at = slice(None) if column is None else (slice(None), column)
        value = getattr(self.whole, name)[at][0]
        if not np.isfinite(value):
            return None
        drawn = getattr(self.drawn, name)[at]
        return widened(percentiles(drawn, n_units), float(value), n_units)

    def share(
        self, name: str, n: int, n_units: float, column: int | None = None
    ) -> Interval | None:
        """Return the interval of a share of `n` images: Wilson's, or resampled by group."""
        if self.by_group:
            return self.resampled(name, n_units, column)
        found = getattr(self.whole, name)
        value = found[0] if column is None else found[0, column]
        return wilson_interval(float(value) * n, n) if np.isfinite(value) else None


def _class_score(spread: _Spread, c: int) -> ClassScore:
    whole = spread.whole
    n, called = int(whole.n[0, c]), int(whole.called[0, c])
    units = int(spread.holding[c])
    return ClassScore(
        n=n,
        n_predicted=called,
        precision=_number(whole.precision[0, c]),
        recall=_number(whole.recall[0, c]),
        f1=_number(whole.f1[0, c]),
        recall_interval=spread.share("recall", n, units, c),
        precision_interval=spread.share("precision", called, units, c),
        f1_interval=spread.resampled("f1", units, c),
        n_groups=units if spread.by_group else None,
        interval_by="group" if spread.by_group else "image",
    )


def _system_score(spread: _Spread) -> SystemScore:
    whole = spread.whole
    n, n_errors = int(whole.n[0].sum()), int(whole.errors[0])
    return SystemScore(
        n_systems=int((whole.system_n[0] > 0).sum()),
        balanced_accuracy=_number(whole.system_balanced[0]),
        interval=spread.resampled("system_balanced", spread.agreeing),
        accuracy=_number(whole.system_accuracy[0]),
        accuracy_interval=spread.share("system_accuracy", n, spread.n_units),
        n_errors=n_errors,
        n_errors_within=int(whole.errors_within[0]),
        within=_number(whole.within[0]),
        within_interval=spread.share("within", n_errors, min(n_errors, spread.n_units)),
    )


def _features(k: int, *, with_second: bool = False, systems: Sequence[int] | None = None) -> Ints:
    """Return what an image of each cell adds (cells, F): to n, hits, called, top 2, systems."""
    true, pred = (part.ravel() for part in np.indices((k, k)))
    one = np.eye(k, dtype=np.int64)
    right = (true == pred)[:, None]
    parts = [one[true], one[true] * right, one[pred], np.zeros((k * k, 1), np.int64)]
    if systems is not None:
        of = np.asarray(systems, np.int64)
        unit = np.eye(int(of.max()) + 1 if len(of) else 0, dtype=np.int64)
        parts += [unit[of[true]], unit[of[true]] * (of[true] == of[pred])[:, None]]
    found = np.hstack(parts)
    if not with_second:
        return found
    helped = found.copy()
    helped[:, 3 * k] = 1
    return np.vstack([found, helped])


def _units_holding(units: Ints, true: Ints, k: int) -> Ints:
    if not len(units):
        return np.zeros(k, np.int64)
    pairs = np.unique(units * k + true)
    return np.bincount(pairs % k, minlength=k)


def _harmonic(counts: Ints, n_units: int) -> float:
    """Return how many units in one pot tell as much as these class by class, at most all."""
    held = counts[counts > 0]
    return min(float(len(held) ** 2 / (1 / held).sum()), float(n_units)) if len(held) else 0.0


def _ratio(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return found


def _nan_mean(values: Floats) -> Floats:
    there = np.isfinite(values)
    return _ratio(np.where(there, values, 0.0).sum(-1), there.sum(-1).astype(np.float64))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
