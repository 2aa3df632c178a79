"""The folds of a quick model: every image predicted by a head that saw neither it nor its group.

How strongly a fold's head is regularised is chosen inside its own training images (nested), so that
the score is not tuned on itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.metrics import balanced_accuracy, confusion_matrix
from cnsapp.domain.splits import BY_GROUP, FoldPlan, grouped_folds
from cnsapp.ml.heads import class_weights, fit_heads, standardiser

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
NEVER = -1e4
"""Logit of a class that the training images of a fold did not contain: probability 0."""
ONE_STANDARD_ERROR = 1.0


@dataclass(frozen=True)
class QuickOptions:
    """Choices of a quick model.

    Attributes
    ----------
    stages
        Backbone stages that the head reads; None takes the backbone's own choice from the caller.
    strengths
        Inverse penalties C to choose among, rising.
    extra_view_share
        Share of an image's weight in training that its jittered views carry together, 0 to 1.
    n_folds, n_inner_folds
        Outer folds for the score, inner folds for the choice.
    scheme
        `by group`, `by file-name blocks`, `random`, or None: groups if any, else blocks.
    threshold
        Confidence in 0 to 1 below which the model says "unsure".
    predict_views
        Views averaged at prediction.
    last_layer_control
        Also score the usual linear probe on the last layer (some seconds more).
    """

    stages: tuple[str, ...] | None = None
    strengths: tuple[float, ...] = (0.003, 0.01, 0.03)
    extra_view_share: float = 0.15
    n_folds: int = 5
    n_inner_folds: int = 3
    scheme: str | None = None
    threshold: float = 0.5
    predict_views: tuple[str, ...] = ("clean",)
    last_layer_control: bool = False


def view_shares(n_views: int, extra: float) -> Floats:
    """Return (V,) weights that sum to 1: the clean view first, the others share `extra`."""
    if n_views == 1:
        return np.ones(1, np.float32)
    return np.array([1 - extra] + [extra / (n_views - 1)] * (n_views - 1), np.float32)


class HeldOut:
    """The state of one training: what each held-out fold said, under every strength.

    Parameters
    ----------
    x
        (N, V, D) features that the head reads; view 0 is the clean one.
    labels
        (N,) class indices, 0 to `n_classes` - 1.
    groups, names
        Group and file name of each image, or None.
    plan
        The outer folds.

    Attributes
    ----------
    logits
        (N, K) of each image, under the strength chosen without its fold; NaN where an image is not
        predicted.
    all_logits
        (C, N, K) of each image under every strength.
    """

    def __init__(
        self,
        x: Floats,
        labels: Ints,
        n_classes: int,
        groups: Sequence[str | None] | None,
        names: Sequence[str] | None,
        plan: FoldPlan,
        options: QuickOptions,
        seed: int,
    ) -> None:
        self.x, self.labels, self.n_classes = x, labels, n_classes
        self.groups, self.names, self.plan = groups, names, plan
        self.options, self.seed = options, seed
        self.strengths = np.asarray(options.strengths, np.float32)
        shape = (len(self.strengths), len(labels), n_classes)
        self.all_logits = np.full(shape, np.nan)  # under every strength: for the final choice only
        self.logits = np.full(shape[1:], np.nan)  # under the strength chosen without this fold

    def hold_out(self, fold: int) -> None:
        """Fit on the other folds (choosing the strength among them) and predict this one."""
        train = np.flatnonzero(self.plan.folds != fold)
        test = np.flatnonzero(self.plan.folds == fold)
        x, y = self.x[train], self.labels[train]
        n, v, d = x.shape
        mean, std = standardiser(x.reshape(-1, d))
        z = (x - mean) / std
        groups, scheme = pick(self.groups, train), self.plan.scheme
        inner = grouped_folds(
            y, groups, n_folds=self.options.n_inner_folds, seed=self.seed,
            names=pick(self.names, train),
            # this fold may hold every image that has a group: the rest then goes by file names
            scheme=None if scheme == BY_GROUP and not any(groups or []) else scheme,
        )  # fmt: skip
        masks = [inner.folds != k for k in range(inner.n_folds)] + [np.ones(n, bool)]
        rows = np.stack([self._weights(y, mask, v) for mask in masks])  # (inner + 1, n v)
        c = len(self.strengths)
        weights, biases = fit_heads(
            z.reshape(-1, d), np.repeat(y, v), np.repeat(rows, c, axis=0),
            np.tile(self.strengths, len(masks)), self.n_classes,
        )  # fmt: skip
        weights = weights.reshape(len(masks), c, self.n_classes, d)
        biases = biases.reshape(len(masks), c, 1, self.n_classes)
        held = np.full((c, n, self.n_classes), np.nan)
        for k in range(inner.n_folds):
            out = np.flatnonzero(inner.folds == k)
            logits = z[out, 0] @ weights[k].transpose(0, 2, 1) + biases[k]
            held[:, out] = self._mask_absent(logits, y[out], y[inner.folds != k])
        best = choose_strength(held, y, self.n_classes)
        z_test = (self.x[test, 0] - mean) / std
        logits = z_test @ weights[-1].transpose(0, 2, 1) + biases[-1]
        self.all_logits[:, test] = self._mask_absent(logits, self.labels[test], y)
        self.logits[test] = self.all_logits[best, test]

    def _weights(self, y: Ints, mask: NDArray[np.bool_], n_views: int) -> Floats:
        weight = np.zeros(len(y), np.float32)
        weight[mask] = class_weights(y[mask], self.n_classes)
        return (weight[:, None] * view_shares(n_views, self.options.extra_view_share)).ravel()

    def _mask_absent(self, logits: Floats, y_out: Ints, y_train: Ints) -> NDArray[np.float64]:
        """Rule out classes that training did not see; an image of such a class is not scored."""
        absent = np.setdiff1d(np.arange(self.n_classes), y_train)
        out = logits.astype(np.float64)
        out[..., absent] = NEVER
        out[..., np.isin(y_out, absent), :] = np.nan
        return out

    def score_so_far(self) -> float | None:
        """Return the balanced accuracy over the images predicted so far."""
        return balanced(self.logits, self.labels, self.n_classes)

    def final_strength(self) -> float:
        """Choose the strength of the published head by all outer folds."""
        return float(self.strengths[choose_strength(self.all_logits, self.labels, self.n_classes)])


def choose_strength(held: NDArray[np.float64], y: Ints, n_classes: int) -> int:
    """Return the position of the best strength.

    The best balanced accuracy wins; among those within one standard error of it, the smallest C:
    the simpler model holds better on new slides.

    Parameters
    ----------
    held
        (C, N, K) held-out logits under each strength, rising; NaN rows are left out.
    y
        (N,) class indices.
    """
    scores = [balanced(logits, y, n_classes) for logits in held]
    if any(score is None for score in scores):
        return len(held) // 2
    best = max(score for score in scores if score is not None)
    n = int((~np.isnan(held[0]).any(1)).sum())
    slack = ONE_STANDARD_ERROR * float(np.sqrt(best * (1 - best) / n))
    return next(i for i, score in enumerate(scores) if score is not None and score >= best - slack)


def balanced(logits: NDArray[np.float64], y: Ints, n_classes: int) -> float | None:
    scored = ~np.isnan(logits).any(1)
    return balanced_accuracy(confusion_matrix(y[scored], logits[scored].argmax(1), n_classes))


def pick(values: Sequence[str | None] | None, rows: Ints) -> list[str] | None:
    return None if values is None else [values[i] for i in rows]
