"""What the images most like an image are labelled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]
Ints = NDArray[np.int64]

NEIGHBOURS = 20  # whose labels are asked
NEAREST = 5  # of them, to be told and shown
SHARPNESS = 8.0  # a neighbour's vote counts exp(SHARPNESS * cosine)
AT_ONCE = 4_000_000  # similarities in memory: 16 MB


def neighbour_votes(
    rows: Rows,
    given: Ints,
    n_classes: int,
    of: Ints,
    among: Ints,
    units: Ints | None = None,
) -> tuple[Floats, Ints]:
    """Ask the images most like each image what they are labelled.

    Parameters
    ----------
    rows
        (N, d) unit rows: their product is the similarity.
    given
        (N,) class index of each label.
    of, among
        Indices of the images to ask for (M,), and of those that may be asked. An image never asks
        itself.
    units
        (N,) group of each image: images of its own group are not asked. None: all are.

    Returns
    -------
    Shares of the votes by class (M, K), 0 to 1, rows adding up to 1, weighted by exp(8 cosine); NaN
    where nobody can be asked. And the 5 nearest (M, 5) as indices, -1 where there are fewer.
    """
    votes = np.full((len(of), n_classes), np.nan)
    nearest = np.full((len(of), NEAREST), -1, np.int64)
    k = min(NEIGHBOURS, len(among) - 1)
    if k < 1:
        return votes, nearest
    pool = np.ascontiguousarray(rows[among])
    step = max(1, AT_ONCE // len(among))
    for start in range(0, len(of), step):
        part = slice(start, start + step)
        alike = rows[of[part]] @ pool.T
        alike[of[part][:, None] == among[None, :]] = -np.inf
        if units is not None:
            alike[units[of[part]][:, None] == units[among][None, :]] = -np.inf
        best = np.argpartition(-alike, k - 1, axis=1)[:, :k]
        likeness = np.take_along_axis(alike, best, 1).astype(np.float64)
        by = np.lexsort((best, -likeness), axis=1)  # ties: the lower index
        best, likeness = np.take_along_axis(best, by, 1), np.take_along_axis(likeness, by, 1)
        asked = np.isfinite(likeness)
        nobody = ~asked[:, 0]
        best_of_all = np.where(nobody, 0.0, likeness[:, 0])[:, None]
        weight = np.exp(SHARPNESS * (likeness - best_of_all))  # 0 of those who are not asked
        weight[nobody] = np.nan
        labels = given[among[best]]
        cells = (np.arange(len(labels))[:, None] * n_classes + labels).ravel()
        sums = np.bincount(cells, weights=weight.ravel(), minlength=len(labels) * n_classes)
        votes[part] = sums.reshape(-1, n_classes) / weight.sum(1, keepdims=True)
        shown = min(NEAREST, k)
        nearest[part, :shown] = np.where(asked[:, :shown], among[best[:, :shown]], -1)
    return votes, nearest
