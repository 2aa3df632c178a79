"""Whether a list of label errors is worth working through, or mostly the model's own errors."""

from __future__ import annotations

from cnsapp.domain.errors_left import Progress
from cnsapp.services.models import ModelView

NEAR_CHANCE = 0.1  # of the way from guessing to perfect, that the lower end must be beyond
MOST_WRONG = 0.5  # share of the labels that can be wrong in a set that somebody labelled with care
EARNED = 0.5  # lower end of the precision so far, from which the list has shown its worth

WHAT_TO_DO = (
    "What it calls wrong is then mostly the model's own error: do not work through this list. "
    "Train a better model first, with more labels of more groups or another network."
)


def why_doubted(model: ModelView, n_expected: float, n_judged: int, progress: Progress) -> str:
    """Return why a model's list should not be worked through; "" where it may be.

    A model that is not clearly better than guessing, or one that calls more than half of the labels
    wrong, finds its own errors. Where most of the labels looked at were wrong indeed, with all of
    the interval, the list is good whatever the model.
    """
    if progress.interval is not None and progress.interval[0] >= EARNED:
        return ""
    guessing = _near_chance(model)
    if guessing:
        return f"{guessing} {WHAT_TO_DO}"
    if n_judged and n_expected > MOST_WRONG * n_judged:
        return (
            f"The model disagrees with so many labels that {n_expected:,.0f} of {n_judged:,} would "
            f"be wrong. {WHAT_TO_DO}"
        )
    return ""


def _near_chance(model: ModelView) -> str:
    score, bounds = (
        model.metrics.get(key) for key in ("balanced_accuracy", "balanced_accuracy_interval")
    )
    k = len(model.class_ids)
    if k < 2 or not isinstance(score, int | float) or not bounds:
        return ""
    low, high, chance = float(bounds[0]), float(bounds[1]), 1 / k
    if (low - chance) / (1 - chance) >= NEAR_CHANCE:
        return ""
    return (
        f"The model is not clearly better than guessing: balanced accuracy {score:.2f}, 95 % "
        f"interval {low:.2f} to {high:.2f}, where guessing among {k} classes gives {chance:.2f}."
    )
