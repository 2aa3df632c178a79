"""Typical images, prototypes and odd ones, against what can be counted by hand."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from cnsapp.domain import typical
from cnsapp.domain.typical import odd_order, prototypes, typical_order


def at(*degrees: float) -> Any:
    """Return unit rows in the plane."""
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def test_the_most_typical_image_has_the_highest_mean_similarity() -> None:
    rows = at(0, 10, 20, 30, 90)
    mean = (rows @ rows.T).mean(1)
    assert typical_order(rows).tolist() == np.argsort(-mean).tolist()
    assert typical_order(rows)[-1] == 4
    assert typical_order(at(5, 5, 5)).tolist() == [0, 1, 2]
    assert typical_order(np.zeros((0, 2), np.float32)).tolist() == []


def test_prototypes_are_the_middles_of_the_kinds_with_their_sizes() -> None:
    rows = at(0, 2, 4, 88, 90, 92, 94, 96, 180)
    chosen, sizes = prototypes(rows, 3)
    assert chosen.tolist() == [5, 1, 8] and sizes.tolist() == [5, 3, 1]


def test_prototypes_are_as_good_as_the_best_of_all_choices() -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        middles = rng.normal(size=(3, 6))
        rows = middles[np.arange(15) % 3] + 0.2 * rng.normal(size=(15, 6))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        apart = 1 - rows @ rows.T
        best = min(apart[:, list(c)].min(1).sum() for c in combinations(range(15), 3))
        chosen, sizes = prototypes(rows.astype(np.float32), 3, seed=seed)
        assert apart[:, chosen].min(1).sum() == pytest.approx(best, rel=0.02)
        assert sizes.sum() == 15


def test_copies_give_one_prototype_and_few_images_few() -> None:
    chosen, sizes = prototypes(at(7, 7, 7, 7), 3)
    assert chosen.tolist() == [0] and sizes.tolist() == [4]
    assert len(prototypes(at(0, 90), 5)[0]) == 2
    assert len(prototypes(np.zeros((0, 2), np.float32), 2)[0]) == 0
    with pytest.raises(ValueError, match="0 prototypes"):
        prototypes(at(0), 0)


def test_large_classes_are_drawn_from_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typical, "MOST_COMPARED", 40)
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    one, other = (prototypes(rows, 4, seed=3) for _ in range(2))
    assert one[0].tolist() == other[0].tolist() and one[1].sum() == 300
    assert prototypes(rows, 4, seed=4)[0].tolist() != one[0].tolist()
    odd = odd_order(rows, np.ones(300), seed=3)
    assert np.isfinite(odd.apart).all() and sorted(odd.order.tolist()) == list(range(300))


def test_odd_images_stand_apart_or_are_doubted() -> None:
    """By hand: of five images the last stands apart; of confidence .9 .8 .7 .1 .6 the fourth."""
    rows = at(0, 1, 2, 3, 80)
    odd = odd_order(rows, np.array([0.9, 0.8, 0.7, 0.1, 0.6]))
    assert odd.doubted.tolist() == [0, 0.25, 0.5, 1, 0.75]
    assert odd.apart[4] == 1.0 and odd.apart[:4].max() < 1
    assert set(odd.order[:2].tolist()) == {3, 4} and odd.order[0] == 4


def test_what_is_not_known_does_not_count() -> None:
    rows = at(0, 1, 60, 2)
    rows[3] = np.nan
    odd = odd_order(rows, np.array([0.9, np.nan, 0.8, np.nan]))
    assert np.isnan(odd.apart[3]) and np.isnan(odd.doubted[[1, 3]]).all()
    assert odd.order.tolist()[0] == 2 and odd.order.tolist()[-1] == 3
    alone = odd_order(at(0), np.array([0.3]))
    assert np.isnan(alone.apart[0]) and alone.order.tolist() == [0]


def test_equals_are_equally_odd() -> None:
    odd = odd_order(at(0, 0, 0), np.full(3, 0.5))
    assert odd.apart.tolist() == [0.5] * 3 and odd.doubted.tolist() == [0.5] * 3
    assert odd.order.tolist() == [0, 1, 2]


def test_the_order_of_the_images_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(50, 5))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    p, mixed = rng.random(50), rng.permutation(50)
    assert mixed[typical_order(rows[mixed])].tolist() == typical_order(rows).tolist()
    one, other = odd_order(rows, p), odd_order(rows[mixed], p[mixed])
    np.testing.assert_allclose(other.apart, one.apart[mixed])
    np.testing.assert_allclose(other.doubted, one.doubted[mixed])
    assert mixed[other.order[:3]].tolist() == one.order[:3].tolist()
