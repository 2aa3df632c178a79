"""What can be expected of suggestions, from images that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.calibration import expected_calibration_error
from cnsapp.domain.metrics import Evaluation, wilson_interval

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)
FEW = 20  # held-out images above a threshold from which its error is told as more than a hint


def threshold_table(
    sure: NDArray[np.floating],
    right: NDArray[np.bool_],
    open_sure: NDArray[np.floating],
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[dict[str, Any]]:
    """Return what accepting every suggestion from a confidence on would do.

    Parameters
    ----------
    sure, right
        (L,) confidence of each held-out image, 0 to 1, and whether its guess was right.
    open_sure
        (U,) confidence of each image without a label.
    thresholds
        Lowest confidences to tell of.

    Returns
    -------
    One row a threshold: `n_open` images without a label at or above it; `n` held-out ones, `wrong`
    of them, their share `error` (None without any) and its 95 % Wilson interval.
    """
    rows = []
    for threshold in thresholds:
        above = sure >= threshold
        n, wrong = int(above.sum()), int((above & ~right).sum())
        rows.append(
            {
                "threshold": threshold,
                "n_open": int((open_sure >= threshold).sum()),
                "n": n,
                "wrong": wrong,
                "error": wrong / n if n else None,
                "interval": wilson_interval(wrong, n),
            }
        )
    return rows


def figures_of(
    found: Evaluation,
    chances: NDArray[np.floating],
    y: NDArray[np.integer],
    open_sure: NDArray[np.floating],
    class_ids: Sequence[int],
) -> dict[str, Any]:
    """Return the figures of a refresh as plain data.

    `chances` (L, K) and `y` (L,) are of the held-out images, `open_sure` (U,) the confidences of
    the images without a label.
    """
    right = chances.argmax(axis=1) == y
    return {
        "n": found.n,
        "n_groups": found.n_groups,
        "balanced_accuracy": found.balanced_accuracy,
        "balanced_accuracy_interval": list(found.interval) if found.interval else None,
        "interval_by": found.interval_by,
        "accuracy": found.accuracy,
        "accuracy_interval": list(wilson_interval(int(right.sum()), len(y)) or ()) or None,
        "calibration_error": expected_calibration_error(chances, y),
        "per_class": [
            {"class_id": int(c), "n": int((y == k).sum()), "right": int((right & (y == k)).sum())}
            for k, c in enumerate(class_ids)
        ],
        "thresholds": threshold_table(chances.max(axis=1, initial=0.0), right, open_sure),
    }
