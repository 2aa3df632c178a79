"""Confidences that mean what they say: temperature scaling and its check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import (
    Interval,
    mean_interval,
    percentiles,
    resampled_sums,
    unit_numbers,
    widened,
    wilson_interval,
)

Floats = NDArray[np.float64]

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0


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
    Temperature in 0.05 to 20 that maximises the likelihood; 1.0 with fewer than 10 images, or
    where all classes are equally likely.

    References
    ----------
    Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if len(y) < 10:
        return 1.0
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=1, keepdims=True)
    if not z.any():
        return 1.0
    true = z[np.arange(len(y)), y].mean()

    def slope(beta: float) -> tuple[float, float]:
        """Return the first and second derivative of the loss in beta = 1 / T: it is convex."""
        weight = np.exp(beta * z)
        whole = weight.sum(axis=1)
        weight *= z
        mean = weight.sum(axis=1) / whole
        weight *= z
        return float(mean.mean() - true), float((weight.sum(axis=1) / whole - mean**2).mean())

    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if slope(low)[0] >= 0:
        return MOST_TEMPERATURE
    if slope(high)[0] <= 0:
        return LEAST_TEMPERATURE
    beta = 1.0
    for _ in range(50):  # Newton's steps, halving where one would leave the bracket
        first, second = slope(beta)
        low, high = (beta, high) if first < 0 else (low, beta)
        step = beta - first / second if second > 0 else low
        before, beta = beta, step if low < step < high else (low + high) / 2
        if abs(beta - before) < 1e-6 * before:
            break
    return float(1 / beta)


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


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies in one bin of a reliability diagram.

    `confidence` is their mean confidence and `right` the share of right answers, with its 95 %
    interval: Wilson's, or by group where groups are given. Without images all three are None.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    right: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Reliability:
    """Whether confidences mean what they say.

    Attributes
    ----------
    n, n_groups, interval_by
        Images, their groups, and what the intervals respect.
    bins
        Of equal width, from confidence 0 to 1.
    ece
        Expected calibration error, 0 (best) to 1; None without images. That of few images is too
        high: even a perfect model has one of about 0.4 times the root of bins by images.
    brier, brier_interval
        Mean squared distance of the probabilities from the truth, summed over classes: 0 (best)
        to 2; its interval is by group or image.
    """

    n: int
    n_groups: int | None
    interval_by: str
    bins: list[Bin]
    ece: float | None
    brier: float | None
    brier_interval: Interval | None


def reliability(
    probabilities: NDArray[np.floating],
    y: NDArray[np.integer],
    groups: Sequence[str | None] | None = None,
    *,
    n_bins: int = 15,
    seed: int = 0,
) -> Reliability:
    """Return the reliability diagram of probabilities, with its summaries.

    Parameters
    ----------
    probabilities
        (N, K), rows that add up to 1.
    y
        (N,) true class indices.
    groups
        Group of each image, or None.

    References
    ----------
    Guo et al., On calibration of modern neural networks, ICML 2017; Brier, Verification of
    forecasts expressed in terms of probability, Monthly Weather Review 1950.
    """
    p, true = np.asarray(probabilities, np.float64), np.asarray(y, np.int64)
    by_group = groups is not None and any(groups)
    units = unit_numbers(groups, len(true))
    n_groups = int(units.max()) + 1 if by_group and len(true) else None
    by = "group" if by_group else "image"
    confidence = p.max(axis=1) if len(true) else np.zeros(0)
    right = p.argmax(axis=1) == true if len(true) else np.zeros(0, bool)
    at = np.clip((confidence * n_bins).astype(int), 0, n_bins - 1)
    n = np.bincount(at, minlength=n_bins)
    hits = np.bincount(at[right], minlength=n_bins)
    sure = np.bincount(at, weights=confidence, minlength=n_bins)
    drawn = resampled_sums(units, at * 2 + right, 2 * n_bins, seed=seed) if by_group else None
    bins = []
    for k in range(n_bins):
        share = float(hits[k] / n[k]) if n[k] else None
        spread = wilson_interval(int(hits[k]), int(n[k])) if not by_group else None
        if drawn is not None and n[k]:
            wrong, good = drawn[:, 2 * k], drawn[:, 2 * k + 1]
            whole = np.where(wrong + good > 0, wrong + good, np.nan)
            holding = len(np.unique(units[at == k]))
            spread = widened(percentiles(good / whole, holding), share, holding)
        mean = float(sure[k] / n[k]) if n[k] else None
        bins.append(Bin(k / n_bins, (k + 1) / n_bins, int(n[k]), mean, share, spread))
    off = ((p - np.eye(p.shape[1])[true]) ** 2).sum(1) if len(true) else np.zeros(0)
    return Reliability(
        n=len(true),
        n_groups=n_groups,
        interval_by=by,
        bins=bins,
        ece=expected_calibration_error(p, true, n_bins),
        brier=float(off.mean()) if len(true) else None,
        brier_interval=_within(mean_interval(off, units), 0.0, 2.0),
    )


def _within(interval: Interval | None, least: float, most: float) -> Interval | None:
    """Return an interval without what no figure can be."""
    return interval and (max(interval[0], least), min(interval[1], most))


def unscaled(probabilities: NDArray[np.floating], temperature: float) -> Floats:
    """Return logits (N, K), up to a constant a row, of probabilities made at this temperature.

    Probabilities that were stored as 0 count as half of the last digit that is stored.
    """
    return temperature * np.log(np.maximum(np.asarray(probabilities, np.float64), 5e-7))
