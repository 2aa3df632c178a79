"""Scores against scikit-learn and hand-worked tables."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

from cnsapp.domain.calibration import (
    cross_fitted_probabilities,
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from cnsapp.domain.metrics import bootstrap_interval, evaluate, wilson_interval


def test_scores_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true, pred = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    found = evaluate(true, pred, 4)
    precision, recall, f1, n = precision_recall_fscore_support(true, pred)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, pred))
    assert [c.precision for c in found.per_class] == pytest.approx(precision)
    assert [c.recall for c in found.per_class] == pytest.approx(recall)
    assert [c.f1 for c in found.per_class] == pytest.approx(f1)
    assert [c.n for c in found.per_class] == n.tolist()


def test_a_small_table_worked_by_hand() -> None:
    found = evaluate(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2)
    assert found.confusion == [[2, 1], [0, 1]]
    assert found.accuracy == 0.75
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert found.per_class[1].precision == 0.5


def test_what_is_undefined_is_none_and_not_zero() -> None:
    found = evaluate(np.array([0, 0]), np.array([0, 0]), 3)
    assert found.per_class[1].recall is None
    assert found.per_class[1].precision is None
    assert found.per_class[1].recall_interval is None
    assert found.balanced_accuracy == 1.0
    empty = evaluate(np.zeros(0, int), np.zeros(0, int), 2)
    assert empty.balanced_accuracy is None and empty.interval is None and empty.accuracy is None


def test_wilson_interval_equals_the_textbook_value() -> None:
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(0, 0) is None


def test_the_group_bootstrap_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    groups = [f"g{i // 10}" for i in range(200)]
    true = rng.integers(0, 3, 200)
    pred = np.where(rng.random(200) < 0.7, true, rng.integers(0, 3, 200))
    members = [np.arange(g * 10, g * 10 + 10) for g in range(20)]
    scores = []
    for _ in range(2000):
        rows = np.concatenate([members[g] for g in rng.integers(0, 20, 20)])
        scores.append(balanced_accuracy_score(true[rows], pred[rows]))
    interval = bootstrap_interval(true, pred, 3, groups)
    assert interval == pytest.approx(np.quantile(scores, [0.025, 0.975]), abs=0.012)


def test_images_of_one_group_widen_the_interval() -> None:
    true = np.tile([0, 1], 100)
    pred = np.where(np.arange(200) < 100, true, 1 - true)  # half of the groups all wrong
    groups = [f"g{i // 20}" for i in range(200)]
    low_g, high_g = bootstrap_interval(true, pred, 2, groups) or (0.0, 0.0)
    low_i, high_i = bootstrap_interval(true, pred, 2) or (0.0, 0.0)
    assert high_g - low_g > 3 * (high_i - low_i)


def test_an_interval_needs_two_groups() -> None:
    assert bootstrap_interval(np.array([0, 1]), np.array([0, 1]), 2, ["a", "a"]) is None


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        evaluate(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="lengths"):
        evaluate(np.array([0, 1]), np.array([0]), 2)


def test_temperature_finds_the_factor_that_spoiled_the_logits() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (20_000, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    assert fit_temperature(logits * 3, y) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logits, y) == pytest.approx(1, rel=0.05)
    before = expected_calibration_error(softmax(logits * 3), y)
    after = expected_calibration_error(softmax(logits * 3, 3), y)
    assert before is not None and after is not None
    assert before > 0.1 and after < 0.02


def test_temperature_stays_one_where_nothing_can_be_fitted() -> None:
    assert fit_temperature(np.zeros((3, 2)), np.zeros(3, int)) == 1.0


def test_no_fold_is_scaled_by_a_temperature_that_saw_its_answers() -> None:
    rng = np.random.default_rng(1)
    logits, folds = rng.normal(0, 2, (90, 3)), np.arange(90) % 3
    y = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    turned = np.where(folds == 0, (y + 1) % 3, y)
    before = cross_fitted_probabilities(logits, y, folds)
    after = cross_fitted_probabilities(logits, turned, folds)
    assert (before[folds == 0] == after[folds == 0]).all()
    assert (before[folds == 1] != after[folds == 1]).any()


def test_calibration_error_of_a_hand_worked_case() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    y = np.array([0, 1, 0, 0])  # bin 0.9: half right; bin 0.6: half right
    assert expected_calibration_error(p, y, n_bins=10) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert expected_calibration_error(np.zeros((0, 2)), np.zeros(0, int)) is None
