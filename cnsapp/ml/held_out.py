"""The folds of a quick model: every image predicted by a head that saw neither it nor its group.

Which head a fold gets, and how strongly it is regularised, is chosen inside its own training images
(nested), so that the score is not tuned on itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.calibration import fit_temperature
from cnsapp.domain.metrics import balanced_accuracy, confusion_matrix
from cnsapp.domain.splits import BY_GROUP, FoldPlan, grouped_folds
from cnsapp.domain.together import says_whose
from cnsapp.ml.head_families import (
    Family,
    KernelFamily,
    Linear,
    LinearFamily,
    MlpFamily,
    Reading,
)
from cnsapp.ml.head_kinds import Head
from cnsapp.ml.heads import class_weights, standardiser
from cnsapp.ml.heads_mlp import Mlps

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
NEVER = -1e4
"""Logit of a class that the training images of a fold did not contain: probability 0."""
ONE_STANDARD_ERROR = 1.0
FEWEST = 60
"""Training images from which on a choice among kinds of head is more than noise."""

T = TypeVar("T")


@dataclass(frozen=True)
class QuickOptions:
    """Choices of a quick model.

    Attributes
    ----------
    stages
        Backbone stages that the head reads; None takes the backbone's own choice from the caller.
    head
        `linear`, `kernel` or `mlp`, or `auto`: the simplest of those within one standard error of
        the best, by cross-validation by group among the training images of each fold.
    strengths
        Inverse penalties C of the linear head to choose among, rising.
    extra_view_share
        Share of an image's weight in training that its jittered views carry together, 0 to 1.
    n_folds, n_inner_folds
        Outer folds for the score, inner folds for the choice.
    scheme
        `by group`, `by file-name blocks`, `random`, or None: groups if any, else blocks. Not used
        where the folds are given.
    threshold
        Confidence in 0 to 1 below which the model says "unsure".
    predict_views
        Views averaged at prediction, and in every figure.
    last_layer_control
        Also score the usual linear probe on the last layer (some seconds more).
    """

    stages: tuple[str, ...] | None = None
    head: str = "auto"
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


@dataclass(frozen=True)
class Candidate:
    """A head to choose: a family and the position of one of its settings."""

    family: Family
    place: int

    @property
    def setting(self) -> float:
        """How strongly it is regularised, in the family's own measure."""
        return self.family.settings[self.place]


def candidates_of(
    options: QuickOptions, n_images: int, groups: Sequence[str | None] | None
) -> list[Candidate]:
    """Return the heads to choose among, the simplest first.

    `auto` means `linear` where a fold would learn from fewer than `FEWEST` images, and where no
    image has a group: folds that tear slides apart favour a head that learns slides by heart (on
    colorectal tiles kernel and MLP led by 0.03 on random folds and fell behind on unseen slides).
    """
    families: list[Family] = [LinearFamily(options.strengths), KernelFamily(), MlpFamily()]
    learnt_from = n_images * (1 - 1 / options.n_folds)
    can_tell = learnt_from >= FEWEST and any(map(says_whose, groups or []))
    wish = "linear" if options.head == "auto" and not can_tell else options.head
    chosen = [family for family in families if wish in ("auto", family.kind)]
    return [Candidate(family, i) for family in chosen for i in range(len(family.settings))]


class HeldOut:
    """The state of one training: what each held-out fold said, under every candidate.

    Parameters
    ----------
    x
        (N, V, D) features that the head learns from; view 0 is the clean one.
    labels
        (N,) class indices, 0 to `n_classes` - 1.
    groups, names
        Group and file name of each image, or None.
    plan
        The outer folds.
    answered
        (N, W, D) features of the views that are averaged at prediction; None answers by the clean
        view alone.
    pictures
        Key that near-duplicates share, for the inner folds, or None.

    Attributes
    ----------
    candidates
        The heads to choose among, the simplest first.
    logits
        (N, K) of each image, under the candidate chosen without its fold; NaN where an image is not
        predicted.
    all_logits
        (C, N, K) of each image under every candidate.
    chosen
        (N,) position of the candidate that `logits` come from; -1 where an image is not predicted.
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
        *,
        answered: Floats | None = None,
        pictures: Sequence[Hashable | None] | None = None,
    ) -> None:
        self.x, self.labels, self.n_classes = x, labels, n_classes
        self.groups, self.names, self.plan, self.pictures = groups, names, plan, pictures
        self.options, self.seed = options, seed
        self.answered = x[:, :1] if answered is None else answered
        self.candidates = candidates_of(options, len(labels), groups)
        shape = (len(self.candidates), len(labels), n_classes)
        self.all_logits = np.full(shape, np.nan)  # of every candidate: for the final choice only
        self.logits = np.full(shape[1:], np.nan)  # of the one chosen without this fold
        self.chosen = np.full(len(labels), -1)

    def hold_out(self, fold: int) -> None:
        """Fit on the other folds (choosing the head among them) and predict this one."""
        train = np.flatnonzero(self.plan.folds != fold)
        test = np.flatnonzero(self.plan.folds == fold)
        y = self.labels[train]
        mean, std = standardiser(self.x[train].reshape(-1, self.x.shape[2]))
        z = (self.x[train] - mean) / std
        z_train, z_test = (self.answered[train] - mean) / std, (self.answered[test] - mean) / std
        inner = self._inner_folds(train)
        held = np.full((len(self.candidates), len(train), self.n_classes), np.nan)
        start = 0
        for family in dict.fromkeys(candidate.family for candidate in self.candidates):
            part = slice(start, start + len(family.settings))
            held[part], found = self._family(family, z, y, inner, z_train, z_test)
            self.all_logits[part, test] = self._mask_absent(found, self.labels[test], y)
            start = part.stop
        best = self._choose(held, train)
        self.logits[test] = self.all_logits[best, test]
        self.chosen[test] = best

    def _inner_folds(self, train: Ints) -> FoldPlan:
        groups, scheme = pick(self.groups, train), self.plan.scheme
        return grouped_folds(
            self.labels[train], groups, n_folds=self.options.n_inner_folds, seed=self.seed,
            names=pick(self.names, train),
            # this fold may hold every image that has a group: the rest then goes by file names
            scheme=None if scheme == BY_GROUP and not any(groups or []) else scheme,
            pictures=pick(self.pictures, train),
        )  # fmt: skip

    def _family(
        self,
        family: Family,
        z: Floats,
        y: Ints,
        inner: FoldPlan,
        z_train: Floats,
        z_test: Floats,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return logits (S, n, K) of the training images, held out, and (S, m, K) of the others."""
        n, v, d = z.shape
        s, k = len(family.settings), inner.n_folds
        reading = family.reading(z[:, 0], y, self.seed)
        masks = [inner.folds != fold for fold in range(k)] + [np.ones(n, bool)]
        rows = np.stack([self._weights(y, mask, v) for mask in masks])  # (k + 1, n v)
        fitted = family.fit(
            reading(z.reshape(-1, d)), np.repeat(y, v), np.repeat(rows, s, axis=0),
            np.tile(np.asarray(family.settings, np.float32), len(masks)), self.n_classes, self.seed,
        )  # fmt: skip
        held = np.full((s, n, self.n_classes), np.nan)
        for fold in range(k):
            out = np.flatnonzero(inner.folds == fold)
            logits = _mean_logits(fitted, reading, z_train[out], slice(fold * s, (fold + 1) * s))
            held[:, out] = self._mask_absent(logits, y[out], y[inner.folds != fold])
        return held, _mean_logits(fitted, reading, z_test, slice(k * s, (k + 1) * s))

    def _weights(self, y: Ints, mask: NDArray[np.bool_], n_views: int) -> Floats:
        weight = np.zeros(len(y), np.float32)
        weight[mask] = class_weights(y[mask], self.n_classes)
        return (weight[:, None] * view_shares(n_views, self.options.extra_view_share)).ravel()

    def _mask_absent(
        self, logits: NDArray[np.float64], y_out: Ints, y_train: Ints
    ) -> NDArray[np.float64]:
        """Rule out classes that training did not see; an image of such a class is not scored."""
        absent = np.setdiff1d(np.arange(self.n_classes), y_train)
        out = logits.copy()
        out[..., absent] = NEVER
        out[..., np.isin(y_out, absent), :] = np.nan
        return out

    def score_so_far(self) -> float | None:
        """Return the balanced accuracy over the images predicted so far."""
        return balanced(self.logits, self.labels, self.n_classes)

    def final(self) -> Candidate:
        """Choose the published head by all outer folds."""
        return self.candidates[self.final_place()]

    def final_place(self) -> int:
        """Return the position of the published head among the candidates."""
        return self._choose(self.all_logits, np.arange(len(self.labels)))

    def _choose(self, held: NDArray[np.float64], rows: Ints) -> int:
        middle = len(self.candidates[0].family.settings) // 2
        groups = pick(self.groups, rows)
        return choose(held, self.labels[rows], self.n_classes, groups, middle)

    def rescale(self) -> None:
        """Bring what different candidates said to the scale of the published one.

        One temperature then fits them all. Which class is the likeliest stays as it is.
        """
        final = self.final_place()
        for place in np.unique(self.chosen[self.chosen >= 0]):
            if place != final:
                mine = self.chosen == place
                self.logits[mine] *= self._temperature(final) / self._temperature(int(place))

    def _temperature(self, place: int) -> float:
        scored = ~np.isnan(self.all_logits[place]).any(1)
        return fit_temperature(self.all_logits[place, scored], self.labels[scored])

    def fit_final(self) -> Head:
        """Fit the published head to all images."""
        n, v, d = self.x.shape
        final = self.final()
        mean, std = standardiser(self.x.reshape(-1, d))
        z = (self.x - mean) / std
        reading = final.family.reading(z[:, 0], self.labels, self.seed)
        fitted = final.family.fit(
            reading(z.reshape(-1, d)), np.repeat(self.labels, v),
            self._weights(self.labels, np.ones(n, bool), v)[None],
            np.array([final.setting], np.float32), self.n_classes, self.seed,
        )  # fmt: skip
        return final.family.head(mean, std, reading, fitted)


def _mean_logits(
    fitted: Linear | Mlps, reading: Reading, z: Floats, problems: slice
) -> NDArray[np.float64]:
    """Return logits (P, n, K) averaged over the views of standardised rows (n, W, D)."""
    n, w, d = z.shape
    logits = fitted.logits(reading(z.reshape(-1, d)), problems)  # (P, n W, K)
    return np.asarray(logits.reshape(len(logits), n, w, -1).mean(2, dtype=np.float64))


def choose(
    held: NDArray[np.float64],
    y: Ints,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    otherwise: int = 0,
) -> int:
    """Return the position of the best candidate.

    The best balanced accuracy wins, unless a simpler candidate is within one standard error of it
    (of the difference on the same images): the simpler model holds better on new slides.

    Parameters
    ----------
    held
        (C, N, K) held-out logits under each candidate, the simplest first; NaN rows are left out.
    y
        (N,) class indices.
    groups
        Of each image: images of one group err together, which the standard error respects.
    otherwise
        Returned where no score is defined.

    References
    ----------
    Breiman et al., Classification and regression trees, 1984 (the rule of one standard error).
    """
    found = [balanced(logits, y, n_classes) for logits in held]
    if any(score is None for score in found):
        return otherwise
    scores = np.array(found, np.float64)
    best = int(scores.argmax())
    scored = np.flatnonzero(~np.isnan(held).any(axis=(0, 2)))
    truth, own = y[scored], pick(groups, scored)
    hits = (held[:, scored].argmax(2) == truth).astype(np.float64)  # (C, n)
    for place, score in enumerate(scores):
        error = standard_error(hits[best] - hits[place], truth, own)
        if scores[best] - score <= ONE_STANDARD_ERROR * error:
            return place
    return best


def standard_error(
    values: NDArray[np.float64], y: Ints, groups: Sequence[str | None] | None = None
) -> float:
    """Return the standard error of a mean over classes of the means of their images.

    Parameters
    ----------
    values
        (N,) of each image: 1 where it was recognised, or the difference between two models.
    y
        (N,) class of each.
    groups
        Images of one group err together; None, or an image without group, is its own.
    """
    classes, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    means = np.bincount(place, values) / counts
    off = (values - means[place]) / (counts[place] * len(classes))  # each image's part of the error
    if groups is None:
        return float(np.sqrt((off**2).sum()))
    own = [group or f"image {i}" for i, group in enumerate(groups)]
    _, unit = np.unique(own, return_inverse=True)
    return float(np.sqrt((np.bincount(unit, off) ** 2).sum()))


def balanced(logits: NDArray[np.float64], y: Ints, n_classes: int) -> float | None:
    """Return the balanced accuracy of logits (N, K); rows of NaN are left out."""
    scored = ~np.isnan(logits).any(1)
    return balanced_accuracy(confusion_matrix(y[scored], logits[scored].argmax(1), n_classes))


def pick(values: Sequence[T] | None, rows: Ints) -> list[T] | None:
    """Return the values at these places; None of None."""
    return None if values is None else [values[i] for i in rows]
