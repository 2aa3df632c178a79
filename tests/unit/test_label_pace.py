"""The pace of labelling counts time spent labelling, and what it foretells holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnsapp.domain.pace import FEWEST_GAPS, labelling_pace, time_left


def test_a_break_is_not_labelling() -> None:
    # 11 labels 2 s apart, an hour of lunch, 11 labels 4 s apart: 20 gaps in 60 s
    morning = [2.0 * i for i in range(11)]
    noon = [3620.0 + 4 * i for i in range(11)]
    pace = labelling_pace(morning + noon)
    assert (pace.n_labels, pace.n_gaps, pace.active_seconds) == (22, 20, 60.0)
    assert pace.per_minute == 20.0


def test_a_gap_of_two_minutes_counts_and_a_longer_one_does_not() -> None:
    times = [0.0, 120.0, 240.5]
    assert labelling_pace(times).active_seconds == 120.0
    assert labelling_pace(times, longest_gap=121).active_seconds == 240.5


def test_labels_given_with_one_press_raise_the_rate() -> None:
    times = [t for t in (0.0, 10.0, 20.0, 30.0) for _ in range(5)]  # 19 gaps in 30 s
    assert labelling_pace(times).per_minute == pytest.approx(38.0)


def test_a_few_labels_tell_no_rate() -> None:
    times = [3.0 * i for i in range(FEWEST_GAPS)]
    assert labelling_pace(times).per_minute is None and time_left(times, 5) is None
    assert labelling_pace([*times, 30.0]).per_minute == 20.0
    assert labelling_pace([]).per_minute is None and labelling_pace([5.0] * 50).per_minute is None
    assert time_left([5.0] * 50, 10) is None


def test_an_even_pace_has_no_range() -> None:
    left = time_left([3.0 * i for i in range(41)], 100)
    assert left is not None
    assert left.seconds == pytest.approx(300) == left.low == left.high


def test_the_range_of_a_case_worked_by_hand() -> None:
    # gaps 1, 3 in turn for 10 gaps: mean 2, two blocks with means 9/5 and 11/5; their standard
    # deviation is 0.2828, of the mean 0.2; the gaps' own 1.0541 / sqrt(10) = 0.3333 is larger.
    times = np.concatenate([[0], np.cumsum([1, 3] * 5)])
    left = time_left(times, 10)
    assert left is not None and left.seconds == 20
    relative = np.sqrt(0.33333**2 + 1.05409**2 / 10) / 2  # 0.2357
    assert left.high == pytest.approx(20 * np.exp(6.314 * relative), rel=1e-4)
    assert left.low == pytest.approx(20 / np.exp(6.314 * relative), rel=1e-4)


@given(st.lists(st.floats(0, 1e6), max_size=60), st.integers(0, 10_000))
def test_order_does_not_matter_and_the_range_holds_the_estimate(
    times: list[float], n_left: int
) -> None:
    assert labelling_pace(times) == labelling_pace(times[::-1])
    left = time_left(times, n_left)
    if left is not None:
        assert 0 <= left.low <= left.seconds * (1 + 1e-9) and left.seconds <= left.high + 1e-9


def test_nothing_left_takes_no_time() -> None:
    left = time_left([], 0)
    assert left is not None and left.seconds == left.high == 0


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_nine_times_in_ten_the_rest_takes_what_was_said(drift: float) -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        gaps = rng.gamma(1.5, 2.0, 300)
        speed = np.repeat(np.exp(rng.normal(0, drift, 60)), 5)  # slower and faster by fives
        gaps = np.minimum(gaps * speed, 119)
        left = time_left(np.concatenate([[0], np.cumsum(gaps[:150])]), 150)
        assert left is not None
        held += left.low <= gaps[150:].sum() <= left.high
    assert 0.85 <= held / 400 <= 0.99


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        labelling_pace([0.0, float("nan")])
    with pytest.raises(ValueError, match="-1 labels left"):
        time_left([0.0], -1)
