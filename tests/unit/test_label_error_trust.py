"""A model that is hardly better than guessing calls its own errors label errors: that is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cnsapp.domain.errors_left import Progress
from cnsapp.domain.resampling import wilson_interval
from cnsapp.services.label_error_trust import why_doubted
from cnsapp.services.models import ModelView


def model(interval: tuple[float, float] | None, n_classes: int = 4) -> ModelView:
    """Return a model with this interval of its balanced accuracy."""
    metrics: dict[str, Any] = {"balanced_accuracy": 0.375}
    if interval is not None:
        metrics["balanced_accuracy_interval"] = list(interval)
    return cast(ModelView, SimpleNamespace(metrics=metrics, class_ids=list(range(n_classes))))


def looked(n: int, wrong: int) -> Progress:
    """Return how far a review is, of which only the decisions count here."""
    share = wrong / n if n else None
    return Progress(n, wrong, share, wilson_interval(wrong, n), 200 - n, 10.0, 20, 5.0)


@pytest.mark.parametrize(
    ("interval", "n_classes", "doubted"),
    [
        ((0.28, 0.53), 4, True),  # guessing gives 0.25
        ((0.32, 0.53), 4, True),
        ((0.33, 0.53), 4, False),  # a tenth of the way from 0.25 to 1 is 0.325
        ((0.54, 0.80), 2, True),  # guessing gives 0.5
        ((0.56, 0.80), 2, False),
    ],
)
def test_a_model_whose_interval_reaches_down_to_guessing_is_doubted(
    interval: tuple[float, float], n_classes: int, doubted: bool
) -> None:
    said = why_doubted(model(interval, n_classes), 10, 200, looked(0, 0))
    assert bool(said) is doubted
    if doubted:
        assert "not clearly better than guessing" in said and "do not work through" in said
        assert f"{1 / n_classes:.2f}" in said


def test_a_list_that_calls_more_than_half_of_the_labels_wrong_is_doubted() -> None:
    good = model((0.7, 0.8))
    assert "136 of 200 would be wrong" in why_doubted(good, 136, 200, looked(0, 0))
    assert why_doubted(good, 100, 200, looked(0, 0)) == ""
    assert why_doubted(model(None), 90, 200, looked(0, 0)) == ""


def test_a_list_of_which_most_labels_were_wrong_indeed_has_earned_its_trust() -> None:
    poor = model((0.28, 0.53))
    assert why_doubted(poor, 136, 200, looked(20, 19)) == ""
    assert why_doubted(poor, 136, 200, looked(3, 3)) != ""  # too few to tell
    assert why_doubted(poor, 136, 200, looked(20, 8)) != ""
