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

from cnsapp.domain.calibration import cross_fitted_probabilities, fit_temperature, softmax
from cnsapp.domain.splits import grouped_folds
from cnsapp.ml.heads import class_weights, fit_heads, standardiser

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
STRENGTH = 0.01  # the middle one of those that a quick model chooses among
N_FOLDS = 5
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
    """

    probabilities: Doubles
    held_out: Doubles
    temperature: float
    scheme: str


def suggest(
    features: Floats,
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
        (N, D) what the head reads of each image, finite.
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
    mean, std = standardiser(features)
    known = (features[labelled] - mean) / std
    axes = _row_space(known)
    z = np.asarray(known @ axes, np.float32)
    plan = grouped_folds(labels, groups, n_folds=N_FOLDS, seed=seed, names=names)
    folds = range(plan.n_folds)  # 0: one group has all of it, and nothing can be held out
    problems = [np.flatnonzero(plan.folds != fold) for fold in folds] + [np.arange(len(labels))]
    row_weights = np.zeros((len(problems), len(labels)), np.float32)
    for row, train in zip(row_weights, problems, strict=True):
        row[train] = class_weights(labels[train], n_classes)
    strengths = np.full(len(problems), STRENGTH, np.float32)
    weights, biases = fit_heads(z, labels, row_weights, strengths, n_classes)
    logits = np.full((len(labels), n_classes), np.nan)
    for k, fold in enumerate(folds):
        test = plan.folds == fold
        logits[test] = _logits(z[test], weights[k], biases[k], labels[problems[k]])
    held = np.isfinite(logits).all(axis=1)
    # what no fold could judge (a class of one group) is not calibrated by itself
    temperature = fit_temperature(logits[held], labels[held]) if held.any() else 1.0
    everything = _apply(features, mean, std, axes, weights[-1], biases[-1], labels)
    probabilities = softmax(everything, temperature)
    probabilities[labelled[held]] = softmax(logits[held], temperature)
    judged = np.full(logits.shape, np.nan)
    if held.any():
        judged[held] = cross_fitted_probabilities(logits[held], labels[held], plan.folds[held])
    return Guesses(probabilities, judged, temperature, plan.scheme)


def _row_space(known: Floats) -> Floats:
    """Return axes (D, R) that hold all that the labelled rows (L, D) say, R <= min(L, D).

    A penalised head never leaves them, so that fitting in fewer numbers gives the same head.
    """
    if len(known) >= known.shape[1]:
        return np.eye(known.shape[1], dtype=np.float32)
    axes, _ = np.linalg.qr(known.T)
    return np.asarray(axes, np.float32)


def _logits(z: Floats, weight: Floats, bias: Floats, seen: Ints) -> Doubles:
    logits = np.asarray(z @ weight.T + bias, np.float64)
    logits[:, np.setdiff1d(np.arange(len(bias)), seen)] = NEVER
    return logits


def _apply(
    features: Floats,
    mean: Floats,
    std: Floats,
    axes: Floats,
    weight: Floats,
    bias: Floats,
    seen: Ints,
) -> Doubles:
    """Return the logits of all images, without a second copy of their features."""
    direct = (axes @ weight.T) / std[:, None]  # (D, K)
    logits = np.asarray(features @ direct + (bias - mean @ direct), np.float64)
    logits[:, np.setdiff1d(np.arange(len(bias)), seen)] = NEVER
    return logits
