"""ROC and precision-recall curves against scikit-learn and plain bootstraps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from cnsapp.domain.curves import Curves, one_vs_rest, roc_points


def scored(
    n: int = 500, k: int = 4, seed: int = 0, digits: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    logits = rng.normal(0, 1, (n, k))
    logits[np.arange(n), y] += 1.2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (p if digits is None else p.round(digits)), y


@pytest.mark.parametrize("digits", [None, 1])  # 1: many images share a score
def test_areas_equal_those_of_scikit_learn(digits: int | None) -> None:
    p, y = scored(digits=digits)
    found = one_vs_rest(p, y)
    for c, one in enumerate(found.per_class):
        assert one.auc == pytest.approx(roc_auc_score(y == c, p[:, c]))
        assert one.ap == pytest.approx(average_precision_score(y == c, p[:, c]))
        assert (one.n, one.n_rest) == ((y == c).sum(), (y != c).sum())
    assert found.macro_auc == pytest.approx(np.mean([c.auc for c in found.per_class]))


def test_the_corners_equal_those_of_scikit_learn() -> None:
    p, y = scored(60, digits=1)
    fpr, tpr, _ = roc_curve(y == 0, p[:, 0], drop_intermediate=False)
    x, up = roc_points(p[:, 0], y == 0)
    assert x == pytest.approx(fpr) and up == pytest.approx(tpr)


def test_reduced_curves_keep_their_area() -> None:
    p, y = scored(20_000, 3)
    for one in one_vs_rest(p, y).per_class:
        x, up = np.array(one.roc).T
        assert len(x) <= 200 and (x[0], up[0], x[-1], up[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(up, x) == pytest.approx(one.auc, abs=5e-4)
        recall, precision = np.array(one.pr).T
        assert len(recall) <= 200 and recall[-1] == 1
        assert (np.diff(recall, prepend=0) * precision).sum() == pytest.approx(one.ap)


@pytest.mark.parametrize("n_groups", [25, 0])
def test_intervals_equal_those_of_a_plain_bootstrap(n_groups: int) -> None:
    p, y = scored(400, 3, seed=2)
    keys = np.arange(400) % n_groups if n_groups else np.arange(400)
    members = [np.flatnonzero(keys == key) for key in np.unique(keys)]
    rng = np.random.default_rng(0)
    loops = []
    for _ in range(300):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        aucs = [roc_auc_score(y[rows] == c, p[rows, c]) for c in range(3)]
        loops.append(
            (aucs[0], average_precision_score(y[rows] == 0, p[rows, 0]), float(np.mean(aucs)))
        )
    found = one_vs_rest(p, y, [f"g{k}" for k in keys] if n_groups else None)
    one = found.per_class[0]
    spreads = (one.auc_interval, one.ap_interval, found.macro_auc_interval)
    for values, spread in zip(np.array(loops).T, spreads, strict=True):
        assert spread == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.02)


def test_without_images_of_a_class_its_curves_are_undefined() -> None:
    p, y = scored(50, 3)
    y[y == 2] = 0
    found = one_vs_rest(p, y)
    lone = found.per_class[2]
    assert lone.auc is None and lone.ap is None and lone.auc_interval is None
    assert lone.roc == [] and lone.n == 0
    assert found.macro_auc == pytest.approx(np.mean([c.auc for c in found.per_class[:2]]))


@pytest.mark.parametrize("n", [0, 1])
def test_none_or_one_image_has_no_curve(n: int) -> None:
    found = one_vs_rest(np.full((n, 2), 0.5), np.zeros(n, int))
    assert found.macro_auc is None and found.macro_ap_interval is None and found.n == n


def test_perfect_and_useless_scores() -> None:
    y = np.repeat([0, 1], 10)
    right = one_vs_rest(np.eye(2)[y], y, [f"g{k % 5}" for k in range(20)]).per_class[0]
    assert right.auc == right.ap == 1.0
    assert right.auc_interval is not None and right.auc_interval[0] < 0.8  # five groups that agree
    flat = one_vs_rest(np.full((20, 2), 0.5), y).per_class[0]
    assert flat.auc == 0.5 and flat.ap == pytest.approx(0.5)


def plain(found: Curves) -> list[object]:
    return [(c.auc, c.ap, c.auc_interval, c.ap_interval, c.roc, c.pr) for c in found.per_class] + [
        found.macro_auc_interval,
        found.macro_ap_interval,
    ]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_images_changes_nothing(random: object, grouped: bool) -> None:
    p, y = scored(60, 3)
    groups = [f"g{k % 7}" for k in range(60)]
    order = list(range(60))
    random.shuffle(order)  # type: ignore[attr-defined]
    mixed = [groups[i] for i in order]
    there = one_vs_rest(p, y, groups if grouped else None)
    again = one_vs_rest(p[order], y[order], mixed if grouped else None)
    assert plain(again) == plain(there)
