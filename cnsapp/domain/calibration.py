"""Confidences that mean what they say: temperature scaling and its check."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> Floats:
    """Return probabilities (N, K) of logits (N, K) divided by the temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exp = np.exp(scaled)
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def negative_log_likelihood(
    logits: NDArray[np.floating], y: NDArray[np.integer], t: float
) -> float:
    """Return the mean negative log probability (nats) of the true classes at temperature `t`."""
    p = softmax(logits, t)[np.arange(len(y)), y]
    return float(-np.log(np.maximum(p, 1e-12)).mean())


def fit_temperature(logits: NDArray[np.floating], y: NDArray[np.integer]) -> float:
    """Fit one temperature to logits of images that the model was not trained on.

    Parameters
    ----------
    logits
        (N, K), held-out or out-of-fold.
    y
        (N,) true class indices.

    Returns
    -------
    Temperature in 0.05 to 20 that maximises the likelihood; 1.0 with fewer than 10 images.

    References
    ----------
    Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if len(y) < 10:
        return 1.0
    grid = np.geomspace(0.05, 20, 41)
    for _ in range(3):  # three ever finer grids: the likelihood is smooth in log T
        losses = [negative_log_likelihood(logits, y, float(t)) for t in grid]
        best = int(np.argmin(losses))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        grid = np.geomspace(low, high, 11)
    return float(grid[len(grid) // 2])


def cross_fitted_probabilities(
    logits: NDArray[np.floating], y: NDArray[np.integer], folds: NDArray[np.integer]
) -> Floats:
    """Return probabilities whose temperature never saw the images that it scales.

    What a temperature does is to be judged on other images than those that it was fitted to: each
    fold is scaled by the temperature of the other folds.

    Parameters
    ----------
    logits
        (N, K) out-of-fold.
    y
        (N,) true class indices.
    folds
        (N,) fold of each image.

    Returns
    -------
    (N, K) probabilities.
    """
    found = np.empty(logits.shape, np.float64)
    for fold in np.unique(folds):
        held = folds == fold
        found[held] = softmax(logits[held], fit_temperature(logits[~held], y[~held]))
    return found


def expected_calibration_error(
    probabilities: NDArray[np.floating], y: NDArray[np.integer], n_bins: int = 15
) -> float | None:
    """Return the mean gap between confidence and share of right answers, 0 to 1 (0 is best).

    Parameters
    ----------
    probabilities
        (N, K).
    y
        (N,) true class indices.
    n_bins
        Equal-width bins of the confidence.

    Returns
    -------
    The gap weighted by the images in each bin; None without images.

    References
    ----------
    Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if len(y) == 0:
        return None
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y
    bins = np.clip((confidence * n_bins).astype(int), 0, n_bins - 1)
    gap = np.bincount(bins, weights=right - confidence, minlength=n_bins)
    return float(np.abs(gap).sum() / len(y))
