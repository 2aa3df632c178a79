"""The figures of a model as they are stored and shown: one form for training and for review."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnsapp.domain.metrics import ClassScore, Evaluation, Interval


def scores_json(
    found: Evaluation, class_ids: Sequence[int], names: Sequence[str]
) -> dict[str, Any]:
    """Return the figures as plain data, with None where nothing can be said."""
    shown: dict[str, Any] = {
        "balanced_accuracy": found.balanced_accuracy,
        "balanced_accuracy_interval": _pair(found.interval),
        "interval_by": found.interval_by,
        "accuracy": found.accuracy,
        "accuracy_interval": _pair(found.accuracy_interval),
        "macro_f1": found.macro_f1,
        "macro_f1_interval": _pair(found.macro_f1_interval),
        "kappa": found.kappa,
        "kappa_interval": _pair(found.kappa_interval),
        "mcc": found.mcc,
        "mcc_interval": _pair(found.mcc_interval),
        "n": found.n,
        "n_groups": found.n_groups,
        "per_class": [
            {"class_id": class_id, "name": name, **class_json(score)}
            for class_id, name, score in zip(class_ids, names, found.per_class, strict=True)
        ],
    }
    if found.top2 is not None:
        shown |= {"top2": found.top2, "top2_interval": _pair(found.top2_interval)}
    return shown


def class_json(score: ClassScore) -> dict[str, Any]:
    """Return the figures of one class; `recall_interval_by` says what the interval respects."""
    return {
        "n": score.n,
        "n_groups": score.n_groups,
        "n_predicted": score.n_predicted,
        "recall": score.recall,
        "recall_interval": _pair(score.recall_interval),
        "recall_interval_by": score.interval_by,
        "precision": score.precision,
        "precision_interval": _pair(score.precision_interval),
        "f1": score.f1,
        "f1_interval": _pair(score.f1_interval),
    }


def _pair(interval: Interval | None) -> list[float] | None:
    return list(interval) if interval else None
