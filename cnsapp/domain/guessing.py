"""How well can labels be guessed from something that should not tell, and is that more than chance?

Small classifiers, judged on groups that they did not learn from, beside the same with shuffled
labels. Two forms: a table of counts for a number or a text, a linear rule for several numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import (
    Floats,
    Interval,
    Ints,
    percentiles,
    resampled_sums,
    widened,
)

N_SHUFFLES = 999
AT_ONCE = 4_000_000  # numbers held while shuffles are counted
SHRINKAGE = 0.1  # of the covariance towards a round one
Check = Callable[[], None]
Answers = Callable[[Ints], Ints]  # labels (S, N) -> what is said of them out of fold (S, N)


@dataclass(frozen=True)
class Guessed:
    """How well labels can be guessed.

    Attributes
    ----------
    n, n_units, n_classes
        Images, what was shuffled and held out together (groups, else images), classes.
    balanced_accuracy, interval
        Mean recall over the classes, 0 to 1, out of fold; its 95 % interval by units, or None.
    chance
        1 / `n_classes`.
    null_high
        What 95 of 100 shuffles stay below.
    p
        One-sided: how often shuffled labels are guessed as well; at least 1 / (shuffles + 1).
    n_shuffles
        Shuffles that were drawn.
    predicted
        (N,) class that was said of each image out of fold.
    """

    n: int
    n_units: int
    n_classes: int
    balanced_accuracy: float
    interval: Interval | None
    chance: float
    null_high: float
    p: float
    n_shuffles: int
    predicted: Ints

    @property
    def skill(self) -> float:
        """Part of the way from chance to always right, below 0 where worse than chance."""
        return (self.balanced_accuracy - self.chance) / (1 - self.chance)


def guess(
    answers: Answers,
    labels: NDArray[np.integer],
    units: Ints,
    *,
    seed: int = 0,
    n_shuffles: int = N_SHUFFLES,
    check: Check = lambda: None,
) -> Guessed:
    """Compare how well labels are guessed with how well shuffled labels are.

    Parameters
    ----------
    answers
        Says what is guessed, out of fold, for each row of labels: `by_table` or `by_line`.
    labels
        (N,) class indices, 0 to K - 1, each of them present, K at least 2.
    units
        (N,) what was held out together (see `shuffled`).
    check
        Called between parts of the work; raises to stop.

    Raises
    ------
    ValueError
        Fewer than two classes.

    References
    ----------
    Ojala and Garriga, Permutation tests for studying classifier performance, JMLR 2010; Phipson
    and Smyth, Permutation p-values should never be zero, 2010.
    """
    y = np.asarray(labels, np.int64)
    k = int(y.max(initial=-1)) + 1
    if k < 2:
        raise ValueError(f"labels hold {k} classes, not 2 or more")
    predicted = answers(y[None])[0]
    found = float(_balanced(y[None], predicted[None], k)[0])
    generator = np.random.default_rng(seed)
    null: list[float] = []
    while len(null) < n_shuffles:
        check()
        step = min(max(1, AT_ONCE // len(y)), 100, n_shuffles - len(null))
        rows = shuffled(y, units, step, generator)
        null.extend(_balanced(rows, answers(rows), k).tolist())
    drawn = np.array(null)
    return Guessed(
        n=len(y),
        n_units=len(np.unique(units)),
        n_classes=k,
        balanced_accuracy=found,
        interval=_interval(y, predicted, units, k, found),
        chance=1 / k,
        null_high=float(np.quantile(drawn, 0.95)),
        p=float((1 + (drawn >= found - 1e-12).sum()) / (len(drawn) + 1)),
        n_shuffles=len(drawn),
        predicted=predicted,
    )


def shuffled(labels: Ints, units: Ints, n: int, generator: np.random.Generator) -> Ints:
    """Return labels shuffled `n` times (n, N): each unit takes over the labels of another.

    Labels are shuffled within units, then whole units change places; one that is larger than the
    one whose labels it takes over repeats them. So neither patients nor images tell a label any
    more, while labels still come in runs as they did: many images of few patients are no many
    witnesses. With few units few orders differ, and no small p-value comes of it.

    Parameters
    ----------
    labels
        (N,) class indices.
    units
        (N,) numbers of what changes places as a whole.

    References
    ----------
    Winkler et al., Multi-level block permutation, NeuroImage 2015.
    """
    numbers = np.unique(units, return_inverse=True)[1]
    sizes = np.bincount(numbers)
    starts = np.cumsum(sizes) - sizes
    place = np.argsort(numbers, kind="stable")
    within = np.arange(len(labels)) - np.repeat(starts, sizes)
    found = np.empty((n, len(labels)), np.int64)
    for row in found:
        mixed = np.lexsort((generator.random(len(labels)), numbers))
        source = np.repeat(generator.permutation(len(sizes)), sizes)
        row[place] = labels[mixed[starts[source] + within % sizes[source]]]
    return found


def by_table(cells: Ints, folds: Ints, n_classes: int) -> Answers:
    """Guess by a table: of each cell the class that holds the largest share of its own images.

    Parameters
    ----------
    cells
        (N,) cell of each image, from 0 (see `cnsapp.domain.shortcuts`).
    folds
        (N,) fold of each image, from 0.

    Notes
    -----
    Classes count alike, however many images they have. A cell that no training image fell into
    says always the same class, which is chance.
    """
    n_cells = int(cells.max(initial=0)) + 1

    def answers(labels: Ints) -> Ints:
        found = np.zeros(labels.shape, np.int64)
        s = len(labels)
        row = np.arange(s)[:, None] * (n_cells * n_classes)
        for fold in np.unique(folds):
            test = folds == fold
            flat = row + cells[~test] * n_classes + labels[:, ~test]
            counts = np.bincount(flat.ravel(), minlength=s * n_cells * n_classes)
            table = counts.reshape(s, n_cells, n_classes).astype(np.float64)
            table /= np.maximum(table.sum(1, keepdims=True), 1)
            found[:, test] = table.argmax(2)[:, cells[test]]
        return found

    return answers


def by_line(x: NDArray[np.floating], folds: Ints, n_classes: int) -> Answers:
    """Guess by linear discriminants of equal classes, from standardised numbers.

    Parameters
    ----------
    x
        (N, D) finite numbers.
    folds
        (N,) fold of each image, from 0.

    Notes
    -----
    The covariance is shrunk a tenth of the way to a round one. Means and covariance come from the
    training images alone.

    References
    ----------
    Friedman, Regularized discriminant analysis, JASA 1989.
    """
    parts = [_Part(np.asarray(x, np.float64), folds == fold) for fold in np.unique(folds)]

    def answers(labels: Ints) -> Ints:
        found = np.zeros(labels.shape, np.int64)
        for part in parts:
            for row, said in zip(labels, found, strict=True):
                said[part.test] = part.says(row, n_classes)
        return found

    return answers


class _Part:
    """One fold: what does not hang on the labels is computed once."""

    def __init__(self, x: Floats, test: NDArray[np.bool_]) -> None:
        self.test, self.train = test, ~test
        mean, std = x[~test].mean(0), x[~test].std(0)
        z = (x - mean) / np.where(std > 1e-12, std, 1.0)
        self.learnt, self.asked = z[~test], z[test]
        self.total = self.learnt.T @ self.learnt

    def says(self, labels: Ints, k: int) -> Ints:
        y = labels[self.train]
        ones = np.zeros((k, len(y)))
        ones[y, np.arange(len(y))] = 1.0
        n = ones.sum(1)
        means = (ones @ self.learnt) / np.maximum(n, 1)[:, None]
        within = (self.total - (means * n[:, None]).T @ means) / max(len(y) - k, 1)
        d = len(within)
        round_one = np.trace(within) / d
        within = (1 - SHRINKAGE) * within + (SHRINKAGE * round_one + 1e-9) * np.eye(d)
        slopes = np.linalg.solve(within, means.T)  # (D, K)
        scores = self.asked @ slopes - 0.5 * (means.T * slopes).sum(0)
        scores[:, n == 0] = -np.inf
        return np.asarray(scores.argmax(1), np.int64)


def _balanced(labels: Ints, said: Ints, k: int) -> Floats:
    """Return the mean recall of each row (S,), over the classes that it holds."""
    s = len(labels)
    flat = np.arange(s)[:, None] * k + labels
    n = np.bincount(flat.ravel(), minlength=s * k).reshape(s, k)
    hits = np.bincount(flat[labels == said], minlength=s * k).reshape(s, k)
    found: Floats = (hits / np.maximum(n, 1)).sum(1) / (n > 0).sum(1)
    return found


def _interval(y: Ints, said: Ints, units: Ints, k: int, value: float) -> Interval | None:
    numbers = np.unique(units, return_inverse=True)[1].astype(np.int64)
    sums = resampled_sums(numbers, 2 * y + (said == y), 2 * k)
    if sums is None:
        return None
    tables = sums.reshape(len(sums), k, 2)
    n = tables.sum(2)
    recalls = np.divide(tables[:, :, 1], n, out=np.full(n.shape, np.nan), where=n > 0)
    there = np.isfinite(recalls)
    drawn = np.where(there, recalls, 0).sum(1) / np.maximum(there.sum(1), 1)
    n_units = float(len(np.unique(units)))
    return widened(percentiles(drawn, n_units), value, n_units)
