"""Which images are held out together: folds that keep patients, slides and neighbours whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import InvalidInputError

Ints = NDArray[np.int64]

BY_GROUP = "by group"
BY_BLOCK = "by file-name blocks"
RANDOM = "random"
SAME_PICTURE = "same picture as "  # a group of two images that only says: they belong together
NO_GROUPS = (
    "No image has a group (patient, slide, animal). Images of one patient may then be both learnt "
    "from and scored on, and the score may be too good; neighbouring file names are kept together."
)
GROUPS_UNUSED = (
    "Folds were cut by file names although groups are given: images of one group may be both "
    "learnt from and scored on, and the score may be too good."
)


@dataclass(frozen=True)
class FoldPlan:
    """A division of images into folds.

    Attributes
    ----------
    folds
        (N,) fold number of each image, 0 to `n_folds` - 1.
    scheme
        `by group`, `by file-name blocks` or `random`: how it was made.
    n_folds
        Number of folds; fewer than asked for when the data allows no more, 0 when none can be made.
    warnings
        What a reader of the scores must know, in plain words.
    """

    folds: Ints
    scheme: str
    n_folds: int
    warnings: list[str] = field(default_factory=list)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts `tile_9` before `tile_10`."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts)


def grouped_folds(
    labels: NDArray[np.integer],
    groups: Sequence[str | None] | None = None,
    *,
    n_folds: int = 5,
    seed: int = 0,
    names: Sequence[str] | None = None,
    scheme: str | None = None,
    class_names: Sequence[str] | None = None,
) -> FoldPlan:
    """Divide images into folds for cross-validation, stratified by class as well as groups allow.

    Where groups are given (patient, slide, animal), every group lies wholly in one fold, and an
    image without group is a group of its own. Where no image has one, blocks of neighbouring file
    names within a class stay together, since neighbours often come from one slide; blocks that
    hold two halves of one picture (groups that begin with `SAME_PICTURE`) are joined. Without names
    the folds are random.

    Parameters
    ----------
    labels
        (N,) class index of each image.
    groups
        Group of each image, or None.
    n_folds
        Folds wished for, 2 or more.
    seed
        Decides ties and the random scheme.
    names
        File names, for the block scheme.
    scheme
        `by group`, `by file-name blocks` or `random`; None chooses as said above.
    class_names
        Names for the warnings; None says "class 0".

    Raises
    ------
    InvalidInputError
        `by group` was asked for, and no image has a group.
    ValueError
        Lengths differ, fewer than 2 folds asked for, or a scheme unknown or without names.

    References
    ----------
    Kapoor and Narayanan, Leakage and the reproducibility crisis in machine-learning-based science,
    Patterns 2023.
    """
    y = np.asarray(labels, dtype=np.int64)
    if n_folds < 2:
        raise ValueError(f"n_folds is {n_folds}, not 2 or more")
    for what, values in (("groups", groups), ("names", names)):
        if values is not None and len(values) != len(labels):
            raise ValueError(f"{len(values)} {what} for {len(labels)} labels")
    any_group = groups is not None and any(map(_says_whose, groups))
    scheme = scheme or (BY_GROUP if any_group else BY_BLOCK if names is not None else RANDOM)
    if scheme == BY_GROUP and groups is not None and any_group:
        units = _units_of_groups(groups)
    elif scheme == BY_GROUP:
        raise no_groups_to_split_by()
    elif scheme == BY_BLOCK and names is not None:
        units = _units_of_blocks(y, names, n_folds)
        if groups is not None and not any_group:
            units = _joined(units, groups)
    elif scheme == RANDOM:
        units = np.arange(len(labels))
    else:
        raise ValueError(f"scheme {scheme!r} is unknown or needs names")
    folds, used = _assign(y, units, n_folds, np.random.default_rng(seed))
    warnings = _warnings(y, units, used, n_folds, scheme, class_names)
    if scheme == BY_BLOCK:
        warnings.append(GROUPS_UNUSED if any_group else NO_GROUPS)
    if scheme == BY_GROUP and groups is not None and (n := sum(not group for group in groups)):
        warnings.append(f"{n} of {len(labels)} images have no group: each counts as its own group.")
    return FoldPlan(folds, scheme, used, warnings)


def no_groups_to_split_by() -> InvalidInputError:
    """Return what is wrong with the scheme `by group` where there are no groups."""
    return InvalidInputError(
        "Folds by group were asked for, but no labelled image has a group.",
        "Every image would be its own group: a random split under a better name.",
        "Import the images again with their groups, or leave the setting `scheme` out.",
    )


def _units_of_groups(groups: Sequence[str | None]) -> Ints:
    """Number the groups; an image without group gets a number of its own."""
    numbers: dict[object, int] = {}
    keys = [group or (i,) for i, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _says_whose(group: str | None) -> bool:
    """Return whether a group is a patient, a slide or the like, not merely two of one picture."""
    return bool(group) and not str(group).startswith(SAME_PICTURE)


def _joined(units: Ints, groups: Sequence[str | None]) -> Ints:
    """Return units where those that share a group are one."""
    joined = units.copy()
    for group in {group for group in groups if group}:
        members = joined[[g == group for g in groups]]
        joined[np.isin(joined, members)] = members.min()
    return np.unique(joined, return_inverse=True)[1].astype(np.int64)


def _units_of_blocks(labels: Ints, names: Sequence[str], n_blocks: int) -> Ints:
    """Cut each class, sorted by file name, into `n_blocks` runs of neighbours."""
    units = np.empty(len(labels), np.int64)
    keys = [natural_key(name) for name in names]
    for c in np.unique(labels):
        members = sorted(np.flatnonzero(labels == c), key=lambda i: keys[i])
        for b, block in enumerate(np.array_split(np.array(members), n_blocks)):
            units[block] = c * n_blocks + b
    return np.unique(units, return_inverse=True)[1].astype(np.int64)


def _assign(
    labels: Ints, units: Ints, n_folds: int, generator: np.random.Generator
) -> tuple[Ints, int]:
    """Give whole units to folds, biggest first, each to the fold where its classes are rarest."""
    if len(labels) == 0:
        return np.zeros(0, np.int64), 0
    classes = np.unique(labels, return_inverse=True)[1]
    table = np.zeros((units.max() + 1, classes.max() + 1))  # (units, classes) counts
    np.add.at(table, (units, classes), 1)
    most_units = int((table > 0).sum(0).max())
    used = min(n_folds, most_units)
    if used < 2:
        return np.zeros(len(labels), np.int64), 0
    share = table / table.sum(0)  # each class weighs the same
    order = np.lexsort((generator.random(len(share)), -share.max(1)))
    load = np.zeros((used, share.shape[1]))
    fold_of = np.empty(len(share), np.int64)
    for unit in order:
        mine = share[unit]
        # squared load after the unit joins: least where its own classes are rare so far
        cost = (((load + mine) ** 2) - load**2).sum(1) + 1e-9 * load.sum(1)
        best = np.flatnonzero(cost <= cost.min() + 1e-12)
        fold_of[unit] = generator.choice(best)
        load[fold_of[unit]] += mine
    return fold_of[units], used


def _warnings(
    labels: Ints,
    units: Ints,
    used: int,
    wished: int,
    scheme: str,
    class_names: Sequence[str] | None,
) -> list[str]:
    unit_word = {BY_GROUP: "group", BY_BLOCK: "block of file names", RANDOM: "image"}[scheme]
    said = []
    if used == 0:
        said.append(f"No class has two {unit_word}s, so no score can be computed.")
    elif used < wished:
        said.append(f"Only {used} folds instead of {wished}: there are too few {unit_word}s.")
    for c in np.unique(labels):
        name = class_names[c] if class_names is not None else f"class {c}"
        members = labels == c
        n, n_units = int(members.sum()), len(np.unique(units[members]))
        if n == 1:
            said.append(f"{name} has only 1 image: it can not be evaluated.")
        elif n_units == 1 and scheme == BY_GROUP:
            said.append(
                f"All {n} images of {name} come from one group: it can not be evaluated by group,"
                " since the model never saw it while that group was held out."
            )
    if scheme == RANDOM:
        said.append(
            "Images were split at random: if several show one slide, scores are optimistic."
        )
    return said
