"""What a model is worth when it may keep silent: risk against coverage, and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import (
    Floats,
    Interval,
    percentiles,
    resampled_sums,
    unit_numbers,
    widened,
    wilson_interval,
)

MOST_POINTS = 200  # of a curve that is drawn
WANTED = (0.9, 0.95, 0.98, 0.99)
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class Answered:
    """What is left when the model answers only from a confidence on.

    Attributes
    ----------
    threshold
        Least confidence of an answer, 0 to 1.
    n
        Images that are answered.
    coverage
        Their share of all images, 0 to 1.
    accuracy, interval
        Share of right answers among them, with its 95 % interval; None without answers.
    """

    threshold: float
    n: int
    coverage: float
    accuracy: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Abstention:
    """The risk-coverage curve and what follows from it.

    Attributes
    ----------
    n, n_groups, interval_by
        Images, their groups, and what the intervals respect.
    curve
        (coverage, risk): the share of answered images, most confident first, and the share of
        wrong answers among them; at most 200 points. Images of one confidence come together.
    aurc
        Area under the whole curve: the mean risk over all coverages, 0 (best) to 1.
    by_threshold
        At round thresholds.
    wanted
        (accuracy, what reaches it at the largest coverage, or None where no threshold does).
    """

    n: int
    n_groups: int | None
    interval_by: str
    curve: list[tuple[float, float]]
    aurc: float | None
    by_threshold: list[Answered]
    wanted: list[tuple[float, Answered | None]]


def abstention(
    confidence: NDArray[np.floating],
    right: NDArray[np.bool_],
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
) -> Abstention:
    """Return what is gained by answering only when sure.

    Parameters
    ----------
    confidence
        (N,) probability of the predicted class, 0 to 1.
    right
        (N,) whether the answer is right.
    groups
        Group of each image, or None.

    Notes
    -----
    A threshold that is read off the images it is judged on looks a little better than it is; the
    wanted accuracy is reached by these images, not promised for others.

    References
    ----------
    Geifman and El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017; Geifman
    et al., Bias-reduced uncertainty estimation for deep neural classifiers, ICLR 2019 (AURC).
    """
    sure, hit = np.asarray(confidence, np.float64), np.asarray(right, bool)
    by_group = groups is not None and any(groups)
    units = unit_numbers(groups, len(sure))
    n_groups = int(units.max()) + 1 if by_group and len(sure) else None
    by = "group" if by_group else "image"
    if not len(sure):
        return Abstention(0, n_groups, by, [], None, [], [(goal, None) for goal in WANTED])
    levels, covered, wrong = _by_level(sure, hit)
    wanted = [(goal, _threshold_for(goal, levels, covered, wrong)) for goal in WANTED]
    asked = [*THRESHOLDS, *(level for _, level in wanted if level is not None)]
    rows = dict(zip(asked, _answered(sure, hit, asked, groups, seed), strict=True))
    return Abstention(
        n=len(sure),
        n_groups=n_groups,
        interval_by=by,
        curve=_drawn(covered, wrong),
        aurc=_area(covered, wrong),
        by_threshold=[rows[level] for level in THRESHOLDS],
        wanted=[(goal, None if level is None else rows[level]) for goal, level in wanted],
    )


def _by_level(sure: Floats, hit: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return each distinct confidence, highest first, with the answers and errors down to it."""
    order = np.argsort(-sure, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(sure[order])), len(sure) - 1]
    wrong = np.cumsum(~hit[order])[ends].astype(np.float64)
    return sure[order][ends], ends + 1.0, wrong


def _area(covered: Floats, wrong: Floats) -> float:
    """Return the mean risk over n = 1 to N answers; inside a tie errors are spread evenly."""
    starts, before = np.r_[0.0, covered[:-1]], np.r_[0.0, wrong[:-1]]
    sums = np.r_[0.0, np.cumsum(1.0 / np.arange(1, int(covered[-1]) + 1))]
    inverse = sums[covered.astype(np.int64)] - sums[starts.astype(np.int64)]
    rate = (wrong - before) / (covered - starts)  # errors an answer within the tie
    total = (before - rate * starts) * inverse + rate * (covered - starts)
    return float(total.sum() / covered[-1])


def _threshold_for(goal: float, levels: Floats, covered: Floats, wrong: Floats) -> float | None:
    """Return the lowest confidence from which on the answers are right often enough."""
    good = np.flatnonzero(1 - wrong / covered >= goal - 1e-12)
    return float(levels[good[-1]]) if len(good) else None


def _drawn(covered: Floats, wrong: Floats) -> list[tuple[float, float]]:
    share, risk = covered / covered[-1], wrong / covered
    keep = np.arange(len(share))
    if len(keep) > MOST_POINTS:
        wanted = np.linspace(0, 1, MOST_POINTS)[1:]
        keep = np.unique(np.r_[0, np.searchsorted(share, wanted - 1e-12)])
    return list(zip(share[keep].tolist(), risk[keep].tolist(), strict=True))


def _answered(
    sure: Floats,
    hit: NDArray[np.bool_],
    thresholds: Sequence[float],
    groups: Sequence[str | None] | None,
    seed: int,
) -> list[Answered]:
    n_levels = len(thresholds)
    passed = sure[:, None] >= np.asarray(thresholds)[None]  # (N, thresholds)
    n, good = passed.sum(0), (passed & hit[:, None]).sum(0)
    by_group = groups is not None and any(groups)
    drawn, holding = None, n
    if by_group:
        units = unit_numbers(groups, len(sure))
        # an image is known by how many of the sorted thresholds it passes, and whether it is right
        steps = np.sort(np.asarray(thresholds))
        cells = 2 * np.searchsorted(steps, sure, side="right") + hit
        level = np.arange(n_levels + 1)
        counts = (level[:, None] > np.searchsorted(steps, thresholds)[None]).astype(np.int64)
        features = np.hstack([np.repeat(counts, 2, axis=0), np.repeat(counts, 2, axis=0)])
        features[::2, n_levels:] = 0
        drawn = resampled_sums(units, cells, 2 * (n_levels + 1), features, seed=seed)
        holding = np.array([len(np.unique(units[column])) for column in passed.T])
    found = []
    for k, threshold in enumerate(thresholds):
        share = float(good[k] / n[k]) if n[k] else None
        if not by_group:
            spread = wilson_interval(int(good[k]), int(n[k]))
        elif drawn is None:
            spread = None
        else:
            with np.errstate(invalid="ignore", divide="ignore"):
                values = drawn[:, n_levels + k] / drawn[:, k]
            spread = widened(percentiles(values, int(holding[k])), share, int(holding[k]))
        found.append(Answered(float(threshold), int(n[k]), float(n[k] / len(sure)), share, spread))
    return found
