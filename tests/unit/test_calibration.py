"""Reliability, Brier score, temperature, and the worth of keeping silent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from statsmodels.stats.proportion import proportion_confint

from cnsapp.domain.abstaining import abstention
from cnsapp.domain.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    softmax,
    unscaled,
)


def answers(n: int = 400, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, k))
    y = np.array([rng.choice(k, p=p) for p in softmax(logits)])
    return softmax(logits * 2), y


def test_the_bins_equal_those_of_scikit_learn() -> None:
    p, y = answers()
    right = p.argmax(1) == y
    theirs_right, theirs_sure = calibration_curve(right, p.max(1), n_bins=10)
    bins = [b for b in reliability(p, y, n_bins=10).bins if b.n]
    assert [b.right for b in bins] == pytest.approx(theirs_right)
    assert [b.confidence for b in bins] == pytest.approx(theirs_sure)
    for b in bins:
        hits = round((b.right or 0) * b.n)
        assert b.interval == pytest.approx(proportion_confint(hits, b.n, method="wilson"), abs=1e-6)


def test_the_brier_score_equals_that_of_scikit_learn() -> None:
    p, y = answers()
    found = reliability(p, y)
    assert found.brier == pytest.approx(brier_score_loss(y, p, scale_by_half=False))
    assert found.brier_interval is not None
    assert found.brier_interval[0] < (found.brier or 0) < found.brier_interval[1]
    assert found.ece == expected_calibration_error(p, y)


def test_bins_of_groups_have_intervals_by_group() -> None:
    p, y = answers(600)
    groups = [f"g{k // 30}" for k in range(600)]
    # in half of the groups every answer is wrong, whatever its confidence
    bad = np.arange(600) // 30 % 2 == 0
    y = np.where(bad, (p.argmax(1) + 1) % 3, p.argmax(1))
    by_group, by_image = reliability(p, y, groups), reliability(p, y)
    last, alone = by_group.bins[-1], by_image.bins[-1]
    assert last.interval is not None and alone.interval is not None
    assert last.interval[1] - last.interval[0] > 2 * (alone.interval[1] - alone.interval[0])


def test_empty_bins_and_no_images_are_undefined() -> None:
    found = reliability(np.array([[0.9, 0.1]]), np.array([0]))
    assert [b.n for b in found.bins] == [0] * 13 + [1, 0]
    assert found.bins[0].right is None and found.bins[0].interval is None
    assert found.brier == pytest.approx(0.02) and found.brier_interval is None
    nothing = reliability(np.zeros((0, 2)), np.zeros(0, int))
    assert nothing.ece is None and nothing.brier is None and nothing.n == 0


def test_stored_probabilities_give_back_their_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (50, 4))
    stored = softmax(logits, 1.7).round(6)
    assert softmax(unscaled(stored, 1.7)) == pytest.approx(softmax(logits), abs=1e-4)
    assert np.isfinite(unscaled(np.array([[0.0, 1.0]]), 2)).all()


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0, 4.0, 12.0])
def test_the_temperature_is_where_the_likelihood_is_greatest(spread: float) -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, spread, (300, 4))
    y = np.array([rng.choice(4, p=p) for p in softmax(logits, 2)])
    best = minimize_scalar(
        lambda t: negative_log_likelihood(logits, y, t), bounds=(0.05, 20), method="bounded"
    ).x
    assert fit_temperature(logits, y) == pytest.approx(best, rel=1e-3)


def test_a_temperature_stays_within_its_bounds() -> None:
    y = np.arange(40) % 4
    assert fit_temperature(np.eye(4)[y] * 3, y) == 0.05  # all right: as sure as may be
    assert fit_temperature(np.eye(4)[(y + 1) % 4] * 3, y) == 20.0  # all wrong
    assert fit_temperature(np.zeros((40, 4)), y) == 1.0


def test_a_risk_coverage_curve_worked_by_hand() -> None:
    sure = np.array([0.9, 0.8, 0.7, 0.6])
    right = np.array([True, False, True, True])
    found = abstention(sure, right)
    assert found.curve == [(0.25, 0.0), (0.5, 0.5), (0.75, 1 / 3), (1.0, 0.25)]
    assert found.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    at = {row.threshold: row for row in found.by_threshold}
    assert (at[0.7].n, at[0.7].coverage, at[0.7].accuracy) == (3, 0.75, pytest.approx(2 / 3))
    assert at[0.95].n == 0 and at[0.95].accuracy is None and at[0.95].interval is None
    wanted = dict(found.wanted)
    assert wanted[0.9] is not None
    assert (wanted[0.9].threshold, wanted[0.9].coverage) == (0.9, 0.25)


def test_images_of_one_confidence_come_together() -> None:
    found = abstention(np.full(4, 0.8), np.array([True, True, False, True]))
    assert found.curve == [(1.0, 0.25)] and found.aurc == pytest.approx(0.25)
    assert dict(found.wanted)[0.9] is None  # no threshold answers some of them


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=60))
def test_the_area_is_the_mean_risk_over_all_coverages(rows: list[tuple[int, bool]]) -> None:
    distinct = dict(rows)  # one image a confidence
    sure = np.array(list(distinct)) / 100
    right = np.array(list(distinct.values()))
    order = np.argsort(-sure)
    risk = np.cumsum(~right[order]) / np.arange(1, len(sure) + 1)
    found = abstention(sure, right)
    assert found.aurc == pytest.approx(risk.mean())
    assert found.curve[-1][1] == pytest.approx((~right).mean())


def test_a_long_curve_is_reduced_and_its_ends_stay() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(5000)
    found = abstention(sure, rng.random(5000) < sure)
    assert len(found.curve) <= 200 and found.curve[-1][0] == 1.0


def test_what_is_answered_has_intervals_by_group() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{k // 50}" for k in range(1000)]
    right = rng.random(1000) < np.repeat(rng.uniform(0.3, 1, 20), 50)
    sure = rng.uniform(0.4, 1, 1000)
    mine = abstention(sure, right, groups).by_threshold[0]
    theirs = abstention(sure, right).by_threshold[0]
    assert mine.accuracy == theirs.accuracy and theirs.n == mine.n
    assert mine.interval is not None and theirs.interval is not None
    assert mine.interval[1] - mine.interval[0] > 1.5 * (theirs.interval[1] - theirs.interval[0])
    loops = []
    for _ in range(1000):
        rows = (rng.integers(0, 20, 20)[:, None] * 50 + np.arange(50)).ravel()
        loops.append(right[rows][sure[rows] >= 0.5].mean())
    assert mine.interval == pytest.approx(np.quantile(loops, [0.025, 0.975]), abs=0.025)


def test_all_right_all_wrong_and_nothing() -> None:
    good = abstention(np.array([0.6, 0.9]), np.array([True, True]))
    assert good.aurc == 0 and good.wanted[0][1] is not None
    assert good.wanted[0][1].coverage == 1.0
    bad = abstention(np.array([0.6, 0.9]), np.array([False, False]))
    assert bad.aurc == 1 and [row for _, row in bad.wanted] == [None] * 4
    nothing = abstention(np.zeros(0), np.zeros(0, bool))
    assert nothing.aurc is None and nothing.curve == [] and nothing.by_threshold == []
    alone = abstention(np.array([0.7, 0.9]), np.array([True, False]), ["a", "a"])
    assert alone.by_threshold[0].accuracy == 0.5 and alone.by_threshold[0].interval is None
