"""Comparing models on the same images: against statsmodels and tables worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from cnsapp.domain.compare import IMAGES, SWAPS, compare, exchange_p, holm, mcnemar_exact


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_that_of_statsmodels(only_first: int, only_second: int) -> None:
    table = [[10, only_first], [only_second, 10]]
    if only_first + only_second == 0:
        assert mcnemar_exact(0, 0) == 1.0
        return
    expected = float(mcnemar(table, exact=True).pvalue)
    assert mcnemar_exact(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_thousands_of_images_does_not_overflow() -> None:
    expected = float(mcnemar([[0, 2400], [2600, 0]], exact=True).pvalue)
    assert mcnemar_exact(2400, 2600) == pytest.approx(expected, rel=1e-6)
    assert mcnemar_exact(0, 3000) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_that_of_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p_values = (rng.random(1 + seed % 12) ** 3).round(2).tolist()  # with ties and zeros
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected), abs=1e-12)


def test_holm_leaves_out_what_is_undefined() -> None:
    assert holm([0.04, None, 0.01]) == [pytest.approx(0.04), None, pytest.approx(0.02)]


def test_a_table_worked_by_hand() -> None:
    # class 0: four images, class 1: six; the first model errs on one of each, the second on three
    true = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    first = np.array([1, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    second = np.array([1, 1, 0, 0, 1, 0, 1, 1, 1, 1])
    found = compare(true, np.stack([first, second]), 2)
    assert found.scores == [pytest.approx((3 / 4 + 5 / 6) / 2), pytest.approx((2 / 4 + 5 / 6) / 2)]
    (pair,) = found.pairs
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (6, 2, 1, 1)
    assert pair.difference == pytest.approx(1 / 8)
    # steps of 1/8, 1/12 and -1/12: of the 8 ways to sign them 6 reach 1/8
    assert (pair.test, pair.p_value, pair.p_holm) == (
        IMAGES,
        pytest.approx(6 / 8),
        pytest.approx(0.75),
    )
    assert pair.mcnemar_p == 1.0 and not pair.shown  # 2 of 3
    assert pair.agreement == pytest.approx(7 / 10) and not pair.shown
    assert found.n_groups is None


def random_answers(
    rng: np.random.Generator, n: int, skill: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    true = rng.integers(0, 3, n)
    other = (true + rng.integers(1, 3, n)) % 3
    return true, np.stack([np.where(rng.random(n) < s, true, other) for s in skill])


def test_scores_are_those_of_scikit_learn_and_pairs_come_in_order() -> None:
    true, said = random_answers(np.random.default_rng(1), 200, [0.9, 0.7, 0.5])
    found = compare(true, said, 3)
    expected = [balanced_accuracy_score(true, row) for row in said]
    assert found.scores == pytest.approx(expected)
    assert [(p.first, p.second) for p in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    raw = [p.p_value or 0.0 for p in found.pairs]
    assert [p.p_holm for p in found.pairs] == pytest.approx(
        list(multipletests(raw, method="holm")[1])
    )
    assert found.pairs[1].shown


def test_the_interval_is_that_of_a_plain_loop_over_groups() -> None:
    rng = np.random.default_rng(2)
    true, said = random_answers(rng, 240, [0.8, 0.6])
    groups = [f"p{i}" for i in rng.integers(0, 24, 240)]
    found = compare(true, said, 3, groups).pairs[0]
    names = sorted(set(groups))
    members = [np.flatnonzero([g == name for g in groups]) for name in names]
    apart = []
    for _ in range(500):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        apart.append(
            balanced_accuracy_score(true[rows], said[0][rows])
            - balanced_accuracy_score(true[rows], said[1][rows])
        )
    assert found.interval is not None and found.test == SWAPS
    assert found.interval == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])), abs=0.025)
    assert found.standard_error == pytest.approx(np.std(apart), rel=0.15)


def test_pairs_of_images_of_one_patient_are_no_evidence_of_their_own() -> None:
    # two patients: on the one the first model is right 50 times, on the other never differs
    true = np.zeros(100, int)
    true[50:] = 1
    first, second = true.copy(), true.copy()
    second[:50] = 1
    by_image = compare(true, np.stack([first, second]), 2).pairs[0]
    by_group = compare(true, np.stack([first, second]), 2, ["a"] * 50 + ["b"] * 50).pairs[0]
    assert by_image.shown and by_image.p_value == pytest.approx(2 / 2**50)
    assert by_group.p_value == 1.0 and not by_group.shown


def test_exchange_by_group_counts_every_way_by_hand() -> None:
    # of the 8 ways to sign 3, 2, 1 only +++ and --- reach 6
    assert exchange_p(np.array([3.0, 2.0, 1.0])) == pytest.approx(2 / 8)
    # 3 - 2 + 0: |sum| >= 1 always
    assert exchange_p(np.array([3.0, -2.0, 0.0])) == 1.0
    assert exchange_p(np.array([0.0, 0.0])) == 1.0
    assert exchange_p(np.array([5.0])) is None


def test_drawn_exchanges_come_close_to_all_of_them() -> None:
    weights = np.linspace(-0.4, 1, 14)
    every = exchange_p(weights)
    drawn = exchange_p(np.r_[weights, [1e-9]])  # one more: now they are drawn
    assert every is not None and drawn == pytest.approx(every, abs=0.012)


def test_equal_models_are_rarely_called_different() -> None:
    rng, shown = np.random.default_rng(5), 0
    for run in range(120):
        true = rng.integers(0, 2, 120)
        groups = [f"p{i // 6}" for i in range(120)]
        bad = rng.random((2, 20)) < 0.5  # each model fails in patients of its own
        wrong = np.repeat(bad, 6, axis=1) & (rng.random((2, 120)) < 0.6)
        said = np.where(wrong, 1 - true, true)
        shown += compare(true, said, 2, groups, seed=run, n_resamples=50).pairs[0].shown
    assert shown <= 14  # 6 expected; 15 or more happens once in 1,500


def test_an_answer_outside_the_classes_is_wrong() -> None:
    true = np.array([0, 1, 0, 1])
    found = compare(true, np.array([[0, 1, -1, 1], [0, 1, 0, 1]]), 2)
    assert found.scores == [0.75, 1.0]


def test_nothing_to_compare_is_undefined_and_nonsense_is_refused() -> None:
    found = compare(np.zeros(0, int), np.zeros((2, 0), int), 2)
    assert (found.n, found.scores, found.pairs[0].p_value) == (0, [None, None], None)
    assert found.pairs[0].interval is None and not found.pairs[0].shown
    single = compare(np.array([0, 0]), np.array([[0, 0], [0, 1]]), 2, ["a", "a"])
    assert single.pairs[0].interval is None and single.pairs[0].p_value is None
    with pytest.raises(ValueError, match="answers are"):
        compare(np.zeros(3, int), np.zeros((1, 3), int), 2)
