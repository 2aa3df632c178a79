"""Which images belong together, so that no fold and no part of a split tears them apart.

Images are numbered into *units*: all images of a unit go the same way. A unit is a group (patient,
slide, animal), a run of neighbouring file names, a value of a column, or a single image; units that
hold two halves of one picture (near-duplicates) are joined.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Keys = Sequence[Hashable | None]  # images with the same key belong together; None: with nobody

SAME_PICTURE = "same picture as "  # a group of two images that only says: they belong together
BLOCKS_OF_PARTS = 10  # runs of neighbours a class in a folder, for parts of a split
GIANT = 0.5  # of all images: near-duplicates that tie more than this together are not followed


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts `tile_9` before `tile_10`."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts)


def says_whose(group: str | None) -> bool:
    """Return whether a group is a patient, a slide or the like, not merely two of one picture."""
    return bool(group) and not str(group).startswith(SAME_PICTURE)


def known_groups(groups: Sequence[str | None] | None) -> list[str | None] | None:
    """Return groups as figures count them: None where they only say which pictures are the same.

    Two near-duplicates in a project without patients make no interval "by group".
    """
    return None if groups is None or not any(map(says_whose, groups)) else list(groups)


def units_of(keys: Keys) -> Ints:
    """Number the keys; an image without a key gets a number of its own.

    Returns
    -------
    (N,) numbers from 0, in the order of first appearance.
    """
    numbers: dict[Hashable, int] = {}
    own = [key or (i,) for i, key in enumerate(keys)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in own], dtype=np.int64)


def joined(units: Ints, keys: Keys) -> Ints:
    """Return units where those that share a key are one (union-find).

    Parameters
    ----------
    units
        (N,) unit of each image.
    keys
        (N,) what ties images across units, or None.
    """
    if len(units) == 0:
        return units
    parent = list(range(int(units.max()) + 1))

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    first: dict[Hashable, int] = {}
    for unit, key in zip(units.tolist(), keys, strict=True):
        if not key:
            continue
        a, b = root(unit), root(first.setdefault(key, unit))
        parent[max(a, b)] = min(a, b)
    roots = np.array([root(unit) for unit in range(len(parent))], dtype=np.int64)
    return np.unique(roots[units], return_inverse=True)[1].astype(np.int64)


def joined_if_sound(units: Ints, pictures: Keys | None) -> tuple[Ints, bool]:
    """Join the units that hold near-duplicates, unless that would tie most images together.

    Pictures that look the same everywhere (empty fields, a colour chart on every slide) can tie all
    patients of a project into one; nothing could be held out then.

    Returns
    -------
    The units, and whether the near-duplicates were followed.
    """
    if pictures is None or not any(pictures):
        return units, True
    tied = joined(units, pictures)
    if largest_share(tied) > max(GIANT, largest_share(units)):
        return units, False
    return tied, True


def largest_share(units: Ints) -> float:
    """Return which part of all images the largest unit holds, 0 to 1."""
    return float(np.bincount(units).max() / len(units)) if len(units) else 0.0


def blocks_of_classes(labels: Ints, names: Sequence[str], n_blocks: int) -> Ints:
    """Cut each class, sorted by file name, into `n_blocks` runs of neighbours."""
    units = np.empty(len(labels), np.int64)
    keys = [natural_key(name) for name in names]
    for place, c in enumerate(np.unique(labels)):
        members = sorted(np.flatnonzero(labels == c).tolist(), key=lambda i: keys[i])
        for b, block in enumerate(np.array_split(np.array(members), n_blocks)):
            units[block] = place * n_blocks + b
    return np.unique(units, return_inverse=True)[1].astype(np.int64)


def blocks_of_folders(labels: Ints, names: Sequence[str]) -> Ints:
    """Cut each folder, sorted by file name, into runs of neighbours, whatever their classes.

    Images without a label lie among those with one, so that the blocks of a stored split must not
    hang on labels that are given later: `BLOCKS_OF_PARTS` a class of the folder.

    Parameters
    ----------
    labels
        (N,) class of each image, negative where it has none.
    """
    of_folder: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        of_folder.setdefault(str(PurePosixPath(name).parent), []).append(i)
    units = np.empty(len(names), np.int64)
    n = 0
    for members in of_folder.values():
        members.sort(key=lambda i: natural_key(names[i]))
        classes = {int(c) for c in labels[members] if c >= 0}
        n_blocks = min(len(members), BLOCKS_OF_PARTS * max(1, len(classes)))
        for block in np.array_split(np.array(members), n_blocks):
            units[block] = n
            n += 1
    return units


def tied_groups(
    groups: Sequence[str | None], pictures: Keys
) -> tuple[list[str | None], list[list[int]]]:
    """Return groups where those that share a picture are one.

    Two patients with one picture between them are one patient entered twice, or their slides were
    mixed up: either way the model must not learn from one and be scored on the other.

    Parameters
    ----------
    groups
        (N,) group of each image, or None.
    pictures
        (N,) key that near-duplicates share, or None.

    Returns
    -------
    The groups, and the images by place of each picture that could not be followed (see
    `joined_if_sound`): all but one of each had better be left out.
    """
    units = units_of(list(groups))
    tied, followed = joined_if_sound(units, pictures)
    of_picture: dict[Hashable, list[int]] = {}
    for i, key in enumerate(pictures):
        if key:
            of_picture.setdefault(key, []).append(i)
    sets = [same for same in of_picture.values() if len(same) > 1]
    if not followed:
        return list(groups), [same for same in sets if len(set(units[same].tolist())) > 1]
    names: dict[int, set[str]] = {}
    for unit, group in zip(tied.tolist(), groups, strict=True):
        if group:
            names.setdefault(unit, set()).add(group)
    counts = Counter(tied.tolist())
    called = {unit: _name(names.get(unit), unit, n) for unit, n in counts.items()}
    return [called[unit] for unit in tied.tolist()], []


def _name(groups: set[str] | None, unit: int, n: int) -> str | None:
    if not groups:
        return f"{SAME_PICTURE}{unit}" if n > 1 else None
    real = sorted((g for g in groups if says_whose(g)), key=natural_key) or sorted(groups)
    return " and ".join(real[:3]) + (f" and {len(real) - 3} more" if len(real) > 3 else "")
