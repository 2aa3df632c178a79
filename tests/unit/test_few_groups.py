"""Intervals from few groups: as wide as they must be to hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cnsapp.domain.compare import compare
from cnsapp.domain.metrics import evaluate
from cnsapp.domain.resampling import Interval, percentiles
from cnsapp.domain.student import student_p, student_quantile, tail_of


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 30, 199, 500])
def test_student_is_that_of_scipy(degrees: int) -> None:
    assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=0.006)
    assert student_p(1.7, degrees) == pytest.approx(2 * stats.t.sf(1.7, degrees), abs=1e-3)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40, 1000])
def test_the_tails_are_those_of_the_expanded_percentile_interval(n: int) -> None:
    wanted = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1))
    assert tail_of(n) == pytest.approx(wanted, rel=0.02, abs=1e-6)


def test_percentiles_of_many_units_are_the_plain_ones() -> None:
    values = np.random.default_rng(0).random(4000)
    plain = tuple(np.quantile(values, [0.025, 0.975]))
    assert percentiles(values) == pytest.approx(plain)
    assert percentiles(values, 5000) == pytest.approx(plain, abs=2e-4)
    few = percentiles(values, 4)
    assert few is not None and few[0] < plain[0] - 0.01 and few[1] > plain[1] + 0.01


def balanced(rng: np.random.Generator, n_groups: int) -> Interval | None:
    skill = 1 / (1 + np.exp(-rng.normal(1.2, 1.2, n_groups)))
    place = np.repeat(np.arange(n_groups), 15)
    true = rng.integers(0, 2, len(place))
    said = np.where(rng.random(len(place)) < skill[place], true, 1 - true)
    return evaluate(true, said, 2, [str(i) for i in place]).interval


@pytest.mark.parametrize(("n_groups", "least"), [(6, 0.87), (10, 0.90)])
def test_an_interval_from_few_groups_holds_the_truth(n_groups: int, least: float) -> None:
    rng = np.random.default_rng(n_groups)
    normal = np.random.default_rng(1).normal(1.2, 1.2, 200_000)
    truth = float((1 / (1 + np.exp(-normal))).mean())
    found = [balanced(rng, n_groups) for _ in range(300)]
    held = [low <= truth <= high for low, high in (spread for spread in found if spread)]
    assert len(held) == 300
    assert np.mean(held) >= least  # plain percentiles: 0.82 and 0.87


def test_the_interval_of_a_difference_is_as_wide() -> None:
    rng, held = np.random.default_rng(5), []
    for _ in range(200):
        place = np.repeat(np.arange(6), 15)
        true = np.tile([0, 1], 45)
        skill = 1 / (1 + np.exp(-rng.normal(1.2, 1.2, (2, 6))))
        said = np.where(rng.random((2, 90)) < skill[:, place], true, 1 - true)
        pair = compare(true, said, 2, [str(i) for i in place], n_resamples=600).pairs[0]
        held.append(pair.interval is not None and pair.interval[0] <= 0 <= pair.interval[1])
    assert np.mean(held) >= 0.88
