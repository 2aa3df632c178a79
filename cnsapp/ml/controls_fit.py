"""The classic ways, on the folds of a model: what simpler features and classifiers reach.

Every choice (how strongly, how narrow a kernel) is made inside the training images of a fold, by
the same grouping, and always for the best score: a control is defended as well as it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from cnsapp.domain.metrics import balanced_accuracy, confusion_matrix
from cnsapp.domain.splits import BY_BLOCK, BY_GROUP, RANDOM, FoldPlan, grouped_folds
from cnsapp.ml.heads import class_weights, fit_heads, standardiser
from cnsapp.ml.held_out import pick

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Check = Callable[[], None]

NOT_SCORED = -1
"""Fold of an image that is learnt from and never scored; prediction of one without."""
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
COSTS = (1.0, 10.0, 100.0)
WIDTHS = (0.3, 1.0, 3.0)  # gamma, in units of 1 / number of columns
N_INNER = 3
CHOSEN_ON = 2000  # training images that a kernel's settings are chosen on, at most
LEARNT_ON = 6000  # and that it is fitted to: the time grows with the square
LINEAR_ON = 20_000


@dataclass(frozen=True)
class Task:
    """The images, labels and folds that a model was scored on.

    Attributes
    ----------
    labels
        (N,) class indices, 0 to `n_classes` - 1.
    folds
        (N,) fold in which an image is judged by what has not seen it; -1: only learnt from.
    groups, names
        Group and file name of each image, or None.
    scheme
        How the folds were cut; inner folds are cut likewise.
    pictures
        Key that near-duplicates share, or None: inner folds keep them together.
    """

    labels: Ints
    n_classes: int
    folds: Ints
    groups: Sequence[str | None] | None
    names: Sequence[str] | None
    scheme: str
    seed: int = 0
    pictures: Sequence[Hashable | None] | None = None

    @property
    def scored(self) -> Ints:
        """Positions of the images that are scored."""
        return np.flatnonzero(self.folds != NOT_SCORED)

    def parts(self) -> Iterator[tuple[Ints, Ints]]:
        """Yield the training and the held-out positions of every fold."""
        for fold in np.unique(self.folds[self.scored]):
            yield np.flatnonzero(self.folds != fold), np.flatnonzero(self.folds == fold)

    def inner(self, train: Ints) -> FoldPlan:
        """Return the folds among the training images that settings are chosen by."""
        groups, scheme = pick(self.groups, train), self.scheme
        known = scheme in (BY_BLOCK, RANDOM) or (scheme == BY_GROUP and any(groups or []))
        return grouped_folds(
            self.labels[train], groups, n_folds=N_INNER, seed=self.seed,
            names=pick(self.names, train), scheme=scheme if known else None,
            pictures=None if self.pictures is None else [self.pictures[i] for i in train],
        )  # fmt: skip

    def some(self, rows: Ints, most: int) -> Ints:
        """Return at most `most` of these rows, rare classes whole, the same ones every time."""
        if len(rows) <= most:
            return rows
        generator = np.random.default_rng(self.seed)
        order = generator.permutation(rows)
        rank = np.empty(len(order), np.int64)  # the how-manieth of its class
        for c in range(self.n_classes):
            mine = self.labels[order] == c
            rank[mine] = np.arange(mine.sum())
        return np.sort(order[np.argsort(rank, kind="stable")[:most]])


@dataclass(frozen=True)
class Answer:
    """What a control says: `predicted` (N,) class indices, -1 where it was not asked."""

    predicted: Ints
    rule: str
    settings: list[dict[str, Any]] = field(default_factory=list)  # chosen, one a fold


def majority(task: Task) -> Answer:
    """Always say the commonest class of the training images (the first of equals)."""
    predicted = np.full(len(task.labels), NOT_SCORED)
    for train, test in task.parts():
        counts = np.bincount(task.labels[train], minlength=task.n_classes)
        predicted[test] = int(counts.argmax())
    return Answer(predicted, "always the commonest class")


def logistic(task: Task, x: Floats, what: str, check: Check) -> Answer:
    """Predict by multinomial logistic regression (L2) on standardised features.

    Parameters
    ----------
    x
        (N, D) features, in the order of the task's images.
    what
        What the features are, for the description.
    check
        Called between fits; raises to stop.

    References
    ----------
    Varma and Simon, BMC Bioinformatics 2006: choices are made inside the training part.
    """
    predicted = np.full(len(task.labels), NOT_SCORED)
    strengths = np.array(STRENGTHS, np.float32)
    chosen = []
    for whole, test in task.parts():
        check()
        train = task.some(whole, LINEAR_ON)
        y = task.labels[train]
        mean, std = standardiser(x[train])
        z = ((x[train] - mean) / std).astype(np.float32)
        inner = task.inner(train)
        masks = [inner.folds != k for k in range(inner.n_folds)] + [np.ones(len(y), bool)]
        rows = np.zeros((len(masks), len(y)), np.float32)
        for row, mask in zip(rows, masks, strict=True):
            row[mask] = class_weights(y[mask], task.n_classes)
        c = len(strengths)
        weights, biases = fit_heads(
            z, y, np.repeat(rows, c, axis=0), np.tile(strengths, len(masks)), task.n_classes
        )
        weights = weights.reshape(len(masks), c, task.n_classes, -1)
        biases = biases.reshape(len(masks), c, 1, task.n_classes)
        held = np.full((c, len(y)), NOT_SCORED)
        for k in range(inner.n_folds):
            out = np.flatnonzero(inner.folds == k)
            logits = z[out] @ weights[k].transpose(0, 2, 1) + biases[k]  # (C, n, K)
            held[:, out] = _known(logits, y[inner.folds != k]).argmax(-1)
        best = _best(held, y, task.n_classes) if inner.n_folds else c // 2
        logits = ((x[test] - mean) / std) @ weights[-1, best].T + biases[-1, best]
        predicted[test] = _known(logits, y).argmax(-1)
        chosen.append({"C": float(strengths[best])})
    return Answer(predicted, f"{what}, logistic regression", chosen)


def _known(logits: NDArray[Any], y: Ints) -> NDArray[Any]:
    """Rule out the classes that were not among those learnt from."""
    out = np.array(logits)
    out[..., np.setdiff1d(np.arange(logits.shape[-1]), y)] = -np.inf
    return out


def _best(held: Ints, y: Ints, n_classes: int) -> int:
    """Return the position of the best of (C, n) held-out predictions; the first of equals."""
    asked = held[0] != NOT_SCORED
    tables = (confusion_matrix(y[asked], row[asked], n_classes) for row in held)
    return int(np.argmax([balanced_accuracy(table) or 0.0 for table in tables]))


def kernel_svm(task: Task, x: Floats, what: str, check: Check) -> Answer:
    """Predict by a support vector machine with a Gaussian kernel on standardised features.

    Cost and width of the kernel are chosen by grouped cross-validation inside each training part.
    See `logistic` for the parameters.

    References
    ----------
    Cortes and Vapnik, Support-vector networks, Machine Learning 1995; Hsu, Chang and Lin, A
    practical guide to support vector classification, 2003 (the grid).
    """
    predicted = np.full(len(task.labels), NOT_SCORED)
    grid = [(cost, width) for cost in COSTS for width in WIDTHS]
    chosen = []
    for whole, test in task.parts():
        few = task.some(whole, CHOSEN_ON)
        y, z = task.labels[few], _standardised(x, few, few)
        inner = task.inner(few)
        held = np.full((len(grid), len(few)), NOT_SCORED)
        for k in range(inner.n_folds):
            inside, out = inner.folds != k, inner.folds == k
            for place, (cost, width) in enumerate(grid):
                check()
                held[place, out] = _svm(z[inside], y[inside], cost, width)(z[out])
        cost, width = grid[_best(held, y, task.n_classes) if inner.n_folds else len(grid) // 2]
        train = task.some(whole, LEARNT_ON)
        check()
        answer = _svm(_standardised(x, train, train), task.labels[train], cost, width)
        predicted[test] = answer(_standardised(x, train, test))
        chosen.append({"C": cost, "gamma": width / x.shape[1]})
    return Answer(predicted, f"{what}, support vector machine (RBF kernel)", chosen)


def _standardised(x: Floats, by: Ints, rows: Ints) -> Floats:
    mean, std = standardiser(x[by])
    return ((x[rows] - mean) / std).astype(np.float32)


def _svm(z: Floats, y: Ints, cost: float, width: float) -> Callable[[Floats], Ints]:
    if len(np.unique(y)) < 2:
        return lambda rows: np.full(len(rows), y[0])
    machine = SVC(C=cost, gamma=width / z.shape[1], class_weight="balanced", cache_size=200)
    machine.fit(z, y)
    return lambda rows: np.asarray(machine.predict(rows), np.int64)
