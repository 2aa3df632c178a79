"""What the newest labels make a quick head think of every image: the suggestions.

Lighter than a quick model (`quick`), because it follows the labels every few seconds: one view of
each image, one strength of regularisation, no controls. What it says of labelled images, and every
figure, comes from heads that saw neither the image nor its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.calibration import fit_temperature, softmax
from cnsapp.domain.splits import grouped_folds
from cnsapp.ml.heads import class_weights, fit_heads, standardiser

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
STRENGTH = 0.01  # the middle one of those that a quick model chooses among
N_FOLDS = 5
MOST_LEARNT = 6_000  # labels that a refresh learns from: more change little and take their time
MOST_MEASURED = 20_000  # images whose spread standardises the columns
AT_ONCE = 16_384  # rows turned into 32-bit numbers at a time
NEVER = -1e4
"""Logit of a class that the training images of a fold did not contain: probability 0."""


@dataclass(frozen=True)
class Guesses:
    """What a head thinks of all images of a project.

    Attributes
    ----------
    probabilities
        (N, K) calibrated; of labelled images that could be held out, out of fold.
    held_out
        (L, K) calibrated probabilities of the labelled images for judging: each fold scaled by the
        temperature of the others; NaN rows where an image could not be held out.
    temperature
        Of `probabilities`.
    scheme
        How the folds were made.
    n_learnt
        Labels that the heads were fitted to: a sample where there are very many.
    """

    probabilities: Doubles
    held_out: Doubles
    temperature: float
    scheme: str
    n_learnt: int


def suggest(
    features: NDArray[np.floating],
    labelled: Ints,
    labels: Ints,
    n_classes: int,
    *,
    groups: Sequence[str | None] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Guesses:
    """Guess the class of every image from those that are labelled.

    Parameters
    ----------
    features
        (N, D) what the head reads of each image, finite, 16 or 32 bits.
    labelled
        (L,) which of them have a label, L >= 2.
    labels
        (L,) class of each, 0 to `n_classes` - 1, at least two of them present.
    n_classes
        K.
    groups, names
        Of the labelled images: folds are made as for a quick model.
    seed
        Of the folds.

    Raises
    ------
    ValueError
        Fewer than two classes have labels.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("two classes or more must have labels")
    random = np.random.default_rng(seed)
    measured = _some(np.arange(len(features)), MOST_MEASURED, random)
    mean, std = standardiser(features[measured].astype(np.float32))
    plan = grouped_folds(labels, groups, n_folds=N_FOLDS, seed=seed, names=names)
    learnt = _learnt(labels, random)  # places in `labelled`
    y, folds = labels[learnt], plan.folds[learnt]
    known = (features[labelled[learnt]].astype(np.float32) - mean) / std
    axes = _row_space(known)
    # no folds at all where one group has everything: then nothing can be held out
    problems = [folds != fold for fold in range(plan.n_folds)] + [np.ones(len(y), bool)]
    heads = _fit(np.asarray(known @ axes, np.float32), y, problems, n_classes)
    logits = np.full((len(labels), n_classes), np.nan)
    for fold in range(plan.n_folds):
        test = plan.folds == fold
        seen = y[problems[fold]]
        if len(np.unique(seen)) > 1:
            rows = features[labelled[test]]
            logits[test] = _apply(rows, mean, std, axes, heads[fold], seen)
            logits[test & ~np.isin(labels, seen)] = np.nan  # its class was never shown to the head
    held = np.isfinite(logits).all(axis=1)
    temperature, judged = _calibrated(logits, labels, plan.folds, learnt[held[learnt]], held)
    probabilities = softmax(_apply(features, mean, std, axes, heads[-1], y), temperature)
    probabilities[labelled[held]] = softmax(logits[held], temperature)
    return Guesses(probabilities, judged, temperature, plan.scheme, len(learnt))


def _some(items: Ints, most: int, random: np.random.Generator) -> Ints:
    """Return at most so many of the items, in their order."""
    if len(items) <= most:
        return items
    return np.sort(random.choice(items, most, replace=False))


def _learnt(labels: Ints, random: np.random.Generator) -> Ints:
    """Return the places of the labels that heads are fitted to: of many, rare classes whole."""
    if len(labels) <= MOST_LEARNT:
        return np.arange(len(labels))
    counts = np.bincount(labels)
    low, high = 1, int(counts.max())
    while low < high:  # the most of each class that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= MOST_LEARNT else (
            low, middle - 1,
        )  # fmt: skip
    parts = [_some(np.flatnonzero(labels == c), low, random) for c in np.unique(labels)]
    return np.sort(np.concatenate(parts))


def _fit(
    z: Floats, y: Ints, problems: Sequence[NDArray[np.bool_]], n_classes: int
) -> list[tuple[Floats, Floats]]:
    """Return the head of each problem, which sees the rows of its mask."""
    row_weights = np.zeros((len(problems), len(y)), np.float32)
    for row, train in zip(row_weights, problems, strict=True):
        if train.any():
            row[train] = class_weights(y[train], n_classes)
    strengths = np.full(len(problems), STRENGTH, np.float32)
    return list(zip(*fit_heads(z, y, row_weights, strengths, n_classes), strict=True))


def _calibrated(
    logits: Doubles, labels: Ints, folds: Ints, fitted: Ints, held: NDArray[np.bool_]
) -> tuple[float, Doubles]:
    """Return the temperature of all, and held-out chances (L, K) without a fold's own temperature.

    `fitted` are the places that temperatures are fitted to.
    """
    # what no fold could judge (a class of one group) is not calibrated by itself
    temperature = fit_temperature(logits[fitted], labels[fitted]) if len(fitted) else 1.0
    judged = np.full(logits.shape, np.nan)
    for fold in np.unique(folds[held]):
        mine, others = held & (folds == fold), fitted[folds[fitted] != fold]
        judged[mine] = softmax(logits[mine], fit_temperature(logits[others], labels[others]))
    return temperature, judged


def _row_space(known: Floats) -> Floats:
    """Return axes (D, R) that hold all that the labelled rows (L, D) say, R <= min(L, D).

    A penalised head never leaves them, so that fitting in fewer numbers gives the same head.
    """
    if len(known) >= known.shape[1]:
        return np.eye(known.shape[1], dtype=np.float32)
    axes, _ = np.linalg.qr(known.T)
    return np.asarray(axes, np.float32)


def _apply(
    rows: NDArray[np.floating],
    mean: Floats,
    std: Floats,
    axes: Floats,
    head: tuple[Floats, Floats],
    seen: Ints,
) -> Doubles:
    """Return the logits of rows (N, D), part by part: all at once would fill the memory."""
    weight, bias = head
    direct = (axes @ weight.T) / std[:, None]  # (D, K)
    shift = bias - mean @ direct
    logits = np.empty((len(rows), len(bias)), np.float64)
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        logits[part] = rows[part].astype(np.float32) @ direct + shift
    logits[:, np.setdiff1d(np.arange(len(bias)), seen)] = NEVER
    return logits
