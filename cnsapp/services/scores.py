"""The figures of a model as they are stored and shown: one form for training and for review."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnsapp.domain.metrics import Evaluation


def scores_json(
    found: Evaluation, class_ids: Sequence[int], names: Sequence[str]
) -> dict[str, Any]:
    """Return the figures as plain data, with None where nothing can be said."""
    return {
        "balanced_accuracy": found.balanced_accuracy,
        "balanced_accuracy_interval": list(found.interval) if found.interval else None,
        "interval_by": found.interval_by,
        "accuracy": found.accuracy,
        "n": found.n,
        "n_groups": found.n_groups,
        "per_class": [
            {
                "class_id": class_id,
                "name": name,
                "n": score.n,
                "recall": score.recall,
                "recall_interval": list(score.recall_interval) if score.recall_interval else None,
                "precision": score.precision,
                "f1": score.f1,
            }
            for class_id, name, score in zip(class_ids, names, found.per_class, strict=True)
        ],
    }
