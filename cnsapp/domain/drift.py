"""Are new images of another kind than the old ones? Two samples, whole groups at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.guessing import Guessed, by_line, guess, shuffled
from cnsapp.domain.resampling import Floats, Ints
from cnsapp.domain.slices import holm
from cnsapp.domain.splits import grouped_folds

Check = Callable[[], None]
FEWEST_UNITS = 4  # groups (or images) on either side
FEWEST = 20  # images on either side
N_SHUFFLES = 199
N_FOLDS = 5


@dataclass(frozen=True)
class Shift:
    """How one measure of the pictures moved.

    Attributes
    ----------
    old, new
        Medians.
    higher
        Chance that a new image has the higher value than an old one, ties half: 0.5 is no shift.
    p, p_holm
        Of "no shift", two-sided, whole groups shuffled; and corrected for the measures.
    """

    name: str
    n_old: int
    n_new: int
    old: float
    new: float
    higher: float
    p: float
    p_holm: float


def why_not(is_new: NDArray[np.bool_], units: Ints) -> str | None:
    """Return in words why two samples can not be compared, or None where they can.

    Any patient differs from any other: with one new patient a difference says nothing of the new
    images as such. With 4 groups against 4, 70 orders differ, enough for a p-value of 0.05.
    """
    for name, mine in (("old", ~is_new), ("new", is_new)):
        n, n_units = int(mine.sum()), len(np.unique(units[mine]))
        if n < FEWEST:
            return f"There are {n} {name} images; {FEWEST} are needed."
        if n_units < FEWEST_UNITS:
            return (
                f"The {name} images come from {n_units} "
                f"{'group' if n_units == 1 else 'groups'}; {FEWEST_UNITS} are needed, since any "
                "patient differs from any other."
            )
    return None


def drift(
    rows: NDArray[np.floating],
    is_new: NDArray[np.bool_],
    units: Ints,
    *,
    seed: int = 0,
    n_shuffles: int = N_SHUFFLES,
    check: Check = lambda: None,
) -> Guessed:
    """Test whether a classifier can tell new images from old ones, on groups it has not seen.

    Parameters
    ----------
    rows
        (N, D) features.
    is_new
        (N,) which images are new.
    units
        (N,) group of each image, or the image itself.

    Returns
    -------
    Class 1 is new. A balanced accuracy of 0.5 is no difference, 1 two kinds of images.

    References
    ----------
    Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017; Rabanser et al.,
    Failing loudly, NeurIPS 2019.
    """
    y = np.asarray(is_new).astype(np.int64)
    plan = grouped_folds(y, [f"u{unit}" for unit in units], n_folds=N_FOLDS, seed=seed)
    answers = by_line(rows, plan.folds, 2)
    return guess(answers, y, units, seed=seed, n_shuffles=n_shuffles, check=check)


def shifts(
    measures: dict[str, NDArray[np.floating]],
    is_new: NDArray[np.bool_],
    units: Ints,
    *,
    seed: int = 0,
    n_shuffles: int = 999,
) -> list[Shift]:
    """Compare each measure between old and new images, the most moved first.

    Parameters
    ----------
    measures
        By name (N,) values; NaN where unknown. A measure that is known of fewer than 20 images on
        either side is left out.
    is_new, units
        As in `drift`.

    References
    ----------
    Vargha and Delaney, A critique and improvement of the CL common language effect size statistics,
    J. Educational and Behavioral Statistics 2000.
    """
    generator = np.random.default_rng(seed)
    drawn = shuffled(np.asarray(is_new).astype(np.int64), units, n_shuffles, generator)
    found = []
    for name, values in measures.items():
        known = np.isfinite(values)
        new = is_new & known
        old = ~is_new & known
        if min(new.sum(), old.sum()) < FEWEST:
            continue
        ranks = _ranks(np.asarray(values[known], np.float64))
        higher = float(_higher(is_new[known][None].astype(np.int64), ranks)[0])
        null = np.abs(_higher(drawn[:, known], ranks) - 0.5)
        p = float((1 + (null >= abs(higher - 0.5) - 1e-12).sum()) / (n_shuffles + 1))
        middle = float(np.median(values[old])), float(np.median(values[new]))
        found.append(Shift(name, int(old.sum()), int(new.sum()), *middle, higher, p, p))
    corrected = holm([shift.p for shift in found])
    told = [Shift(**{**s.__dict__, "p_holm": p}) for s, p in zip(found, corrected, strict=True)]
    return sorted(told, key=lambda s: (s.p_holm, -abs(s.higher - 0.5), s.name))


def _ranks(values: Floats) -> Floats:
    """Return ranks from 1, of equals their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Floats = (last - (counts - 1) / 2)[place]
    return found


def _higher(is_new: Ints, ranks: Floats) -> Floats:
    """Return for each row (S,) the chance that a new value is above an old one."""
    n = is_new.sum(1).astype(np.float64)
    m = is_new.shape[1] - n
    above = is_new @ ranks - n * (n + 1) / 2
    found: Floats = np.divide(above, n * m, out=np.full(len(n), 0.5), where=n * m > 0)
    return found
