"""What to label next covers the set, asks where the model doubts, and owns up to what is chance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_similarity

from cnsapp.domain.queue import lookalikes, spread_order, start_strategy, uncertain_diverse


def cloud(n: int, seed: int = 0, d: int = 5) -> np.ndarray:
    """Return n vectors around nowhere in particular."""
    return np.random.default_rng(seed).normal(3, 1, (n, d)).astype(np.float32)


def angles(x: np.ndarray) -> np.ndarray:
    """Return the distance (N, N) of directions, by SciPy, in double precision."""
    centred = x.astype(np.float64) - x.astype(np.float64).mean(0)
    return cdist(centred, centred, "cosine")


@given(st.integers(2, 40), st.integers(0, 10), st.lists(st.integers(0, 39), max_size=8))
def test_each_image_is_the_farthest_from_all_before(n: int, seed: int, chosen: list[int]) -> None:
    x, taken = cloud(n, seed), sorted({i % n for i in chosen})
    order = spread_order(x, taken, n)
    assert sorted([*order, *taken]) == list(range(n))  # each once
    apart = angles(x)
    seen = list(taken)
    for pick in order:
        if seen:
            far = apart[:, seen].min(1)
            left = [i for i in range(n) if i not in seen]
            assert far[pick] >= far[left].max() - 1e-5
        seen.append(int(pick))


def test_no_image_is_farther_than_twice_the_best_cover_allows() -> None:
    # Gonzalez 1985: the greedy radius is at most twice the best one, of chords on the sphere
    x = cloud(14, 3)
    chord = np.sqrt(2 * angles(x).clip(0))
    greedy = chord[:, spread_order(x, [], 4)].min(1).max()
    best = min(chord[:, list(four)].min(1).max() for four in combinations(range(14), 4))
    assert best <= greedy <= 2 * best + 1e-6


def test_the_first_points_where_most_images_are() -> None:
    rng = np.random.default_rng(1)
    most = rng.normal([5, 0, 0], 0.1, (60, 3))
    few = rng.normal([0, 5, 0], 0.1, (20, 3))
    first, second = spread_order(np.concatenate([most, few]).astype(np.float32), [], 2)
    assert first < 60 <= second


def test_every_cluster_is_seen_before_one_is_seen_twice() -> None:
    rng = np.random.default_rng(2)
    centres = 10 * np.eye(6)
    x = np.repeat(centres, 30, axis=0) + rng.normal(0, 0.5, (180, 6))
    order = spread_order(x.astype(np.float32), [5, 40], 4)  # clusters 0 and 1 are known
    assert sorted(order // 30) == [2, 3, 4, 5]


def test_a_longer_order_begins_with_a_shorter_one() -> None:
    x = cloud(50)
    assert spread_order(x, [3], 40)[:7].tolist() == spread_order(x, [3], 7).tolist()


def test_copies_come_last_and_still_once() -> None:
    x = np.repeat(cloud(5), 4, axis=0)
    order = spread_order(x, [], 20)
    assert len(set(order // 4)) == 5 and set(order[:5] // 4) == set(range(5))
    assert sorted(order) == list(range(20))
    assert spread_order(np.ones((4, 3), np.float32), [1], 9).tolist() == [0, 2, 3]


def test_of_a_thousand_images_the_doubtful_and_a_share_by_chance_are_asked() -> None:
    rank = np.random.default_rng(5).permutation(1000)  # of doubt: 0 is the most doubtful
    got = uncertain_diverse(rank / 1000, cloud(1000), 40, seed=3)
    assert len({i for i, _ in got}) == 40
    doubted = [rank[i] for i, reason in got if reason == "uncertain"]
    assert len(doubted) == 36 and [reason for _, reason in got].count("random") == 4
    assert max(doubted) < 4 * 36 + 4  # the pool: four times as many
    assert min(doubted) == 0 or (np.argmin(rank), "random") in got


def test_the_reasons_are_mixed_in_the_order() -> None:
    got = uncertain_diverse(np.linspace(0, 1, 300), cloud(300), 100, random_share=0.5, seed=0)
    reasons = [reason for _, reason in got]
    assert 15 <= reasons[:50].count("random") <= 35 and reasons.count("random") == 50


def test_chance_draws_every_image_alike() -> None:
    margin = np.linspace(0, 1, 50)
    drawn = np.zeros(50)
    for seed in range(600):
        got = uncertain_diverse(margin, cloud(50), 10, random_share=0.5, seed=seed)
        drawn[[i for i, reason in got if reason == "random"]] += 1
    # 600 draws of 5 in 50: 60 each, standard deviation 7.3
    assert drawn.sum() == 3000 and abs(drawn - 60).max() < 4.5 * 7.35
    assert abs(drawn[:25].sum() - 1500) < 4.5 * 27.4  # not more of the doubtful


def test_doubtful_copies_are_asked_about_once() -> None:
    rng = np.random.default_rng(0)
    copies = np.tile([[9.0, 0, 0, 0, 0, 0]], (30, 1)) + rng.normal(0, 0.01, (30, 6))
    others = np.repeat(9 * np.eye(6)[1:], 2, axis=0) + rng.normal(0, 0.01, (10, 6))
    x = np.concatenate([copies, others]).astype(np.float32)
    margin = np.concatenate([np.full(30, 0.01), np.full(10, 0.02)])
    got = uncertain_diverse(margin, x, 6, pool_factor=8, random_share=0, seed=0)
    kinds = {0 if i < 30 else 1 + (i - 30) // 2 for i, _ in got}
    assert kinds == set(range(6))
    plain = uncertain_diverse(margin, x, 6, pool_factor=1, random_share=0, seed=0)
    assert {i for i, _ in plain} == set(range(6))


@given(
    st.lists(st.floats(0, 1), max_size=30),
    st.integers(-1, 40),
    st.floats(0, 1),
    st.floats(1, 9),
    st.integers(0, 3),
)
def test_as_many_are_asked_as_are_wanted_and_there(
    margin: list[float], n: int, share: float, factor: float, seed: int
) -> None:
    x = cloud(len(margin))
    got = uncertain_diverse(
        np.array(margin), x, n, pool_factor=factor, random_share=share, seed=seed
    )
    assert len(got) == len({i for i, _ in got}) == max(0, min(n, len(margin)))
    assert all(0 <= i < len(margin) for i, _ in got)
    again = uncertain_diverse(
        np.array(margin), x, n, pool_factor=factor, random_share=share, seed=seed
    )
    assert got == again


@given(st.integers(3, 30), st.integers(0, 5), st.data())
def test_lookalikes_are_those_of_scikit_learn(n: int, seed: int, data: st.DataObject) -> None:
    x = cloud(n, seed) - 3
    places = st.lists(st.integers(0, n - 1), max_size=5)
    anchors = data.draw(places.filter(bool))
    exclude = data.draw(places)
    found, alike = lookalikes(x, anchors, exclude, 10)
    expected = cosine_similarity(x, x[anchors]).max(1)
    allowed = [i for i in range(n) if i not in {*anchors, *exclude}]
    assert len(found) == min(10, len(allowed)) and set(found) <= set(allowed)
    assert alike == pytest.approx(np.sort(expected[allowed])[::-1][:10], abs=1e-5)
    assert alike == pytest.approx(expected[found], abs=1e-5)


def test_a_vector_of_zeros_is_like_nothing() -> None:
    x = np.array([[1, 0], [0, 0], [2, 0.1], [-1, 0]], np.float32)
    found, alike = lookalikes(x, [0], [], 5)
    assert found.tolist() == [2, 1, 3] and alike[1:].tolist() == [0, -1]


def test_doubts_count_once_every_class_has_five_labels() -> None:
    assert start_strategy([]) == "spread"
    assert start_strategy([50, 4]) == "spread"
    assert start_strategy([5, 5, 900]) == "uncertain"
    assert start_strategy({"a": 5, "b": 0}.values()) == "spread"
    assert start_strategy([1, 1], least=1) == "uncertain"


def test_inputs_stay_as_they_are() -> None:
    x, margin = cloud(30), np.linspace(0, 1, 30)
    before = x.copy()
    spread_order(x, [1], 5)
    uncertain_diverse(margin, x, 5, seed=0)
    lookalikes(x, [1], [], 5)
    assert (x == before).all() and (margin == np.linspace(0, 1, 30)).all()


def test_what_cannot_be_ordered_is_refused() -> None:
    x = cloud(5)
    with pytest.raises(ValueError, match="outside 0 to 4"):
        spread_order(x, [5], 1)
    with pytest.raises(ValueError, match="not \\(N, D\\)"):
        spread_order(x[0], [], 1)
    bad = x.copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="not a number"):
        spread_order(bad, [], 1)
    with pytest.raises(ValueError, match="margins for 5 vectors"):
        uncertain_diverse(np.zeros(4), x, 2, seed=0)
    with pytest.raises(ValueError, match="margin is not a number"):
        uncertain_diverse(np.array([0, 0, 0, 0, np.nan]), x, 2, seed=0)
    with pytest.raises(ValueError, match="out of range"):
        uncertain_diverse(np.zeros(5), x, 2, pool_factor=0.5, seed=0)
    with pytest.raises(ValueError, match="no anchor"):
        lookalikes(x, [], [], 2)
