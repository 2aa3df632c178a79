"""Slices: hand-worked tables, fair comparisons, and what can not be said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from cnsapp.domain.slices import (
    NO_DIFFERENCE,
    NO_REST,
    ONE_CLASS,
    TOO_FEW,
    WORSE,
    by_value,
    holm,
    size_class,
    student_p,
)


def test_a_table_worked_by_hand() -> None:
    true = np.array([0] * 10 + [1] * 10 + [0] * 10 + [1] * 10)
    pred = true.copy()
    pred[:5] = 1  # batch A: half of class 0 wrong
    pred[10:12] = 0  # and a fifth of class 1
    found = {s.value: s for s in by_value(true, pred, 2, ["A"] * 20 + ["B"] * 20)}
    a, b = found["A"], found["B"]
    assert (a.n, a.n_classes, a.n_groups) == (20, 2, None)
    assert a.accuracy == pytest.approx(13 / 20)
    assert a.balanced_accuracy == pytest.approx((0.5 + 0.8) / 2)
    assert a.difference == pytest.approx(((0.5 - 1) + (0.8 - 1)) / 2)
    assert b.balanced_accuracy == 1.0 and b.difference == pytest.approx(0.35)
    assert b.interval is not None and b.interval[0] < 0.95  # all right is no certainty
    assert a.interval is not None and a.interval[0] < 0.65 < a.interval[1]


def test_a_slice_with_more_of_a_hard_class_is_not_called_worse() -> None:
    rng = np.random.default_rng(0)
    true = np.r_[np.repeat([0, 1], [300, 60]), np.repeat([0, 1], [60, 300])]
    batch = ["easy"] * 360 + ["hard"] * 360
    pred = np.where(rng.random(720) < np.where(true == 0, 0.95, 0.6), true, 1 - true)
    found = {s.value: s for s in by_value(true, pred, 2, batch)}
    assert (found["easy"].accuracy or 0) > (found["hard"].accuracy or 0) + 0.15
    assert found["easy"].verdict == found["hard"].verdict == NO_DIFFERENCE


def test_a_slice_that_is_worse_is_called_so_and_the_groups_count() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(24), 25)
    batch = np.array(["A", "B", "C"])[group % 3]
    true = rng.integers(0, 2, len(group))
    pred = np.where(rng.random(len(group)) < np.where(batch == "C", 0.55, 0.92), true, 1 - true)
    found = {s.value: s for s in by_value(true, pred, 2, list(batch), [f"g{g}" for g in group])}
    assert found["C"].verdict == WORSE and (found["C"].p_holm or 1) < 0.01
    assert found["C"].n_groups == 8 and found["C"].interval_by == "group"
    assert found["C"].difference_interval is not None and found["C"].difference_interval[1] < 0


def test_patients_that_differ_do_not_make_a_batch_differ() -> None:
    rng = np.random.default_rng(2)
    wrong, n = 0, 0
    for _ in range(30):
        group = np.repeat(np.arange(18), 30)
        skill = rng.uniform(0.5, 1, 18)
        true = rng.integers(0, 2, len(group))
        pred = np.where(rng.random(len(group)) < skill[group], true, 1 - true)
        batch = [f"b{g % 3}" for g in group]
        by_group = by_value(true, pred, 2, batch, [f"g{g}" for g in group])
        wrong += any(s.verdict not in (NO_DIFFERENCE,) for s in by_group)
        by_image = by_value(true, pred, 2, batch)
        n += any(s.verdict not in (NO_DIFFERENCE,) for s in by_image)
    assert wrong <= 5  # 5 % of 30 is 1.5
    assert n > 10  # as if images were independent: what this is there to prevent


def test_what_can_not_be_said() -> None:
    true = np.array([0] * 12 + [1] * 12 + [0] * 4 + [0] * 15)
    values = ["big"] * 24 + ["few"] * 4 + ["one class"] * 15
    found = {s.value: s for s in by_value(true, true, 2, values)}
    assert found["few"].verdict == TOO_FEW and found["few"].balanced_accuracy is None
    assert found["few"].accuracy == 1.0 and found["few"].p is None
    assert found["one class"].balanced_accuracy is None  # recall of one class is no balance
    assert found["one class"].p is not None
    alone = by_value(true, true, 2, ["all"] * len(true))
    assert [s.verdict for s in alone] == [NO_REST] and alone[0].p is None
    apart = by_value(np.array([0] * 20 + [1] * 20), np.zeros(40, int), 2, ["A"] * 20 + ["B"] * 20)
    assert {s.verdict for s in apart} == {NO_REST}
    assert by_value(np.zeros(0, int), np.zeros(0, int), 2, []) == []
    assert ONE_CLASS  # a word that the screen knows


def test_a_slice_that_is_one_group_speaks_of_its_images() -> None:
    true = np.tile([0, 1], 100)
    groups = [f"patient {k // 20}" for k in range(200)]
    pred = np.where(np.arange(200) < 20, 1 - true, true)  # the first patient: all wrong
    found = {s.value: s for s in by_value(true, pred, 2, groups, groups)}
    first = found["patient 0"]
    assert first.interval_by == "image" and first.n_groups == 1
    assert first.balanced_accuracy == 0.0 and first.verdict == WORSE


def test_images_without_a_value_come_last_and_small_slices_are_put_together() -> None:
    values = [f"v{k % 80}" for k in range(400)] + [None] * 7 + ["v0"] * 3
    true = np.arange(410) % 2
    found = by_value(true, true, 2, values)
    assert found[0].value == "v0" and sum(s.n for s in found) == 410
    assert found[-1].value == "all others (20)" and found[-1].n == 100
    assert found[-2].value is None and found[-2].n == 7


def test_holm_equals_statsmodels_and_student_scipy() -> None:
    p = [0.01, 0.04, 0.03, 0.5, 0.001, 1.0]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([]) == []
    for t, degrees in ((0.0, 3), (1.3, 2), (2.6, 7), (-4.0, 60), (9.0, 1)):
        assert student_p(t, degrees) == pytest.approx(2 * student.sf(abs(t), degrees), abs=1e-6)


def test_sizes_are_named() -> None:
    assert size_class(48, 900) == "shorter side below 64 px"
    assert size_class(2000, 1024) == "shorter side 1024 px or more"


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(48)), st.booleans())
def test_the_order_of_images_changes_nothing(order: list[int], grouped: bool) -> None:
    rng = np.random.default_rng(0)
    true, pred = rng.integers(0, 3, 48), rng.integers(0, 3, 48)
    values = [["A", "B", None][k] for k in rng.integers(0, 3, 48)]
    groups = [f"g{k}" for k in rng.integers(0, 8, 48)] if grouped else None
    there = by_value(true, pred, 3, values, groups)
    mixed = None if groups is None else [groups[i] for i in order]
    again = by_value(true[order], pred[order], 3, [values[i] for i in order], mixed)
    assert [(s.value, s.n, s.balanced_accuracy, s.verdict) for s in there] == [
        (s.value, s.n, s.balanced_accuracy, s.verdict) for s in again
    ]
