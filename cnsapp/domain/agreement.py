"""How far annotators agree beyond chance, with intervals, and with a reason where nothing is known.

Every figure is None with a sentence where it is undefined: a kappa of 0 or a blank would be read as
a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.metrics import unit_numbers

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Interval = tuple[float, float]
Groups = Sequence[str | None]
Label = Hashable | None  # None: this annotator gave the image no class

N_RESAMPLES = 2000
LEAST_DEFINED = 0.9  # of the resamples, else their percentiles say nothing about the rest
BLOCK = 4_000_000  # numbers drawn at once: 32 MB

NO_OVERLAP = "No image was labelled by both."
NO_READINGS = "No image was labelled by two or more."
ONE_CLASS = (
    "All labels are of one class: agreement by chance would be just as complete, so kappa is "
    "undefined."
)
CLASS_UNUSED = "Neither gave an image this class."
CLASS_ALWAYS = "Both gave every image this class: there is nothing it was told from."


@dataclass(frozen=True)
class Figure:
    """One figure of agreement.

    Attributes
    ----------
    value
        Kappa (-1 to 1; 1 full agreement, 0 what chance gives) or a share (0 to 1); None where it
        is undefined.
    reason
        Why it is undefined, a sentence; empty where there is a value.
    n
        Images that count.
    interval
        95 % percentile bootstrap interval; None where there is no value, fewer than two units to
        draw, or the figure is undefined in more than a tenth of the resamples.
    interval_by
        `group` or `image`: what was drawn.
    """

    value: float | None
    reason: str
    n: int
    interval: Interval | None = None
    interval_by: str = "image"


def cohen_kappa(
    a: Sequence[Label],
    b: Sequence[Label],
    *,
    groups: Groups | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Figure:
    """Return Cohen's kappa of two annotators over the images that both labelled.

    Parameters
    ----------
    a, b
        (N,) class each gave each image, None for none.
    groups
        Group of each image (patient, slide): whole groups are drawn for the interval; an image
        without one is a group of its own. None draws images.
    seed, n_resamples
        Of the bootstrap; 0 resamples leave the interval out.

    Raises
    ------
    ValueError
        Lengths differ.

    References
    ----------
    Cohen, A coefficient of agreement for nominal scales, Educ. Psychol. Meas. 1960; Field and
    Welsh, Bootstrapping clustered data, JRSS B 2007.
    """
    x, y, kept, n_classes = _pairs(a, b)
    if not len(x):
        return Figure(None, NO_OVERLAP, 0)
    rows = _pair_rows(x, y, n_classes)
    return _figure(rows, _kappa_of_sums, ONE_CLASS, _kept(groups, kept, len(a)), seed, n_resamples)


def percent_agreement(
    a: Sequence[Label],
    b: Sequence[Label],
    *,
    groups: Groups | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Figure:
    """Return the share (0 to 1) of images labelled by both that both gave the same class.

    Parameters and errors as for `cohen_kappa`.
    """
    x, y, kept, _ = _pairs(a, b)
    if not len(x):
        return Figure(None, NO_OVERLAP, 0)
    rows = np.stack([np.ones(len(x)), x == y], axis=1)
    return _figure(rows, _share_of_sums, "", _kept(groups, kept, len(a)), seed, n_resamples)


def per_class_agreement(
    a: Sequence[Label],
    b: Sequence[Label],
    classes: Sequence[Hashable],
    *,
    groups: Groups | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> dict[Hashable, Figure]:
    """Return, for each class, Cohen's kappa of "this class" against "any other".

    Parameters and errors as for `cohen_kappa`; `classes` are those wanted, in their order.

    References
    ----------
    Fleiss, Levin and Paik, Statistical methods for rates and proportions, 3rd ed. 2003, ch. 18.
    """
    x, y, kept, _ = _pairs(a, b)
    numbers = _numbers([*a, *b])
    mine = _kept(groups, kept, len(a))
    found: dict[Hashable, Figure] = {}
    for c in classes:
        if not len(x):
            found[c] = Figure(None, NO_OVERLAP, 0)
            continue
        is_x, is_y = ((side == numbers.get(c, -1)).astype(np.int64) for side in (x, y))
        reason = CLASS_ALWAYS if is_x.all() else CLASS_UNUSED
        rows = _pair_rows(is_x, is_y, 2)
        found[c] = _figure(rows, _kappa_of_sums, reason, mine, seed, n_resamples)
    return found


def pair_confusion(
    a: Sequence[Label], b: Sequence[Label], classes: Sequence[Hashable]
) -> NDArray[np.int64]:
    """Return counts (K, K) of images labelled by both: row = class by `a`, column = class by `b`.

    Raises
    ------
    ValueError
        Lengths differ, a class is listed twice, or a label is not among `classes`.
    """
    _same_length(a, b)
    place = {c: i for i, c in enumerate(classes)}
    if len(place) < len(classes):
        raise ValueError("a class is listed twice")
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for one, other in zip(a, b, strict=True):
        if one is None or other is None:
            continue
        if one not in place or other not in place:
            raise ValueError(f"label {one!r} or {other!r} is not among the classes")
        counts[place[one], place[other]] += 1
    return counts


def fleiss_kappa(
    counts: NDArray[np.integer],
    *,
    groups: Groups | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Figure:
    """Return Fleiss's kappa of any number of annotators.

    Images may have different numbers of readings; those with fewer than two do not count. Each
    image that counts weighs the same, in the agreement and in the share of each class. With equal
    numbers of readings this is Fleiss's own figure.

    Parameters
    ----------
    counts
        (N, K) how many annotators gave image i class k, 0 or more.
    groups, seed, n_resamples
        See `cohen_kappa`.

    Raises
    ------
    ValueError
        `counts` is no table of counts, or lengths differ.

    References
    ----------
    Fleiss, Measuring nominal scale agreement among many raters, Psychol. Bull. 1971; Gwet, Handbook
    of inter-rater reliability, 4th ed. 2014 (numbers of readings that differ).
    """
    table = np.asarray(counts, np.float64)
    if table.ndim != 2 or (table < 0).any() or (table != np.round(table)).any():
        raise ValueError(f"counts {table.shape} are not a table of whole numbers, 0 or more")
    readings = table.sum(1)
    kept = np.flatnonzero(readings >= 2)
    if not len(kept):
        return Figure(None, NO_READINGS, 0)
    mine, m = table[kept], readings[kept, None]
    agreed = (mine * (mine - 1)).sum(1, keepdims=True) / (m * (m - 1))  # share of agreeing pairs
    rows = np.hstack([np.ones((len(kept), 1)), agreed, mine / m])
    own = _kept(groups, kept, len(table))
    return _figure(rows, _fleiss_of_sums, ONE_CLASS, own, seed, n_resamples)


def _kappa_of_sums(sums: Floats) -> Floats:
    """Return kappa (R,) of sums (R, 2 + 2 K): images, agreed, by the first's class, the other's."""
    n, agreed = sums[:, 0], sums[:, 1] / sums[:, 0]
    k = (sums.shape[1] - 2) // 2
    chance = (sums[:, 2 : 2 + k] * sums[:, 2 + k :]).sum(1) / n**2
    return _beyond(agreed, chance)


def _fleiss_of_sums(sums: Floats) -> Floats:
    """Return kappa (R,) of sums (R, 2 + K): images, agreement, share of each class."""
    n = sums[:, :1]
    return _beyond(sums[:, 1] / n[:, 0], ((sums[:, 2:] / n) ** 2).sum(1))


def _share_of_sums(sums: Floats) -> Floats:
    return np.asarray(sums[:, 1] / sums[:, 0])


def _beyond(agreed: Floats, chance: Floats) -> Floats:
    """Return agreement beyond chance, NaN where chance alone agrees always."""
    room = 1 - chance
    undefined = np.full_like(agreed, np.nan)
    return np.divide(agreed - chance, room, out=undefined, where=room > 1e-9)


def _pair_rows(x: Ints, y: Ints, n_classes: int) -> Floats:
    """Return (N, 2 + 2 K): what an image adds to the sums that kappa is made of."""
    one_hot = np.eye(n_classes)
    return np.hstack([np.ones((len(x), 1)), (x == y)[:, None], one_hot[x], one_hot[y]])


def _figure(
    rows: Floats,
    of_sums: Callable[[Floats], Floats],
    reason: str,
    groups: Groups | None,
    seed: int,
    n_resamples: int,
) -> Figure:
    """Make a figure of what each image adds to some sums, and its interval."""
    value = float(of_sums(rows.sum(0, keepdims=True))[0])
    by = "group" if groups is not None and any(groups) else "image"
    if np.isnan(value):
        return Figure(None, reason, len(rows), None, by)
    return Figure(value, "", len(rows), _interval(rows, of_sums, groups, seed, n_resamples), by)


def _interval(
    rows: Floats,
    of_sums: Callable[[Floats], Floats],
    groups: Groups | None,
    seed: int,
    n_resamples: int,
) -> Interval | None:
    if groups is not None and any(groups):
        units = unit_numbers(groups, len(rows))
        per_unit = np.zeros((int(units.max()) + 1, rows.shape[1]))
        np.add.at(per_unit, units, rows)
    else:
        per_unit = rows
    n_units = len(per_unit)
    if n_units < 2 or n_resamples < 1:
        return None
    # what enters a resample is only how often each distinct row is drawn
    rng = np.random.default_rng(seed)
    sign = per_unit @ rng.random(per_unit.shape[1])  # a number a row: 10 times as fast to sort
    _, first, copies = np.unique(sign, return_index=True, return_counts=True)
    distinct = per_unit[first]
    values = []
    step = max(1, BLOCK // len(distinct))
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        drawn = rng.multinomial(n_units, copies / n_units, size=size)
        values.append(of_sums(drawn @ distinct))
    found = np.concatenate(values)
    found = found[~np.isnan(found)]
    if len(found) < LEAST_DEFINED * n_resamples:
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _pairs(a: Sequence[Label], b: Sequence[Label]) -> tuple[Ints, Ints, Ints, int]:
    """Return both annotators' class numbers where both gave one, which images, and how many."""
    _same_length(a, b)
    numbers = _numbers([*a, *b])
    both = [i for i in range(len(a)) if a[i] is not None and b[i] is not None]
    x = np.array([numbers[a[i]] for i in both], np.int64)
    y = np.array([numbers[b[i]] for i in both], np.int64)
    return x, y, np.array(both, np.int64), len(numbers)


def _numbers(labels: Sequence[Label]) -> dict[Label, int]:
    numbers: dict[Label, int] = {}
    for label in labels:
        if label is not None:
            numbers.setdefault(label, len(numbers))
    return numbers


def _same_length(a: Sequence[Label], b: Sequence[Label]) -> None:
    if len(a) != len(b):
        raise ValueError(f"lengths differ: {len(a)} and {len(b)}")


def _kept(groups: Groups | None, kept: Ints, n: int) -> Groups | None:
    """Return the groups of the images that count."""
    if groups is None:
        return None
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} images")
    return [groups[i] for i in kept]
