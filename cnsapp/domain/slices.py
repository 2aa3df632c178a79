"""Is the model equally good everywhere? Scores by batch, group, annotator or any column.

Every slice is compared with the rest of the images, class by class, so that a slice that only
holds more of a hard class is not called worse for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import (
    Floats,
    Interval,
    Ints,
    percentiles,
    shared_draws,
    unit_numbers,
    widened,
    wilson_interval,
)
from cnsapp.domain.student import student_p, student_quantile

FEWEST = 10  # images that a slice needs for a balanced accuracy and a test
FEWEST_GROUPS = 3  # of a slice, for an interval and a test by group
MOST_SLICES = 60  # that are told apart: the largest; all others are one row
RESAMPLES = 2000
REST = "all others"
NO_DIFFERENCE, WORSE, BETTER = "no difference shown", "worse than the rest", "better than the rest"
TOO_FEW, ONE_CLASS = "too few images to say", "one class only"
NO_REST = "no other images of its classes"


@dataclass(frozen=True)
class Slice:
    """One slice of the images.

    Attributes
    ----------
    value
        What the images have in common; None: nothing is noted of them.
    n, n_groups, n_classes
        Images, their groups (None: no groups known) and the classes among them.
    accuracy, accuracy_interval
        Share of right answers, 0 to 1, with its 95 % interval.
    balanced_accuracy, interval
        Mean recall over the classes that the slice holds; None with fewer than 2 classes or 10
        images.
    interval_by
        `group`, or `image` where no groups are known or the slice has fewer than 3 groups: the
        interval then speaks of these patients alone, not of further ones.
    difference, difference_interval
        Mean over the classes that the slice and the rest share, of the slice's recall less the
        rest's, -1 to 1.
    p, p_holm
        Of "no difference", two-sided; and corrected for the number of slices that were tested.
    verdict
        In words.
    """

    value: str | None
    n: int
    n_groups: int | None
    n_classes: int
    accuracy: float | None
    accuracy_interval: Interval | None
    balanced_accuracy: float | None
    interval: Interval | None
    interval_by: str
    difference: float | None
    difference_interval: Interval | None
    p: float | None
    p_holm: float | None
    verdict: str


def by_value(
    y_true: NDArray[np.integer],
    y_pred: NDArray[np.integer],
    n_classes: int,
    values: Sequence[str | None],
    groups: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
    level: float = 0.05,
) -> list[Slice]:
    """Score the images of each value, largest slices first; those without a value come last.

    Parameters
    ----------
    y_true, y_pred
        (N,) class indices, 0 to `n_classes` - 1.
    values
        (N,) what the images are sliced by.
    groups
        Group of each image, or None.
    level
        Of the test, after the correction of Holm.

    Notes
    -----
    The error of a difference is that of resamples of whole groups, of the slice and the rest
    together, but never below that of independent images. The test is Student's with as many
    degrees of freedom as the slice has groups, less one.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 1979; Field
    and Welsh, Bootstrapping clustered data, JRSS B 2007.
    """
    true, pred = np.asarray(y_true, np.int64), np.asarray(y_pred, np.int64)
    names, place = _places(values)
    if not names:
        return []
    tables = _Tables(true, pred, n_classes, place, len(names), groups, seed)
    found = [_one(tables, s, name) for s, name in enumerate(names)]
    corrected = iter(holm([s.p for s in found if s.p is not None]))
    return [s if s.p is None else _judged(s, next(corrected), level) for s in found]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method, in the order given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    found = np.empty(len(p))
    found[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in found]


def size_class(width: int, height: int) -> str:
    """Return which of the usual sizes an image's shorter side is."""
    side = min(width, height)
    for bound in (64, 128, 224, 384, 512, 1024):
        if side < bound:
            return f"shorter side below {bound} px"
    return "shorter side 1024 px or more"


class _Tables:
    """Counts by slice and class, of the predictions and of their resamples."""

    def __init__(
        self,
        true: Ints,
        pred: Ints,
        k: int,
        place: Ints,
        n_slices: int,
        groups: Sequence[str | None] | None,
        seed: int,
    ) -> None:
        self.k, self.by_group = k, groups is not None and any(groups)
        self.generator = np.random.default_rng(seed)
        order = np.lexsort((pred, true, place))  # so that the order of images changes nothing
        self.true, self.place, self.right = true[order], place[order], (true == pred)[order]
        units = unit_numbers(None if groups is None else [groups[i] for i in order], len(true))
        self.cells = self.place * 2 * k + 2 * self.true + self.right
        counts = np.bincount(self.cells, minlength=n_slices * 2 * k).reshape(n_slices, k, 2)
        self.hits, self.n = counts[:, :, 1], counts.sum(2)
        pairs = np.unique(self.place * (int(units.max()) + 1) + units)
        self.n_units = np.bincount(pairs // (int(units.max()) + 1), minlength=n_slices)
        draws = shared_draws(units, seed=seed, n_resamples=RESAMPLES) if self.by_group else None
        self.drawn_n: Floats | None = None
        if draws is not None:
            owner, times = draws
            m, width = times.shape[1], n_slices * k
            for_all = owner * width + self.place * k + self.true
            shape = (m, width)
            n = np.bincount(for_all, minlength=m * width).reshape(shape)
            hits = np.bincount(for_all[self.right], minlength=m * width).reshape(shape)
            self.drawn_n = _rows(times, n, n_slices, k)
            self.drawn_hits = _rows(times, hits, n_slices, k)

    def by_groups(self, s: int) -> bool:
        """Return whether a slice has groups enough to be resampled by them."""
        return self.by_group and self.n_units[s] >= FEWEST_GROUPS and self.drawn_n is not None

    def resamples(self, s: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Return n and hits of the slice, and of the rest, by class (resamples, K)."""
        if self.drawn_n is not None:
            rest_n = self.drawn_n.sum(1) - self.drawn_n[:, s]
            rest_hits = self.drawn_hits.sum(1) - self.drawn_hits[:, s]
        else:
            rest_n, rest_hits = self._by_image(self.n.sum(0) - self.n[s], self._rest_hits(s))
        if self.by_groups(s) and self.drawn_n is not None:
            return self.drawn_n[:, s], self.drawn_hits[:, s], rest_n, rest_hits
        n, hits = self._by_image(self.n[s], self.hits[s])
        return n, hits, rest_n, rest_hits

    def _rest_hits(self, s: int) -> Ints:
        found: Ints = self.hits.sum(0) - self.hits[s]
        return found

    def _by_image(self, n: Ints, hits: Ints) -> tuple[Floats, Floats]:
        total = int(n.sum())
        if not total:
            empty = np.zeros((RESAMPLES, self.k))
            return empty, empty
        share = np.r_[hits, n - hits] / total
        drawn = self.generator.multinomial(total, share, size=RESAMPLES).astype(np.float64)
        return drawn[:, : self.k] + drawn[:, self.k :], drawn[:, : self.k]


def _rows(times: NDArray[np.float32], table: Ints, n_slices: int, k: int) -> Floats:
    sums = (times @ table.astype(np.float32)).astype(np.float64)
    return sums.reshape(len(times), n_slices, k)


def _places(values: Sequence[str | None]) -> tuple[list[str | None], Ints]:
    """Return the slices, largest first, and which one each image belongs to."""
    numbers: dict[str | None, int] = {}
    first = np.array([numbers.setdefault(v, len(numbers)) for v in values], dtype=np.int64)
    keys, sizes = list(numbers), np.bincount(first, minlength=len(numbers))
    order = sorted(range(len(keys)), key=lambda i: (keys[i] is None, -sizes[i], str(keys[i])))
    few = [i for i in order if keys[i] is not None][MOST_SLICES:]
    kept = [i for i in order if i not in set(few)]
    rank = np.empty(len(keys), np.int64)
    rank[kept] = np.arange(len(kept))
    names = [keys[i] for i in kept]
    if few:  # what is too much to list is one row
        rank[few] = len(kept)
        names.append(f"{REST} ({len(few):,})")
    return names, rank[first] if len(first) else first


def _recalls(n: Floats, hits: Floats) -> Floats:
    found: Floats = np.divide(hits, n, out=np.full(np.shape(n), np.nan), where=n > 0)
    return found


def _mean(values: Floats) -> Floats:
    there = np.isfinite(values)
    n = there.sum(-1)
    total = np.where(there, values, 0.0).sum(-1)
    found: Floats = np.divide(total, n, out=np.full(np.shape(n), np.nan), where=n > 0)
    return found


def _one(tables: _Tables, s: int, name: str | None) -> Slice:
    n_of, hits_of = tables.n[s].astype(np.float64), tables.hits[s].astype(np.float64)
    n, n_classes = int(n_of.sum()), int((n_of > 0).sum())
    by_groups = tables.by_groups(s)
    slice_n, slice_hits, rest_n, rest_hits = tables.resamples(s)
    units = float(tables.n_units[s]) if by_groups else float(n)
    accuracy = float(hits_of.sum() / n)
    spread = wilson_interval(int(hits_of.sum()), n)
    if by_groups:
        drawn = _recalls(slice_n.sum(1), slice_hits.sum(1))
        spread = widened(percentiles(drawn, units), accuracy, units)
    balanced, interval = None, None
    if n_classes >= 2 and n >= FEWEST:
        balanced = float(_mean(_recalls(n_of, hits_of)))
        values = _mean(_recalls(slice_n, slice_hits))
        interval = widened(percentiles(values, units), balanced, units)
    difference, between, p, verdict = _compared(tables, s, (slice_n, slice_hits, rest_n, rest_hits))
    return Slice(
        value=name,
        n=n,
        n_groups=int(tables.n_units[s]) if tables.by_group else None,
        n_classes=n_classes,
        accuracy=accuracy,
        accuracy_interval=spread,
        balanced_accuracy=balanced,
        interval=interval,
        interval_by="group" if by_groups else "image",
        difference=difference,
        difference_interval=between,
        p=p,
        p_holm=None,
        verdict=ONE_CLASS if n_classes < 2 and verdict == NO_DIFFERENCE and p is None else verdict,
    )


def _compared(
    tables: _Tables, s: int, drawn: tuple[Floats, Floats, Floats, Floats]
) -> tuple[float | None, Interval | None, float | None, str]:
    """Return the difference from the rest, its interval, its p-value, and a first verdict."""
    n, hits = tables.n[s].astype(np.float64), tables.hits[s].astype(np.float64)
    rest_n = tables.n.sum(0) - n
    rest_hits = tables.hits.sum(0) - hits
    shared = (n > 0) & (rest_n > 0)
    if not shared.any():
        return None, None, None, NO_REST
    if n[shared].sum() < FEWEST or rest_n[shared].sum() < FEWEST:
        return None, None, None, TOO_FEW
    off = _recalls(n, hits)[shared] - _recalls(rest_n, rest_hits)[shared]
    difference = float(off.mean())
    slice_n, slice_hits, others_n, others_hits = (part[:, shared] for part in drawn)
    values = _mean(_recalls(slice_n, slice_hits) - _recalls(others_n, others_hits))
    values = values[np.isfinite(values)]
    if len(values) < 0.9 * RESAMPLES:
        return difference, None, None, TOO_FEW
    by_groups = tables.by_groups(s)
    groups = int(tables.n_units[s])
    factor = groups / (groups - 1) if by_groups else 1.0  # few groups spread too little
    least = _least_variance(n[shared], hits[shared]) + _least_variance(
        rest_n[shared], rest_hits[shared]
    )
    error = sqrt(max(float(values.var()) * factor, least))
    p = student_p(difference / error, groups - 1 if by_groups else n.sum() - 1)
    half = error * student_quantile(groups - 1 if by_groups else n.sum() - 1)
    return (
        difference,
        (max(-1.0, difference - half), min(1.0, difference + half)),
        p,
        NO_DIFFERENCE,
    )


def _least_variance(n: Floats, hits: Floats) -> float:
    """Return the variance of a mean recall of independent images, never 0."""
    share = (hits + 1) / (n + 2)
    return float((share * (1 - share) / n).sum() / len(n) ** 2)


def _judged(found: Slice, p_holm: float, level: float) -> Slice:
    verdict = found.verdict
    if p_holm < level and found.difference is not None:
        verdict = WORSE if found.difference < 0 else BETTER
    return Slice(**{**found.__dict__, "p_holm": p_holm, "verdict": verdict})
