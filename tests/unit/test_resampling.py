"""Intervals by group: against plain loops and textbooks, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    cohen_kappa_score,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from statsmodels.stats.proportion import proportion_confint

from cnsapp.domain.metrics import Evaluation, evaluate
from cnsapp.domain.resampling import (
    mean_interval,
    percentiles,
    resampled_sums,
    shared_draws,
    unit_numbers,
    widened,
    wilson_interval,
)

SYSTEMS = [0, 0, 1, 2]


def answers(
    n: int = 400, n_groups: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return labels, answers and groups; some groups are much harder than others."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, n_groups, n)
    true = rng.integers(0, 4, n)
    skill = rng.uniform(0.3, 1, n_groups)[group]
    pred = np.where(rng.random(n) < skill, true, rng.integers(0, 4, n))
    return true, pred, [f"g{k}" for k in group]


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 11), (480, 500)])
def test_wilson_equals_statsmodels(hits: int, n: int) -> None:
    theirs = proportion_confint(hits, n, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx(theirs, abs=1e-6)


def test_scores_of_all_classes_equal_those_of_scikit_learn() -> None:
    true, pred, _ = answers()
    p = np.random.default_rng(1).dirichlet(np.ones(4), len(true))
    first, second = np.argsort(-p, axis=1)[:, :2].T
    found = evaluate(true, pred, 4)
    assert found.kappa == pytest.approx(cohen_kappa_score(true, pred))
    assert found.mcc == pytest.approx(matthews_corrcoef(true, pred))
    assert found.macro_f1 == pytest.approx(f1_score(true, pred, average="macro"))
    likely = evaluate(true, first, 4, second=second)
    assert likely.top2 == pytest.approx(top_k_accuracy_score(true, p, k=2))
    _, _, f1, _ = precision_recall_fscore_support(true, pred)
    assert [c.f1 for c in found.per_class] == pytest.approx(f1)


def test_intervals_without_groups_are_those_of_wilson() -> None:
    true, pred, _ = answers()
    for c, score in enumerate(evaluate(true, pred, 4).per_class):
        of_class, called = true == c, pred == c
        hits = int((of_class & called).sum())
        wilson = proportion_confint(hits, of_class.sum(), method="wilson")
        assert score.recall_interval == pytest.approx(wilson, abs=1e-6)
        wilson = proportion_confint(hits, called.sum(), method="wilson")
        assert score.precision_interval == pytest.approx(wilson, abs=1e-6)
        assert score.interval_by == "image" and score.n_groups is None


def test_intervals_by_group_equal_a_plain_loop_over_groups() -> None:
    true, pred, groups = answers()
    keys = sorted(set(groups))
    members = [np.flatnonzero(np.array(groups) == key) for key in keys]
    rng = np.random.default_rng(5)
    loops: dict[str, list[float]] = {"recall": [], "precision": [], "f1": [], "system": []}
    system = np.array(SYSTEMS)
    for _ in range(1500):
        rows = np.concatenate([members[k] for k in rng.integers(0, len(keys), len(keys))])
        t, p = true[rows], pred[rows]
        hits, n, called = ((t == 1) & (p == 1)).sum(), (t == 1).sum(), (p == 1).sum()
        loops["recall"].append(hits / n)
        loops["precision"].append(hits / called)
        loops["f1"].append(2 * hits / (n + called))
        right = system[t] == system[p]
        loops["system"].append(np.mean([right[system[t] == s].mean() for s in range(3)]))
    found = evaluate(true, pred, 4, groups, systems=SYSTEMS)
    one = found.per_class[1]
    assert found.systems is not None
    for name, interval in (
        ("recall", one.recall_interval),
        ("precision", one.precision_interval),
        ("f1", one.f1_interval),
        ("system", found.systems.interval),
    ):
        assert interval == pytest.approx(np.quantile(loops[name], [0.025, 0.975]), abs=0.025)
    assert one.interval_by == "group" and one.n_groups == 20


def test_an_interval_by_group_is_wider_where_groups_differ() -> None:
    true, pred, groups = answers(2000, 12)
    by_group, by_image = evaluate(true, pred, 4, groups), evaluate(true, pred, 4)
    for mine, theirs in zip(by_group.per_class, by_image.per_class, strict=True):
        assert mine.recall_interval is not None and theirs.recall_interval is not None
        wide = mine.recall_interval[1] - mine.recall_interval[0]
        assert wide > 1.5 * (theirs.recall_interval[1] - theirs.recall_interval[0])


def test_organ_systems_worked_by_hand() -> None:
    # colon, liver (digestive), spleen (lymphatic), lung (its own)
    true = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
    pred = np.array([0, 0, 1, 2, 1, 0, 2, 3, 3, 3])
    found = evaluate(true, pred, 4, systems=SYSTEMS).systems
    assert found is not None
    assert (found.n_systems, found.n_errors, found.n_errors_within) == (3, 4, 2)
    assert found.balanced_accuracy == pytest.approx((5 / 6 + 1 / 2 + 1) / 3)
    assert found.accuracy == 0.8 and found.within == 0.5
    assert found.within_interval == pytest.approx(
        proportion_confint(2, 4, method="wilson"), abs=1e-6
    )


def test_what_can_not_be_said_is_none() -> None:
    empty = evaluate(
        np.zeros(0, int), np.zeros(0, int), 3, systems=[0, 0, 1], second=np.zeros(0, int)
    )
    for value in (empty.macro_f1, empty.kappa, empty.mcc, empty.top2, empty.accuracy_interval):
        assert value is None
    assert empty.systems is not None and empty.systems.balanced_accuracy is None
    assert empty.systems.within is None and empty.systems.within_interval is None
    one = evaluate(np.array([1]), np.array([1]), 3)
    assert one.balanced_accuracy == 1.0 and one.interval is None and one.kappa is None
    assert one.per_class[0].f1 is None and one.per_class[0].precision_interval is None
    assert one.per_class[1].recall_interval == pytest.approx(wilson_interval(1, 1))
    same = evaluate(np.array([0, 0, 0]), np.array([0, 0, 0]), 2)
    assert same.mcc is None and same.kappa is None  # one class only: agreement is no news
    lone = evaluate(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2, ["a"] * 4)
    assert lone.interval is None and lone.per_class[0].recall == 0.5
    assert lone.per_class[0].recall_interval is None  # one patient says nothing about others


def test_a_class_that_one_group_holds_has_no_interval_by_group() -> None:
    true = np.r_[np.zeros(10, int), np.tile([1, 2], 20)]
    groups = ["only"] * 10 + [f"g{k % 8}" for k in range(40)]
    found = evaluate(true, true, 3, groups)
    assert found.per_class[0].recall == 1.0 and found.per_class[0].recall_interval is None
    assert found.per_class[0].n_groups == 1


@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong_have_an_interval_that_is_no_point(right: bool) -> None:
    true = np.tile([0, 1], 30)
    pred = true if right else 1 - true
    groups = [f"g{k // 6}" for k in range(60)]
    found = evaluate(true, pred, 2, groups)
    value = 1.0 if right else 0.0
    assert found.balanced_accuracy == value
    for spread in (
        found.interval, found.accuracy_interval, found.per_class[0].recall_interval,
        found.per_class[0].precision_interval,
    ):  # fmt: skip
        # ten groups that agree say as much as ten images would
        assert spread == pytest.approx(wilson_interval(10 * value, 10))


def test_groups_of_one_image_give_the_interval_of_images() -> None:
    true, pred, _ = answers(300)
    images = evaluate(true, pred, 4)
    alone = evaluate(true, pred, 4, [f"g{k}" for k in range(300)])
    assert alone.interval == pytest.approx(images.interval, abs=0.012)
    for a, b in zip(alone.per_class, images.per_class, strict=True):
        assert a.f1_interval == pytest.approx(b.f1_interval, abs=0.02)
        assert a.recall_interval == pytest.approx(b.recall_interval, abs=0.03)  # Wilson's


def comparable(found: Evaluation) -> dict[str, object]:
    return found.as_json()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["a", "b", "c", "", "d"])),
        min_size=1,
        max_size=40,
    ),
    data=st.data(),
)
def test_the_order_of_images_and_the_names_of_groups_change_nothing(
    rows: list[tuple[int, int, str]], data: st.DataObject
) -> None:
    def scored(of: list[tuple[int, int, str]], mark: str = "") -> dict[str, object]:
        true, pred = np.array([r[0] for r in of]), np.array([r[1] for r in of])
        groups = [mark + r[2] if r[2] else None for r in of]
        return comparable(evaluate(true, pred, 4, groups, systems=SYSTEMS))

    assert scored(data.draw(st.permutations(rows))) == scored(rows) == scored(rows, "other ")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=60),
    st.integers(1, 9),
)
def test_figures_lie_within_their_bounds_and_intervals_hold_them(
    rows: list[tuple[int, int]], n_groups: int
) -> None:
    true, pred = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    found = evaluate(true, pred, 3, [f"g{k % n_groups}" for k in range(len(rows))])
    for c in found.per_class:
        for value, spread in (
            (c.recall, c.recall_interval), (c.precision, c.precision_interval),
            (c.f1, c.f1_interval),
        ):  # fmt: skip
            assert value is None or 0 <= value <= 1
            if spread is not None:
                assert 0 <= spread[0] <= spread[1] <= 1 and value is not None


def test_a_mean_has_the_cluster_robust_interval() -> None:
    values = np.array([0.0, 0.2, 0.4, 1.0, 0.9, 0.5])
    units = np.array([0, 0, 1, 1, 2, 2])
    off = [-0.8, 0.4, 0.4]  # each unit's sum less twice the mean of 0.5
    error = np.sqrt(3 / 2 * sum(o * o for o in off)) / 6
    reach = 4.302653  # Student's t of two degrees of freedom
    assert mean_interval(values, units) == pytest.approx((0.5 - reach * error, 0.5 + reach * error))
    assert mean_interval(values[:1], units[:1]) is None


def test_many_groups_are_put_together_without_changing_the_spread() -> None:
    rng = np.random.default_rng(3)
    units = np.repeat(np.arange(1500), 2)
    right = rng.random(3000) < np.repeat(rng.uniform(0.2, 1, 1500), 2)
    features = np.array([[1, 0], [1, 1]])

    def spread(most: int) -> tuple[float, float]:
        sums = resampled_sums(units, right.astype(int), 2, features, most_units=most)
        assert sums is not None
        found = percentiles(sums[:, 1] / sums[:, 0])
        assert found is not None
        return found

    assert spread(300) == pytest.approx(spread(5000), abs=0.006)


def test_shared_draws_draw_whole_units_and_as_many() -> None:
    units = unit_numbers(["a", "b", "a", None, "c"], 5)
    found = shared_draws(units, n_resamples=50)
    assert found is not None
    owner, times = found
    assert owner.tolist() == units.tolist() and times.shape == (50, 4)
    assert (times.sum(1) == 4).all()
    assert shared_draws(np.zeros(3, int)) is None


def test_figures_that_are_often_undefined_have_no_interval() -> None:
    assert percentiles(np.r_[np.full(200, np.nan), np.ones(800)]) is None
    assert percentiles(np.zeros(0)) is None
    assert widened(None, 0.5, 3) is None and widened((0.2, 0.4), 0.3, 3) == (0.2, 0.4)
    assert widened((1.0, 1.0), 1.0, 0) is None
