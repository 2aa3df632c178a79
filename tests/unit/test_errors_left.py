"""When to stop: precision so far, errors left, and the words for them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from cnsapp.domain.errors_left import falling, review_progress
from cnsapp.domain.resampling import wilson_interval

N = 200


def test_before_anybody_looked_the_risks_speak_alone() -> None:
    risk = np.linspace(0.9, 0.0, N)
    nobody = np.zeros(N, bool)
    found = review_progress(risk, risk, nobody, nobody)
    assert (found.n_looked, found.precision, found.interval, found.n_open) == (0, None, None, N)
    assert found.expected_left == pytest.approx(risk.sum())
    assert found.expected_next == pytest.approx(risk[:20].sum())
    assert found.in_words().startswith("Among the 200 not looked at about 90 are expected")
    assert found.in_words().endswith("about 17 are expected to be wrong: go on.")


def test_decisions_of_a_stretch_speak_for_the_rest_of_it() -> None:
    """By hand: 5 of the first 10 looked at, 1 wrong; the risk .8 counts as four decisions."""
    risk = np.full(10, 0.8)
    looked = np.arange(10) < 5
    wrong = np.arange(10) < 1
    found = review_progress(risk, np.linspace(1, 0.5, 10), looked, wrong)
    assert found.expected_left == pytest.approx(5 * (4 * 0.8 + 1) / (4 + 5))
    assert found.precision == 0.2 and found.interval == wilson_interval(1, 5)


def test_a_poor_harvest_above_lowers_what_is_expected_below() -> None:
    risk = np.r_[np.full(25, 0.9), np.full(75, 0.6)]
    score = np.linspace(1, 0, 100)
    looked = np.arange(100) < 25
    none, all_ = np.zeros(100, bool), looked.copy()
    poor, rich = (review_progress(risk, score, looked, w) for w in (none, all_))
    assert poor.expected_left < 0.6 * rich.expected_left
    assert rich.expected_left == pytest.approx(45)


def test_the_list_is_done_when_little_is_left_in_it() -> None:
    risk = np.r_[np.full(25, 0.95), np.full(175, 0.01)]
    looked = np.arange(N) < 25
    found = review_progress(risk, risk, looked, looked)
    assert found.enough and found.expected_next == pytest.approx(0.2)
    assert "25 of 25 labels looked at were wrong (100 %, 95 % interval 87 to 100 %)." in (
        found.in_words()
    )
    assert found.in_words().endswith("this is a good place to stop.")


def test_only_what_the_list_shows_comes_next() -> None:
    risk = np.linspace(0.9, 0.1, 50)
    nobody, listed = np.zeros(50, bool), np.arange(50) % 10 == 0
    found = review_progress(risk, risk, nobody, nobody, listed)
    assert found.n_next == 5 and found.expected_next == pytest.approx(risk[listed].sum())
    empty = review_progress(risk, risk, nobody, nobody, nobody)
    assert "The list has no more to show" in empty.in_words()


def test_all_looked_at_and_nothing_there_are_said() -> None:
    three = np.ones(3, bool)
    done = review_progress(np.full(3, 0.5), np.arange(3.0), three, three)
    assert done.expected_left == 0 and done.in_words().endswith("All labels were looked at.")
    nothing = review_progress(np.zeros(0), np.zeros(0), np.zeros(0, bool), np.zeros(0, bool))
    assert (nothing.n_open, nothing.expected_left, nothing.precision) == (0, 0.0, None)


def test_the_order_of_the_images_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(N)
    risk, looked = score**2, rng.random(N) < 0.3
    wrong = looked & (rng.random(N) < risk)
    mixed = rng.permutation(N)
    one = review_progress(risk, score, looked, wrong)
    other = review_progress(risk[mixed], score[mixed], looked[mixed], wrong[mixed])
    assert other.expected_left == pytest.approx(one.expected_left)
    assert other.expected_next == pytest.approx(one.expected_next)


def test_where_risks_are_right_so_is_the_expectation() -> None:
    """Mean over many reviews: what is expected left is what is left, at any depth."""
    rng = np.random.default_rng(1)
    risk = np.sort(rng.beta(0.2, 1.0, 400))[::-1]
    for depth in (0, 50, 150):
        looked = np.arange(400) < depth
        off = []
        for _ in range(200):
            bad = rng.random(400) < risk
            found = review_progress(risk, risk, looked, looked & bad)
            off.append(found.expected_left - (bad & ~looked).sum())
        assert abs(np.mean(off)) < 0.1 * risk.sum()


def test_falling_is_isotonic_regression() -> None:
    rng = np.random.default_rng(2)
    for n in (1, 2, 30):
        y, w = rng.random(n), rng.random(n) + 0.1
        due = IsotonicRegression(increasing=False).fit(np.arange(n), y, sample_weight=w)
        np.testing.assert_allclose(falling(y, w), due.predict(np.arange(n)), atol=1e-12)
    assert falling(np.zeros(0), np.zeros(0)).tolist() == []


def test_what_does_not_fit_is_refused() -> None:
    ok, no = np.ones(3), np.zeros(3, bool)
    with pytest.raises(ValueError, match="3 risks, 2 scores"):
        review_progress(ok, np.ones(2), no, no)
    with pytest.raises(ValueError, match="not a number"):
        review_progress(np.array([0.1, np.nan, 0.2]), ok, no, no)
    with pytest.raises(ValueError, match="nobody looked at"):
        review_progress(ok, ok, no, ~no)
