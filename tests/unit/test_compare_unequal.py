"""Comparing models where classes are of unequal size: p speaks of the figure that is shown."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cnsapp.domain.compare import IMAGES, MCNEMAR, compare, mcnemar_exact


def answers(true: np.ndarray, wrong: list[int]) -> np.ndarray:
    said = true.copy()
    said[wrong] = 1 - true[wrong]
    return said


def test_a_model_that_is_worse_by_mcnemar_is_not_called_better_by_its_p() -> None:
    # 1,000 images of a common class, 10 of a rare one: the second errs on 50 common images, the
    # first on a single rare one. By accuracy the first is clearly better; by balanced accuracy the
    # second falls behind by 0.05 less 0.1, which one image decides
    true = np.r_[np.zeros(1000, int), np.ones(10, int)]
    first, second = answers(true, [1000]), answers(true, list(range(50)))
    (pair,) = compare(true, np.stack([first, second]), 2).pairs
    assert pair.difference == pytest.approx(-0.025)
    assert pair.mcnemar_p == pytest.approx(mcnemar_exact(50, 1)) and pair.mcnemar_p < 1e-12
    # of the ways to exchange 50 steps of 1/2000 and one of 1/20, nearly all reach 0.025
    assert pair.test == IMAGES
    assert pair.p_value == pytest.approx(1.0, abs=0.01) and not pair.shown


@pytest.mark.parametrize("seed", range(8))
def test_the_exchange_by_image_counts_every_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = np.r_[np.zeros(9, int), np.ones(4, int), np.full(3, 2)]
    said = np.where(rng.random((2, 16)) < 0.6, true, (true + 1) % 3)
    (pair,) = compare(true, said, 3, n_resamples=50).pairs
    n = np.bincount(true)
    steps = ((said[0] == true).astype(float) - (said[1] == true)) / (3 * n[true])
    steps = steps[steps != 0]
    seen = abs(steps.sum())
    ways = [abs(np.dot(signs, steps)) for signs in product((1, -1), repeat=len(steps))]
    assert pair.p_value == pytest.approx(np.mean(np.array(ways) >= seen - 1e-12))


def test_with_classes_of_one_size_it_is_mcnemars_test() -> None:
    rng = np.random.default_rng(3)
    true = np.repeat([0, 1], 60)
    said = np.where(rng.random((2, 120)) < [[0.9], [0.7]], true, 1 - true)
    (pair,) = compare(true, said, 2, n_resamples=50).pairs
    assert pair.test == MCNEMAR
    assert pair.p_value == pair.mcnemar_p == mcnemar_exact(pair.only_first, pair.only_second)


def test_many_images_are_drawn_and_come_close_to_the_normal_tail() -> None:
    rng = np.random.default_rng(4)
    true = np.repeat([0, 1, 2, 3], [900, 500, 300, 100])
    wrong = rng.random((2, 1800)) < [[0.2], [0.23]]
    said = np.where(wrong, (true + 1) % 4, true)
    (pair,) = compare(true, said, 4, n_resamples=50).pairs
    n = np.bincount(true)
    steps = ((said[0] == true).astype(float) - (said[1] == true)) / (4 * n[true])
    z = steps.sum() / np.sqrt((steps**2).sum())
    from scipy.stats import norm

    assert pair.p_value == pytest.approx(2 * norm.sf(abs(z)), abs=0.02)


def test_where_images_have_groups_mcnemar_is_not_told() -> None:
    true = np.array([0, 1, 0, 1])
    (pair,) = compare(true, np.stack([true, 1 - true]), 2, ["a", "a", "b", "b"]).pairs
    assert pair.mcnemar_p is None
