"""Rounds, allotments and the choice of a search, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cnsapp.domain.search import Round, allotment, choose, go_on, nested_answers, plan_rounds


def test_rounds_grow_to_everything() -> None:
    few = plan_rounds(2, 5, fine_tuned=False, can_share=True)
    assert few == [Round(1.0, 5, 1.0)]
    many = plan_rounds(8, 5, fine_tuned=False, can_share=True)
    assert [r.share for r in many] == [0.25, 0.5, 1.0] and {r.n_folds for r in many} == {5}
    tuned = plan_rounds(4, 5, fine_tuned=True, can_share=False)
    assert tuned == [Round(1.0, 1, 0.5), Round(1.0, 2, 1.0)]
    # little data and nothing to fine-tune: a smaller round would leave nothing out
    assert plan_rounds(8, 5, fine_tuned=False, can_share=False) == [Round(1.0, 5, 1.0)]


def test_the_better_half_goes_on_and_the_simpler_of_two_equal_ones() -> None:
    scores = {0: 0.7, 1: 0.9, 2: 0.9, 3: None, 4: 0.5}
    simple = {0: 0.0, 1: 2.0, 2: 1.0, 3: 0.0, 4: 0.0}
    assert go_on(scores, simple) == [2, 1]
    assert go_on({0: 0.7, 1: 0.9, 2: None}, simple) == [1, 0]  # two can still be told apart
    assert go_on({0: 0.7}, simple) == [0]


def test_time_that_is_not_needed_goes_to_those_after() -> None:
    # 300 s, 3 rounds, 4 candidates: 100 s a round, 25 s each
    assert allotment(300, 0, 0, rounds_left=3, candidates_left=4) == pytest.approx(25)
    assert allotment(300, 0, 10, rounds_left=3, candidates_left=3) == pytest.approx(30)
    assert allotment(300, 60, 0, rounds_left=2, candidates_left=2) == pytest.approx(60)
    assert allotment(300, 310, 0, rounds_left=1, candidates_left=1) == 0


def world(skill: list[float], n_groups: int = 40) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 10 * n_groups)
    said = np.stack([np.where(rng.random(len(true)) < s, true, 1 - true) for s in skill])
    return true, said, [f"p{i // 10}" for i in range(len(true))]


def test_a_clear_winner_wins_and_a_hair_does_not_beat_the_simpler_one() -> None:
    true, said, groups = world([0.7, 0.9])
    assert choose(true, said, 2, groups, [(0, 1), (1, 9)]) == 1
    close = np.stack([said[1], said[1].copy()])
    close[1, 0] = true[0]  # one image more
    close[0, 0] = 1 - true[0]
    assert choose(true, close, 2, groups, [(0, 1), (1, 9)]) == 0
    assert choose(true, close, 2, groups, [(1, 9), (0, 1)]) == 1
    assert choose(true, close[:1], 2, groups, [(0, 1)]) == 0


def test_the_nested_score_is_free_of_the_winners_luck() -> None:
    # twelve candidates that all guess: the best of them looks good, choosing anew does not
    rng = np.random.default_rng(1)
    true = rng.integers(0, 2, 200)
    said = rng.integers(0, 2, (12, 200))
    folds = np.arange(200) % 5
    simple = [(0.0, float(k)) for k in range(12)]
    lucky = max((row == true).mean() for row in said)
    nested = nested_answers(true, said, 2, None, folds, simple)
    assert nested is not None and lucky > 0.55
    assert (nested == true).mean() < lucky
    assert nested_answers(true, said[:1], 2, None, folds, simple[:1]) is None
    assert nested_answers(true, said, 2, None, np.zeros(200, int), simple) is None
