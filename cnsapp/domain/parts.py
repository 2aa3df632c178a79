"""Dividing a project's images into train, validation and a test set that is locked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.assigning import give_out
from cnsapp.domain.splits import (
    BY_BLOCK,
    BY_COLUMN,
    BY_GROUP,
    NO_GROUPS,
    RANDOM,
    RANDOM_GROUPS,
    RANDOM_WARNING,
    SCHEMES,
    TIES_TOO_MANY,
    no_groups_to_split_by,
    one_value_only,
)
from cnsapp.domain.together import (
    Ints,
    Keys,
    blocks_of_folders,
    joined,
    joined_if_sound,
    says_whose,
    units_of,
)
from cnsapp.errors import InvalidInputError

Strings = NDArray[np.str_]

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)
DEFAULT_SHARES = {TRAIN: 0.6, VALIDATION: 0.2, TEST: 0.2}
_FIRST = (TRAIN, TEST, VALIDATION)  # where a class with few groups is needed most
_UNLABELLED = 0.25  # weight of the images without a label beside that of each class
BLOCKS_DESPITE_GROUPS = (
    "Images were divided by file names although groups are given: images of one group may be both "
    "learnt from and scored on, and the score may be too good."
)


@dataclass(frozen=True)
class Division:
    """Which part each image goes to.

    Attributes
    ----------
    parts
        (N,) `train`, `validation` or `test`.
    units
        (N,) number of what each image is kept together with.
    scheme
        What was kept together: `by group`, `by file-name blocks`, `by column` or `random`.
    warnings
        What a reader of the scores must know, in plain words.
    """

    parts: Strings
    units: Ints
    scheme: str
    warnings: list[str] = field(default_factory=list)


def check_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """Return the shares of the parts, with those that are not named as 0.

    Raises
    ------
    InvalidInputError
        A part is unknown, a share is not from 0 to 1, they do not add up to 1, train has none, or
        nothing but train has one.
    """
    said = ", ".join(f"{part} {value:g}" for part, value in shares.items())
    if unknown := [part for part in shares if part not in PARTS]:
        raise InvalidInputError(
            f"There is no part “{unknown[0]}” of a split.", "", f"Parts are: {', '.join(PARTS)}."
        )
    values = {part: float(shares.get(part, 0.0)) for part in PARTS}
    if not all(0 <= value <= 1 for value in values.values()):  # NaN is in no range
        raise InvalidInputError(
            f"The shares {said} cannot be used: each is a part of 1.",
            "",
            "Use, for example, 0.6 for train, 0.2 for validation and 0.2 for test.",
        )
    total = sum(values.values())
    if abs(total - 1) > 0.005:
        raise InvalidInputError(
            f"The shares {said} add up to {total:.3g}, not to 1.",
            "Every image goes to exactly one part.",
            "Use, for example, 0.6 for train, 0.2 for validation and 0.2 for test.",
        )
    if values[TRAIN] <= 0 or values[TRAIN] >= 1:
        raise InvalidInputError(
            f"The shares {said} leave nothing to "
            + ("learn from." if values[TRAIN] <= 0 else "score on."),
            "",
            "Give train a share, and validation or test another.",
        )
    return {part: value / total for part, value in values.items()}


def divide(
    labels: NDArray[np.integer],
    groups: Sequence[str | None] | None = None,
    names: Sequence[str] | None = None,
    *,
    shares: Mapping[str, float] = DEFAULT_SHARES,
    seed: int = 0,
    scheme: str | None = None,
    column: Sequence[str | None] | None = None,
    pictures: Keys | None = None,
    pinned: Sequence[str | None] | None = None,
) -> Division:
    """Divide images into train, validation and test, stratified by class as well as groups allow.

    Groups and near-duplicates stay whole. Every class has images in every part, if it comes from
    as many groups and these are not tied to others; with fewer it is in train first, then in test.

    Parameters
    ----------
    labels
        (N,) class index of each image; -1 where it has no label: such images are divided as well.
    groups, names
        Group of each image, or None; file names, for blocks of neighbours.
    shares
        Part of all images that each part is to hold; they add up to 1.
    seed
        Decides ties: the same images and seed give the same parts.
    scheme
        What is kept together: `by group`, `by file-name blocks`, `by column` (whole values of
        `column`, and groups) or `random`; None: groups if there are any, else blocks.
    pictures
        Key that near-duplicates share, or None.
    pinned
        Part that an image, and so all it is kept together with, stays in; or None.

    Raises
    ------
    InvalidInputError
        No image; all are kept together; pins that contradict each other; no groups or no two values
        where the scheme needs them; shares as in `check_shares`.
    ValueError
        Lengths differ, or a scheme that is unknown or lacks what it needs.
    """
    y = np.asarray(labels, dtype=np.int64)
    wished = check_shares(shares)
    for given in (groups, names, column, pictures, pinned):
        if given is not None and len(given) != len(y):
            raise ValueError(f"{len(given)} values for {len(y)} labels")
    if len(y) == 0:
        raise InvalidInputError(
            "There is no image to divide.", "", "Import images first, on the Images page."
        )
    any_group = groups is not None and any(map(says_whose, groups))
    scheme = scheme or (BY_GROUP if any_group else BY_BLOCK if names is not None else RANDOM)
    units = _units(y, groups, names, column, scheme, any_group)
    units, followed = joined_if_sound(units, pictures)
    if units.max() == 0:
        raise _one_unit_only(len(y), groups, scheme)
    fixed = _fixed(units, pinned, names)
    part_of = _give(y, units, wished, fixed, np.random.default_rng(seed))
    parts = np.array(PARTS)[part_of[units]]
    said = _warnings(groups, any_group, scheme, followed)
    return Division(parts, units, scheme, said)


def _units(
    y: Ints,
    groups: Sequence[str | None] | None,
    names: Sequence[str] | None,
    column: Sequence[str | None] | None,
    scheme: str,
    any_group: bool,
) -> Ints:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} is unknown")
    if scheme == BY_GROUP:
        if groups is None or not any_group:
            raise no_groups_to_split_by()
        return units_of(groups)
    if scheme == BY_COLUMN:
        if column is None:
            raise ValueError("by column needs a column")
        values = sorted({v for v in column if v})
        if len(values) < 2:
            raise one_value_only(values, sum(not v for v in column))
        units = units_of(column)
    elif scheme == BY_BLOCK:
        if names is None:
            raise ValueError("blocks of file names need names")
        units = blocks_of_folders(y, names)
    else:
        return np.arange(len(y)) if any_group or groups is None else units_of(groups)
    # a value of a column holds whole groups; blocks hold whole pictures
    return units if groups is None or (any_group and scheme == BY_BLOCK) else joined(units, groups)


def _one_unit_only(n: int, groups: Sequence[str | None] | None, scheme: str) -> InvalidInputError:
    one = next((g for g in groups or [] if says_whose(g)), None)
    if scheme == BY_COLUMN:
        what = f"All {n} images are kept together: every value of the column shares groups."
    elif one is not None:
        what = f"All {n} images belong to one group (“{one}”, or others tied to it)."
    else:
        what = f"There is nothing to divide: {n} image{'s' if n != 1 else ''}, kept together."
    return InvalidInputError(
        what,
        "What is kept together cannot be learnt from and scored on.",
        "Give images their own groups (patient, slide), or divide by file-name blocks.",
    )


def _fixed(units: Ints, pinned: Sequence[str | None] | None, names: Sequence[str] | None) -> Ints:
    """Return the part of each unit that a pin decides, or -1."""
    fixed = np.full(int(units.max()) + 1, -1)
    first: dict[int, int] = {}
    for i, part in enumerate(pinned or []):
        if part is None:
            continue
        unit, wanted = int(units[i]), PARTS.index(part)
        if fixed[unit] not in (-1, wanted):
            a, b = (names[k] if names else f"image {k}" for k in (first[unit], i))
            raise InvalidInputError(
                f"{a} is pinned to {PARTS[fixed[unit]]} and {b} to {part}, but they belong "
                "together (one group, or near-duplicates).",
                "What belongs together goes to one part.",
                "Remove one of the pins.",
            )
        fixed[unit] = wanted
        first.setdefault(unit, i)
    return fixed


def _give(
    y: Ints, units: Ints, shares: Mapping[str, float], fixed: Ints, rng: np.random.Generator
) -> Ints:
    """Return the part of each unit as its place in `PARTS`."""
    classes = np.unique(y[y >= 0])
    columns = np.where(y < 0, len(classes), np.searchsorted(classes, y))
    table = np.zeros((len(fixed), len(classes) + 1))  # (units, classes and unlabelled) counts
    np.add.at(table, (units, columns), 1)
    weights = table / np.maximum(table.sum(0), 1)
    weights[:, -1] *= _UNLABELLED
    used = [k for k, part in enumerate(PARTS) if shares[part] > 0]
    place = {k: at for at, k in enumerate(used)}
    # a pin to a part that gets no share otherwise holds still
    free = np.array([-1 if k < 0 else place.get(int(k), len(used)) for k in fixed])
    wished = np.array([shares[PARTS[k]] for k in used])
    held = free == len(used)
    given = give_out(weights[~held], wished, rng, free[~held])
    part_of = fixed.copy()
    part_of[~held] = np.array(used)[given]
    _spread(part_of, table[:, :-1] > 0, used, fixed < 0, table.sum(1))
    return part_of


def _spread(
    part_of: Ints,
    holds: NDArray[np.bool_],
    used: Sequence[int],
    movable: NDArray[np.bool_],
    sizes: NDArray[np.float64],
) -> None:
    """Move units, the smallest that does, until every part has every class that it can have.

    A move takes no class from a part that needs it more, so this ends.
    """
    needed = [PARTS.index(part) for part in _FIRST if PARTS.index(part) in used]
    for rank, part in enumerate(needed):
        for c in np.argsort(holds.sum(0), kind="stable"):
            if holds[part_of == part, c].any():
                continue
            best: tuple[float, int] | None = None
            n_held = [holds[part_of == k].sum(0) for k in range(len(PARTS))]
            for unit in np.flatnonzero(holds[:, c] & movable):
                left = n_held[part_of[unit]] - holds[unit]
                lost = np.flatnonzero(holds[unit] & (left == 0))
                less_needed = part_of[unit] in needed[rank + 1 :]
                if all(less_needed and k == c for k in lost):
                    best = min(best or (np.inf, 0), (float(sizes[unit]), int(unit)))
            if best is not None:
                part_of[best[1]] = part


def _warnings(
    groups: Sequence[str | None] | None, any_group: bool, scheme: str, followed: bool
) -> list[str]:
    said = [] if followed else [TIES_TOO_MANY]
    if scheme == BY_BLOCK:
        said.append(BLOCKS_DESPITE_GROUPS if any_group else NO_GROUPS)
    if scheme == RANDOM:
        said.append(RANDOM_GROUPS if any_group else RANDOM_WARNING)
    if scheme in (BY_GROUP, BY_COLUMN) and any_group and groups is not None:
        n = sum(not group for group in groups)
        if n:
            said.append(f"{n:,} of {len(groups):,} images have no group: each counts as its own.")
    return said
