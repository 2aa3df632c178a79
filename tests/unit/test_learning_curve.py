"""The forecast holds where it speaks, and it is silent where the points do not say."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import curve_fit

from cnsapp.domain.learning_curve import fit_curve, labels_for_gain

SIZES = np.array([25, 50, 75, 100, 150, 200, 250, 300.0])


def truth(a: float, b: float, c: float, n: np.ndarray) -> np.ndarray:
    """Return the power law itself."""
    return a - b * n**-c


def test_points_without_scatter_give_the_curve_back_and_the_exact_number() -> None:
    n = np.array([25, 50, 100, 200, 400, 800.0])
    fit = fit_curve(n, truth(0.95, 1.5, 0.5, n), errors=[1e-4] * 6)
    assert fit is not None
    # 0.5 lies between two exponents of the grid, which are 6.6 % apart
    assert fit.c == pytest.approx(0.5, rel=0.035) and fit.a == pytest.approx(0.95, abs=0.005)
    assert fit.at(n) == pytest.approx(truth(0.95, 1.5, 0.5, n), abs=1e-3)
    # 1.5 n^-0.5 falls by 0.01 from 800 labels to (1.5 / (1.5 / 800^0.5 - 0.01))^2 = 1214.9
    labels = labels_for_gain(fit, 800, 0.01).labels
    assert labels is not None and labels[0] == pytest.approx(415, rel=0.05)
    assert labels[1] <= 415 * 1.05 and labels[2] >= 415 / 1.05


def test_the_curve_is_the_one_that_scipy_finds() -> None:
    rng = np.random.default_rng(5)
    y = truth(0.93, 1.2, 0.6, SIZES) + rng.normal(0, 0.004, len(SIZES))
    fit = fit_curve(SIZES, y)
    assert fit is not None

    def curve(n: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a - b * n**-c

    bounds = ([0, 0, 0.1], [1, np.inf, 2])
    found, _ = curve_fit(
        curve, SIZES, y, p0=[0.9, 1, 0.5], sigma=SIZES**-0.5, bounds=bounds, max_nfev=20_000
    )

    def misfit(values: np.ndarray) -> float:
        return float((SIZES * (y - values) ** 2).sum())

    assert misfit(fit.at(SIZES)) <= misfit(curve(SIZES, *found)) * 1.01
    assert fit.at(SIZES) == pytest.approx(curve(SIZES, *found), abs=1e-3)


def test_every_curve_drawn_rises_and_stays_below_one() -> None:
    rng = np.random.default_rng(1)
    fit = fit_curve(SIZES, np.clip(truth(0.98, 2, 0.6, SIZES) + rng.normal(0, 0.02, 8), 0, 1))
    assert fit is not None
    a, b, c = fit.draws.T
    assert (a <= 1).all() and (b >= 0).all() and (c > 0).all()
    assert (fit.draws[:, 2].min(), fit.draws[:, 2].max()) != (fit.c, fit.c)
    low, high = fit.band(SIZES)
    assert (low <= high).all() and (high <= 1).all()


@pytest.mark.parametrize("known", [True, False])
def test_nine_bands_in_ten_hold_the_curve_half_as_far_again(known: bool) -> None:
    rng = np.random.default_rng(2)
    errors = 0.01 * np.sqrt(300 / SIZES)
    held, told, right = 0, 0, 0
    needed = (1.2 / (1.2 * 300**-0.5 - 0.01)) ** 2 - 300  # 110 labels more for one point
    for seed in range(150):
        y = np.clip(truth(0.95, 1.2, 0.5, SIZES) + rng.normal(0, errors), 0, 1)
        fit = fit_curve(SIZES, y, errors=errors if known else None, seed=seed)
        assert fit is not None
        low, high = fit.band(450)
        held += bool(low[0] <= truth(0.95, 1.2, 0.5, np.array([450.0]))[0] <= high[0])
        labels = labels_for_gain(fit, 300, 0.01).labels
        if labels is not None:
            told += 1
            right += labels[1] / 1.05 <= needed <= labels[2] * 1.05  # two digits are given
            assert labels[1] <= labels[0] <= labels[2] <= 4.2 * labels[1]
    assert 0.82 <= held / 150 <= 0.97
    assert told > 15 and right / told >= 0.8


def test_a_flat_curve_is_called_flat() -> None:
    rng = np.random.default_rng(3)
    said = []
    for seed in range(30):
        fit = fit_curve(SIZES, 0.85 + rng.normal(0, 0.003, 8), errors=[0.003] * 8, seed=seed)
        forecast = labels_for_gain(fit, 300)
        assert forecast.labels is None
        said.append("The curve is flat: even 10 times as many labels" in forecast.reason)
    assert np.mean(said) > 0.7


def test_falling_points_are_flat_too() -> None:
    fit = fit_curve(SIZES, np.linspace(0.9, 0.7, 8))
    assert fit is not None and fit.b == 0
    assert "flat" in labels_for_gain(fit, 300).reason
    exact = fit_curve(SIZES, np.linspace(0.9, 0.2, 8), errors=[1e-5] * 8)
    assert exact is not None and labels_for_gain(exact, 300).labels is None


def test_scatter_that_hides_the_curve_is_said_not_guessed() -> None:
    rng = np.random.default_rng(4)
    for seed in range(20):
        y = np.clip(truth(0.95, 1.2, 0.5, SIZES) + rng.normal(0, 0.04, 8), 0, 1)
        forecast = labels_for_gain(fit_curve(SIZES, y, seed=seed), 300)
        assert forecast.labels is None
        assert forecast.reason.endswith(".") and "1 percentage point" in forecast.reason


def test_few_points_make_no_curve() -> None:
    assert fit_curve([25, 50, 100], [0.6, 0.7, 0.8]) is None
    assert fit_curve([25, 25, 25, 50, 100], [0.6, 0.6, 0.6, 0.7, 0.8]) is None
    assert fit_curve([], []) is None
    assert labels_for_gain(None, 100).reason == "There are fewer than 4 points on the curve."
    assert fit_curve([25, 50, 100, 200], [0.6, 0.7, 0.8, 0.85]) is not None


def test_points_with_more_labels_weigh_more() -> None:
    n = [20, 40, 80, 160, 320, 640]
    y = truth(0.9, 1.0, 0.5, np.array(n, float))
    early, late = y.copy(), y.copy()
    early[0] += 0.02
    late[-1] += 0.02
    at = np.array([640.0])
    base, moved_early, moved_late = (fit_curve(n, v) for v in (y, early, late))
    assert base and moved_early and moved_late
    assert abs(moved_late.at(at) - base.at(at)) > 3 * abs(moved_early.at(at) - base.at(at))


def test_the_order_of_points_and_the_seed_settle_everything() -> None:
    y = truth(0.9, 1.0, 0.5, SIZES) + 0.003 * np.cos(SIZES)
    one, other = fit_curve(SIZES, y, seed=3), fit_curve(SIZES, y, seed=3)
    turned = fit_curve(SIZES[::-1], y[::-1], seed=3)
    assert one and other and turned
    assert (one.draws == other.draws).all()
    assert turned.at(500) == pytest.approx(one.at(500))


def test_what_is_no_point_is_refused() -> None:
    with pytest.raises(ValueError, match="lengths differ"):
        fit_curve([1, 2], [0.5])
    with pytest.raises(ValueError, match="outside 0 to 1"):
        fit_curve([1, 2], [0.5, 50])
    with pytest.raises(ValueError, match="below 1"):
        fit_curve([0, 2], [0.5, 0.5])
    with pytest.raises(ValueError, match="not above 0"):
        fit_curve([1, 2], [0.5, 0.5], errors=[0.1, 0])
    with pytest.raises(ValueError, match="gain 0"):
        labels_for_gain(None, 100, 0)


def test_the_rules_are_loaded_without_scipy() -> None:
    code = (
        "import sys, cnsapp.domain.learning_curve, cnsapp.domain.agreement, cnsapp.domain.queue\n"
        "import cnsapp.domain.consensus, cnsapp.domain.pace, cnsapp.domain.scheme_files\n"
        "sys.exit(', '.join({'scipy', 'sklearn', 'torch', 'pandas'} & set(sys.modules)) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
