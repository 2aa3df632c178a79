"""How accuracy grows with labels, and how many more a further gain will take, if that can be told.

The curve is accuracy(n) = a - b n^-c: it rises, ever more slowly, to a ceiling a. Few points leave
much open, so the answer is not one curve but many, drawn from all that fit the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_POINTS = 4
MOST_LABELS = 1e7  # beyond, no number is meant
VAGUEST = 4.0  # high / low, above which a number would mislead
FLAT = 10  # times as many labels are more than anybody gives
EXPONENTS = np.geomspace(0.1, 2.0, 48)  # Viering and Loog: curves seen in practice lie within
DRAWS_EACH = 400  # per exponent


@dataclass(frozen=True)
class CurveFit:
    """Curves a - b n^-c that fit the points.

    Attributes
    ----------
    a, b, c
        The best one: ceiling (0 to 1), height below it at n = 1 (0 or more), exponent (> 0).
    n_points
        Points it was fitted to.
    n_range
        Fewest and most labels among them.
    noise
        Standard error of a point at the most labels, as the points or the caller say.
    draws
        (S, 3) curves a, b, c, each as likely as the others.
    """

    a: float
    b: float
    c: float
    n_points: int
    n_range: tuple[float, float]
    noise: float
    draws: Floats = field(repr=False)

    def at(self, n: float | Floats) -> Floats:
        """Return the accuracy of the best curve at n labels."""
        return np.asarray(self.a - self.b * np.asarray(n, np.float64) ** -self.c)

    def band(self, n: float | Floats, level: float = 0.9) -> tuple[Floats, Floats]:
        """Return the lowest and highest accuracy at n labels (M,) that `level` of the curves have.

        It is a band for the curve, not for a single measurement, which scatters around it.
        """
        at = np.atleast_1d(np.asarray(n, np.float64))
        a, b, c = self.draws.T[:, :, None]
        low, high = np.quantile(a - b * at**-c, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


@dataclass(frozen=True)
class Forecast:
    """How many more labels a gain takes.

    Attributes
    ----------
    labels
        (estimate, low, high) further labels, with a range of 80 %; None when it cannot be told.
    reason
        Why it cannot be told, a sentence; empty otherwise.
    """

    labels: tuple[int, int, int] | None
    reason: str = ""


def fit_curve(
    n_labels: Sequence[float],
    accuracy: Sequence[float],
    *,
    errors: Sequence[float] | None = None,
    seed: int = 0,
) -> CurveFit | None:
    """Fit a - b n^-c with 0 <= a <= 1 and b >= 0 to the accuracy at several numbers of labels.

    A point's variance falls as 1 / n, so points weigh as n (Figueroa). For each exponent on a grid,
    a and b follow by weighted least squares; the curves drawn are those that the points leave
    likely, with a flat prior on the accuracy at both ends, on log c, and on the noise's logarithm.

    Parameters
    ----------
    n_labels
        (M,) labels the model had learnt from, 1 or more; any order, repeats allowed.
    accuracy
        (M,) accuracy (or balanced accuracy) on images it had not learnt from, 0 to 1.
    errors
        (M,) standard error of each, above 0, where known; then they weigh the points. Scatter
        beyond them widens the range.
    seed
        Of the draws.

    Returns
    -------
    None with fewer than `FEWEST_POINTS` different numbers of labels.

    Raises
    ------
    ValueError
        Lengths differ, or a value is out of range.

    References
    ----------
    Figueroa et al., Predicting sample size required for classification performance, BMC Med.
    Inform. Decis. Mak. 2012; Viering and Loog, The shape of learning curves: a review, IEEE TPAMI
    2022; Gelman et al., Bayesian data analysis, 3rd ed. 2013, ch. 14 (weighted regression).
    """
    n, y, weight = _checked(n_labels, accuracy, errors)
    if len(np.unique(n)) < FEWEST_POINTS:
        return None
    solved = _least_squares(n, y, weight)
    best = int(np.argmin(solved.misfit))
    degrees = len(n) - 3
    scatter = solved.misfit[best] / max(degrees, 1)
    if errors is not None:
        scatter = max(1.0, scatter)
    draws = _draw(solved, n, scatter, None if errors is not None else degrees, seed)
    noise = float(np.sqrt(scatter / weight[np.argmax(n)]))
    a, b = solved.bounded[best]
    ends = (float(n.min()), float(n.max()))
    return CurveFit(float(a), float(b), float(EXPONENTS[best]), len(n), ends, noise, draws)


def labels_for_gain(fit: CurveFit | None, n_now: int, gain: float = 0.01) -> Forecast:
    """Return how many more labels raise the accuracy by `gain`, or why nobody can tell.

    Parameters
    ----------
    fit
        From `fit_curve`.
    n_now
        Labels there are now, 1 or more.
    gain
        Absolute gain, above 0: 0.01 is one percentage point.

    Raises
    ------
    ValueError
        `n_now` or `gain` is out of range.
    """
    if n_now < 1 or not 0 < gain < 1:
        raise ValueError(f"n_now {n_now} or gain {gain} out of range")
    if fit is None:
        return Forecast(None, f"There are fewer than {FEWEST_POINTS} points on the curve.")
    points = f"{100 * gain:g} percentage point{'' if gain == 0.01 else 's'}"
    a, b, c = fit.draws.T
    goal = a - b * float(n_now) ** -c + gain
    room = a - goal  # what is left below the ceiling once the goal is reached
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        needed = np.where((room > 0) & (b > 0), (b / room) ** (1 / c), np.inf) - n_now
    needed[needed > MOST_LABELS] = np.inf
    low, likely, middle, high = np.quantile(needed, [0.1, 0.4, 0.5, 0.9], method="higher")
    if likely > (FLAT - 1) * n_now:
        return Forecast(
            None,
            f"The curve is flat: even {FLAT} times as many labels would probably not give "
            f"{points} more.",
        )
    if np.isinf(high):
        return Forecast(
            None, f"The points do not show whether {points} more can be reached with more labels."
        )
    low = max(low, 1.0)
    if high / low > VAGUEST:
        return Forecast(
            None,
            f"The points are too few or scatter too much: {points} more may take "
            f"{_round(low):,} labels or {_round(high):,}.",
        )
    return Forecast((_round(middle), _round(low), _round(high)))


@dataclass(frozen=True)
class _Solved:
    """Least-squares lines for every exponent: (G,) or (G, 2), (G, 2, 2)."""

    free: Floats  # a, b without bounds
    bounded: Floats  # a, b within them
    misfit: Floats  # weighted sum of squares of the bounded line
    free_misfit: Floats
    covariance: Floats  # of a, b for noise of variance 1 / weight


def _least_squares(n: Floats, y: Floats, weight: Floats) -> _Solved:
    x = -(n[None, :] ** -EXPONENTS[:, None])  # (G, M): accuracy = a + b x
    total, mean_y = weight.sum(), weight @ y / weight.sum()
    mean_x = x @ weight / total
    spread = ((x - mean_x[:, None]) ** 2) @ weight
    slope = ((x - mean_x[:, None]) * (y - mean_y)) @ weight / spread
    free = np.stack([mean_y - slope * mean_x, slope], axis=1)
    # under a ceiling of 1 the best slope through (0, 1); below a slope of 0 a flat line
    capped = np.maximum((x * (y - 1)) @ weight / ((x**2) @ weight), 0)
    bounded = free.copy()
    high = free[:, 0] > 1
    bounded[high] = np.stack([np.ones(high.sum()), capped[high]], axis=1)
    flat = bounded[:, 1] < 0
    bounded[flat] = [min(mean_y, 1.0), 0.0]
    cov = np.empty((len(x), 2, 2))
    cov[:, 1, 1] = 1 / spread
    cov[:, 0, 1] = cov[:, 1, 0] = -mean_x / spread
    cov[:, 0, 0] = 1 / total + mean_x**2 / spread
    return _Solved(free, bounded, _misfit(bounded, x, y, weight), _misfit(free, x, y, weight), cov)


def _misfit(lines: Floats, x: Floats, y: Floats, weight: Floats) -> Floats:
    return np.asarray(((y - lines[:, :1] - lines[:, 1:] * x) ** 2) @ weight)


def _draw(solved: _Solved, n: Floats, scatter: float, degrees: int | None, seed: int) -> Floats:
    """Draw curves as likely as the points leave them; those out of bounds are not drawn.

    Given exponent and noise, a and b are normal around the free line; an exponent weighs by how
    well its free line fits, times the room that the draws have (the normal's area in terms of the
    accuracy at both ends), times the share of them within the bounds.
    """
    rng = np.random.default_rng(seed)
    size = (len(EXPONENTS), DRAWS_EACH)
    scale = max(scatter, 1e-9)
    if degrees is None:
        variance = np.full(size, scale)
    else:  # few points say little about their own scatter
        df = max(degrees, 1)
        variance = scale * df / rng.chisquare(df, size)
    root = np.linalg.cholesky(solved.covariance)
    normal = rng.standard_normal((*size, 2)) * np.sqrt(variance)[..., None]
    lines = solved.free[:, None] + np.einsum("gij,gsj->gsi", root, normal)
    area = np.abs(n.min() ** -EXPONENTS - n.max() ** -EXPONENTS) * np.sqrt(
        np.linalg.det(solved.covariance)
    )
    extra = solved.free_misfit - solved.misfit.min()
    log_weight = np.log(area)[:, None] - 0.5 * extra[:, None] / variance
    inside = (lines[..., 0] <= 1) & (lines[..., 1] >= 0)
    curves = np.concatenate(
        [lines, np.broadcast_to(EXPONENTS[:, None, None], (*size, 1))], axis=2
    ).reshape(-1, 3)
    weight = np.where(inside, np.exp(log_weight - log_weight.max()), 0).ravel()
    if not weight.sum() > 0:  # falling points: only flat lines are left
        return np.column_stack([solved.bounded, EXPONENTS])
    picks = rng.choice(len(curves), 4000, p=weight / weight.sum())
    return np.asarray(curves[picks])


def _checked(
    n_labels: Sequence[float], accuracy: Sequence[float], errors: Sequence[float] | None
) -> tuple[Floats, Floats, Floats]:
    n, y = np.asarray(n_labels, np.float64), np.asarray(accuracy, np.float64)
    if n.shape != y.shape or n.ndim != 1 or (errors is not None and len(errors) != len(n)):
        raise ValueError(f"lengths differ: {n.shape} numbers of labels, {y.shape} accuracies")
    if not ((n >= 1) & np.isfinite(n)).all():
        raise ValueError("a number of labels is below 1")
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError("an accuracy lies outside 0 to 1")
    if errors is None:
        return n, y, n / n.mean() if len(n) else n
    spread = np.asarray(errors, np.float64)
    if not ((spread > 0) & np.isfinite(spread)).all():
        raise ValueError("a standard error is not above 0")
    return n, y, 1 / spread**2


def _round(labels: float) -> int:
    """Return the number to two digits: more would be made up."""
    return int(float(f"{labels:.2g}"))
