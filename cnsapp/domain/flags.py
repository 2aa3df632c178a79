"""Which pictures of a project deserve a look: rules over what was measured of each.

What is normal differs between stains, microscopes and cameras, so most rules compare a picture with
its project by robust statistics: the median, and the median absolute deviation times 1.4826 as the
standard deviation (Leys et al., Detecting outliers: do not use standard deviation around the mean,
use absolute deviation around the median, J. Exp. Soc. Psychology 2013). Each deviation has a floor,
so that in a project of very even pictures no ordinary one stands out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

BLURRED, EMPTY, OVER, UNDER, COLOR, SIZE = "blurred", "empty", "over", "under", "color", "size"
FLAGS = (BLURRED, EMPTY, OVER, UNDER, COLOR, SIZE)

ENOUGH = 20  # pictures before one can be compared with the others
Z = 3.5  # robust standard deviations (Iglewicz and Hoaglin 1993)
EMPTY_SHARE = 0.98
BLUR_RATIO = 0.3  # of the project's median focus
BLUR_ALWAYS = 0.003  # blurred beyond doubt: a Gaussian of about 4 of 256 pixels
LOG_FLOOR = 0.25  # of the logarithm of focus: a quarter more or less is ordinary
CLIPPED_SHARE, CLIPPED_FLOOR = 0.2, 0.05
COLOR_Z = 5.0
COLOR_FLOORS = (3.0, 2.0, 2.0, 2.0)  # L*, a*, b*, spread, in CIE Lab units
SIZE_RATIO = 4.0  # in area
SHAPE_RATIO = 1.5  # in width / height
SAME_SIZE = 0.9  # share of the commonest size from which any other one is odd
SMALLEST = 32  # pixels


@dataclass(frozen=True)
class Measured:
    """The measures of N pictures: arrays of length N, named as in `imaging.quality.Measures`."""

    focus: Doubles
    empty: Doubles
    over: Doubles
    under: Doubles
    color: Doubles  # (N, 4): L*, a*, b*, spread
    width: Doubles
    height: Doubles


def find_flags(given: Measured) -> dict[str, Doubles]:
    """Return for each kind of flag a score (N,): 0 where there is none, higher is further off.

    - ``blurred``: focus below 30 % of the median and 3.5 robust deviations of its logarithm below
      it, or below 0.003 whatever the others are like. Score: how many times less than the median.
    - ``empty``: 98 % of it or more is background. Score: that share.
    - ``over``, ``under``: a fifth of it or more is white (black), and 3.5 robust deviations more
      than in the median picture. Empty pictures are not named again. Score: that share.
    - ``color``: mean L*, a*, b* or their spread 5 robust deviations off. Score: the largest.
    - ``size``: a side below 32 pixels; another size where 90 % have the same; else an area 4 times
      larger or smaller than the median, or a shape 1.5 times as long. Score: the ratio.

    Rules that compare need 20 pictures.
    """
    n = len(given.focus)
    none = np.zeros(n)
    if n == 0:
        return dict.fromkeys(FLAGS, none)
    empty = given.empty >= EMPTY_SHARE
    colored = ~empty
    return {
        BLURRED: _blurred(given.focus),
        EMPTY: np.where(empty, given.empty, 0.0),
        OVER: np.where(empty, 0.0, _clipped(given.over)),
        UNDER: np.where(empty, 0.0, _clipped(given.under)),
        COLOR: np.where(colored, _color(given.color, colored), 0.0),
        SIZE: _size(given.width, given.height),
    }


def robust_z(values: Doubles, floor: float, among: NDArray[np.bool_] | None = None) -> Doubles:
    """Return how many robust standard deviations each value lies from the median.

    `floor` is the least standard deviation; `among` says whose median and deviation count.
    """
    known = values[np.isfinite(values) if among is None else np.isfinite(values) & among]
    if not len(known):
        return np.zeros(len(values))
    middle = np.median(known)
    deviation = 1.4826 * float(np.median(np.abs(known - middle)))
    return (values - middle) / max(deviation, floor)


def _blurred(focus: Doubles) -> Doubles:
    known = np.isfinite(focus)
    if not known.any():
        return np.zeros(len(focus))
    safe = np.where(known, np.maximum(focus, 1e-6), 1.0)
    median = float(np.median(safe[known]))
    bad = known & (safe < BLUR_ALWAYS)
    if known.sum() >= ENOUGH:
        z = robust_z(np.where(known, np.log(safe), np.nan), LOG_FLOOR)
        bad |= known & (safe < BLUR_RATIO * median) & (z < -Z)
    return np.where(bad, np.maximum(median / safe, 1.0), 0.0)


def _clipped(share: Doubles) -> Doubles:
    bad = share >= CLIPPED_SHARE
    if len(share) >= ENOUGH:
        bad &= robust_z(share, CLIPPED_FLOOR) >= Z
    return np.where(bad, share, 0.0)


def _color(color: Doubles, among: NDArray[np.bool_]) -> Doubles:
    if among.sum() < ENOUGH:
        return np.zeros(len(color))
    z = [np.abs(robust_z(color[:, k], COLOR_FLOORS[k], among)) for k in range(len(COLOR_FLOORS))]
    worst = np.max(z, axis=0)
    return np.where(worst >= COLOR_Z, worst, 0.0)


def _size(width: Doubles, height: Doubles) -> Doubles:
    small = np.minimum(width, height) < SMALLEST
    bad = np.where(small, 1.0, 0.0)
    if len(width) < ENOUGH:
        return bad
    area, shape = np.log(width * height), np.log(width / height)
    off = np.exp(np.abs(area - np.median(area)))
    long = np.exp(np.abs(shape - np.median(shape)))
    _, place, n = np.unique(
        np.stack([width, height], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    if n.max() >= SAME_SIZE * len(width):
        odd = place.ravel() != int(n.argmax())
    else:
        odd = (off >= SIZE_RATIO) | (long >= SHAPE_RATIO)
    return np.where(odd, np.maximum(off, long), bad)


@dataclass(frozen=True)
class Doubt:
    """Something about classes, groups or folders that a reviewer would ask about.

    Parameters
    ----------
    kind
        class_imbalance, class_one_group, group_names or folder_imbalance.
    sentence
        What was found, with its numbers.
    class_id, group, folder
        What to filter the images by to see them.
    """

    kind: str
    sentence: str
    class_id: int | None = None
    group: str | None = None
    folder: str | None = None


IMBALANCE = 10  # times as many images in the largest class as in a smaller one
FOLDER_SHARE = 0.5
FEW_FOLDERS = 4
NAMED = 12  # doubts of one kind that are listed


def class_doubts(
    counts: Mapping[tuple[int, str | None], int], names: Mapping[int, str]
) -> list[Doubt]:
    """Return what is odd about (class id, group) -> number of labelled images."""
    per_class: Counter[int] = Counter()
    groups: dict[int, set[str]] = {}
    grouped: Counter[int] = Counter()
    for (class_id, group), n in counts.items():
        per_class[class_id] += n
        if group is not None:
            groups.setdefault(class_id, set()).add(group)
            grouped[class_id] += n
    found = []
    largest = max(per_class, key=lambda c: per_class[c], default=None)
    for class_id, n in sorted(per_class.items(), key=lambda item: item[1]):
        if largest is not None and per_class[largest] >= IMBALANCE * n:
            found.append(
                Doubt(
                    "class_imbalance",
                    f"{names.get(class_id, '?')} has {n:,} images, {names.get(largest, '?')} has "
                    f"{per_class[largest]:,}.",
                    class_id=class_id,
                )
            )
    n_groups = len(set().union(*groups.values())) if groups else 0
    for class_id, own in sorted(groups.items()):
        if len(own) == 1 and n_groups > 1 and grouped[class_id] == per_class[class_id] > 1:
            only = next(iter(own))
            found.append(
                Doubt(
                    "class_one_group",
                    f"All {per_class[class_id]:,} images of {names.get(class_id, '?')} are of the "
                    f"group {only}.",
                    class_id=class_id,
                    group=only,
                )
            )
    return found


def group_name_doubts(groups: Iterable[str]) -> list[Doubt]:
    """Return groups whose names differ only by case, spaces, dashes or leading zeros."""
    alike: dict[str, list[str]] = {}
    for group in groups:
        alike.setdefault(_folded(group), []).append(group)
    return [
        Doubt("group_names", " and ".join(f"“{name}”" for name in sorted(names)), group=min(names))
        for _, names in sorted(alike.items())
        if len(names) > 1
    ]


def folder_doubts(counts: Mapping[str, int]) -> list[Doubt]:
    """Return folders that hold most of a project's images though there are several."""
    total = sum(counts.values())
    if len(counts) < FEW_FOLDERS:
        return []
    return [
        Doubt(
            "folder_imbalance",
            f"{folder or 'The top folder'} holds {n:,} of {total:,} images; there are "
            f"{len(counts):,} folders.",
            folder=folder,
        )
        for folder, n in counts.items()
        if n > FOLDER_SHARE * total
    ]


def _folded(name: str) -> str:
    folded = re.sub(r"[\s_.\-]+", "", name.casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", folded)
