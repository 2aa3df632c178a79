"""Figures that follow from a confusion matrix, with intervals from drawing whole groups again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
N_DRAWS = 1000


@dataclass(frozen=True)
class Figures:
    """Balanced accuracy and its parts; intervals cover 95 % and are None where none can be had."""

    balanced_accuracy: float
    balanced_accuracy_interval: tuple[float, float] | None
    accuracy: float
    n: int
    n_groups: int | None
    per_class: list[dict[str, Any]]  # n, recall, recall_interval, precision, f1


def figures(counts: Counts, by_group: Counts | None = None, *, seed: int = 0) -> Figures:
    """Compute the figures of a confusion matrix.

    Parameters
    ----------
    counts
        (K, K): rows are labels, columns predictions.
    by_group
        (G, K, K) with the same sum: one matrix a group (patient, slide). The intervals then come
        from drawing groups; else from drawing images. None for images without groups.
    seed
        Of the draws.

    Returns
    -------
    Figures
        Classes without a labelled image have recall None and take no part in the mean.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap: the percentile interval.
    """
    n = int(counts.sum())
    recall = _recall(counts[None].astype(float))[0]  # (K,)
    draws = _draws(counts, by_group, np.random.default_rng(seed)) if n else None  # (B, K, K)
    drawn = _recall(draws) if draws is not None else None  # (B, K)
    return Figures(
        balanced_accuracy=_mean(recall),
        balanced_accuracy_interval=_interval(_row_means(drawn)) if drawn is not None else None,
        accuracy=float(np.trace(counts) / n) if n else 0.0,
        n=n,
        n_groups=None if by_group is None else len(by_group),
        per_class=[_of_class(counts, k, recall, drawn) for k in range(len(counts))],
    )


def _draws(
    counts: Counts, by_group: Counts | None, generator: np.random.Generator
) -> NDArray[np.float64] | None:
    k = len(counts)
    if by_group is None:
        n = int(counts.sum())
        drawn = generator.multinomial(n, counts.reshape(-1) / n, size=N_DRAWS)
        return drawn.reshape(N_DRAWS, k, k).astype(float)
    groups = len(by_group)
    if groups < 2:
        return None  # one patient says nothing about the next one
    weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=N_DRAWS)
    return (weights @ by_group.reshape(groups, k * k)).reshape(N_DRAWS, k, k).astype(float)


def _recall(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    right = np.diagonal(matrices, axis1=1, axis2=2)  # (B, K)
    return _ratio(right, matrices.sum(axis=2))


def _row_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    found = np.full(part.shape, np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def _mean(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else 0.0


def _interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    there = values[~np.isnan(values)]
    if not len(there):
        return None
    low, high = np.quantile(there, (0.025, 0.975))
    return float(low), float(high)


def _of_class(
    counts: Counts, k: int, recall: NDArray[np.float64], drawn: NDArray[np.float64] | None
) -> dict[str, Any]:
    n, right, said = int(counts[k].sum()), int(counts[k, k]), int(counts[:, k].sum())
    interval = _interval(drawn[:, k]) if drawn is not None and n else None
    return {
        "n": n,
        "recall": float(recall[k]) if n else None,
        "recall_interval": list(interval) if interval else None,
        "precision": right / said if said else None,
        "f1": 2 * right / (n + said) if n + said else None,
    }
