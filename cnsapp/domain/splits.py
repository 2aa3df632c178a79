"""Which images are held out together: folds that keep patients, slides and neighbours whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.assigning import assign
from cnsapp.domain.together import SAME_PICTURE as SAME_PICTURE
from cnsapp.domain.together import (
    Ints,
    Keys,
    blocks_of_classes,
    joined,
    joined_if_sound,
    says_whose,
    units_of,
)
from cnsapp.domain.together import natural_key as natural_key
from cnsapp.errors import InvalidInputError

BY_GROUP = "by group"
BY_BLOCK = "by file-name blocks"
RANDOM = "random"
BY_COLUMN = "by column"
SCHEMES = (BY_GROUP, BY_BLOCK, RANDOM, BY_COLUMN)
MOST_VALUES = 20  # folds by column: with more values each fold holds several
NO_GROUPS = (
    "No image has a group (patient, slide, animal). Images of one patient may then be both learnt "
    "from and scored on, and the score may be too good; neighbouring file names are kept together."
)
GROUPS_UNUSED = (
    "Folds were cut by file names although groups are given: images of one group may be both "
    "learnt from and scored on, and the score may be too good."
)
RANDOM_GROUPS = (
    "Images were split at random although groups are given: images of one group may be both "
    "learnt from and scored on, and the score is probably too good."
)
RANDOM_WARNING = "Images were split at random: if several show one slide, scores are optimistic."
TIES_TOO_MANY = (
    "Pictures that look the same tie most of the images together, so near-duplicates were not kept "
    "on one side: look through them under Images, Quality."
)


@dataclass(frozen=True)
class FoldPlan:
    """A division of images into folds.

    Attributes
    ----------
    folds
        (N,) fold number of each image, 0 to `n_folds` - 1; -1 where an image is never held out
        (by column, an image that has no value there): every fold learns from it.
    scheme
        `by group`, `by file-name blocks`, `by column` or `random`: how it was made.
    n_folds
        Number of folds; fewer than asked for when the data allows no more, 0 when none can be made.
    warnings
        What a reader of the scores must know, in plain words.
    """

    folds: Ints
    scheme: str
    n_folds: int
    warnings: list[str] = field(default_factory=list)


def grouped_folds(
    labels: NDArray[np.integer],
    groups: Sequence[str | None] | None = None,
    *,
    n_folds: int = 5,
    seed: int = 0,
    names: Sequence[str] | None = None,
    scheme: str | None = None,
    class_names: Sequence[str] | None = None,
    column: Sequence[str | None] | None = None,
    pictures: Keys | None = None,
) -> FoldPlan:
    """Divide images into folds for cross-validation, stratified by class as well as groups allow.

    Where groups are given (patient, slide, animal), every group lies wholly in one fold, and an
    image without group is a group of its own. Where no image has one, blocks of neighbouring file
    names within a class stay together, since neighbours often come from one slide; blocks that
    hold two halves of one picture (groups that begin with `SAME_PICTURE`, or the same key of
    `pictures`) are joined. Without names the folds are random.

    By column every value is held out in turn (a batch, a scanner, a hospital): as many folds as
    values, at most 20. Values that share a group or a picture are held out together; where that
    leaves fewer than two, groups are torn, and the warnings say so. Images without a value
    are never held out, unless their group is.

    Parameters
    ----------
    labels
        (N,) class index of each image.
    groups
        Group of each image, or None.
    n_folds
        Folds wished for, 2 or more; by column the values decide.
    seed
        Decides ties and the random scheme.
    names
        File names, for the block scheme.
    scheme
        `by group`, `by file-name blocks`, `by column` or `random`; None chooses as said above.
        `by column` without `column` chooses too: so are folds within a fold cut.
    class_names
        Names for the warnings; None says "class 0".
    column
        Value of each image in the column that is left out by, or None.
    pictures
        Key that near-duplicates share, or None for an image that has none.

    Raises
    ------
    InvalidInputError
        `by group` was asked for, and no image has a group; or the column has fewer than two values.
    ValueError
        Lengths differ, fewer than 2 folds asked for, or a scheme unknown or without names.

    References
    ----------
    Kapoor and Narayanan, Leakage and the reproducibility crisis in machine-learning-based science,
    Patterns 2023. Roberts et al., Cross-validation strategies for data with temporal, spatial,
    hierarchical, or phylogenetic structure, Ecography 2017 (blocks, leaving a batch out).
    """
    y = np.asarray(labels, dtype=np.int64)
    if n_folds < 2:
        raise ValueError(f"n_folds is {n_folds}, not 2 or more")
    _check_lengths(len(y), groups=groups, names=names, column=column, pictures=pictures)
    any_group = groups is not None and any(map(says_whose, groups))
    rng = np.random.default_rng(seed)
    if scheme == BY_COLUMN and column is not None:
        return _by_column(y, groups, column, pictures, rng, class_names)
    if scheme == BY_COLUMN:
        scheme = None
    scheme = scheme or (BY_GROUP if any_group else BY_BLOCK if names is not None else RANDOM)
    if scheme == BY_GROUP and groups is not None and any_group:
        units = units_of(groups)
    elif scheme == BY_GROUP:
        raise no_groups_to_split_by()
    elif scheme == BY_BLOCK and names is not None:
        units = blocks_of_classes(y, names, n_folds)
    elif scheme == RANDOM:
        units = np.arange(len(y))
    else:
        raise ValueError(f"scheme {scheme!r} is unknown or needs names")
    if scheme != BY_GROUP and groups is not None and not any_group:
        units = joined(units, groups)  # groups that only say: two of one picture
    units, followed = joined_if_sound(units, pictures)
    folds, used = assign(y, units, n_folds, rng)
    warnings = _warnings(y, units, used, n_folds, scheme, class_names)
    if scheme == BY_BLOCK:
        warnings.append(GROUPS_UNUSED if any_group else NO_GROUPS)
    if scheme == RANDOM:
        warnings.append(RANDOM_GROUPS if any_group else RANDOM_WARNING)
    if scheme == BY_GROUP and groups is not None and (n := sum(not group for group in groups)):
        warnings.append(f"{n} of {len(y)} images have no group: each counts as its own group.")
    return FoldPlan(folds, scheme, used, warnings + ([] if followed else [TIES_TOO_MANY]))


def _check_lengths(n: int, **given: Keys | None) -> None:
    for what, values in given.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{len(values)} {what} for {n} labels")


def no_groups_to_split_by() -> InvalidInputError:
    """Return what is wrong with the scheme `by group` where there are no groups."""
    return InvalidInputError(
        "Folds by group were asked for, but no labelled image has a group.",
        "Every image would be its own group: a random split under a better name.",
        "Import the images again with their groups, or leave the setting `scheme` out.",
    )


def one_value_only(values: Sequence[str], n_without: int) -> InvalidInputError:
    """Return what is wrong with leaving out by a column that has no two values."""
    without = f" {n_without} images have none." if n_without else ""
    found = f"only one value (“{values[0]}”)" if values else "no value at all"
    return InvalidInputError(
        f"Folds by column were asked for, but the column has {found} among the labelled images."
        f"{without}",
        "Nothing could be learnt from while it is held out.",
        "Choose a column with several values, or folds by group.",
    )


def _by_column(
    y: Ints,
    groups: Sequence[str | None] | None,
    column: Sequence[str | None],
    pictures: Keys | None,
    rng: np.random.Generator,
    class_names: Sequence[str] | None,
) -> FoldPlan:
    """Hold out every value in turn, with all that belongs to it."""
    cells = [(value or "").strip() or None for value in column]
    values = sorted({value for value in cells if value}, key=natural_key)
    if len(values) < 2:
        raise one_value_only(values, sum(value is None for value in cells))
    ties, torn = joined(units_of(cells), pictures or [None] * len(y)), False
    whole = ties if groups is None else joined(ties, groups)
    units = whole
    if _n_valued(whole, cells) < 2:
        units, torn = ties, True
    valued = np.unique(units[[i for i, value in enumerate(cells) if value]])
    if len(valued) < 2:
        raise InvalidInputError(
            "Folds by column were asked for, but pictures that show the same tie its values "
            "together.",
            "Every value that is held out would leave a copy behind to learn from.",
            "Look through the near-duplicates under Images, Quality, or choose folds by group.",
        )
    held = np.isin(units, valued)
    folds = np.full(len(y), -1, np.int64)
    if len(valued) <= MOST_VALUES:
        folds[held], used = np.searchsorted(valued, units[held]), len(valued)
    else:
        numbers = np.unique(units[held], return_inverse=True)[1].astype(np.int64)
        folds[held], used = assign(y[held], numbers, MOST_VALUES, rng)
    warnings = _warnings(y, units, used, used, BY_COLUMN, class_names)
    warnings += _about_column(units, cells, values, used, len(valued), torn, int((~held).sum()))
    return FoldPlan(folds, BY_COLUMN, used, warnings)


def _n_valued(units: Ints, cells: Sequence[str | None]) -> int:
    return len({u for u, value in zip(units.tolist(), cells, strict=True) if value})


def _about_column(
    units: Ints,
    cells: Sequence[str | None],
    values: Sequence[str],
    used: int,
    n_valued: int,
    torn: bool,
    n_never: int,
) -> list[str]:
    said = []
    if torn:
        said.append(
            "Groups run across the values of the column: images of one group (patient, slide) are "
            "both learnt from and scored on, and the score speaks of new values of the column "
            "only, not of new groups."
        )
    elif n_valued < len(values):
        of_unit: dict[int, set[str]] = {}
        for unit, value in zip(units.tolist(), cells, strict=True):
            if value:
                of_unit.setdefault(unit, set()).add(value)
        together = next(sorted(v, key=natural_key) for v in of_unit.values() if len(v) > 1)
        said.append(
            f"{len(values)} values of the column make {n_valued} folds: values that share a group "
            f"or a picture are held out together, for example {', '.join(together[:4])}."
        )
    if n_valued > MOST_VALUES:
        said.append(
            f"The column has {len(values)} values: they are held out in {used} folds of whole "
            "values, not one by one."
        )
    if n_never:
        said.append(
            f"{n_never} images have no value in the column: they are learnt from and never scored."
        )
    return said


def _warnings(
    labels: Ints,
    units: Ints,
    used: int,
    wished: int,
    scheme: str,
    class_names: Sequence[str] | None,
) -> list[str]:
    unit_word = {
        BY_GROUP: "group", BY_BLOCK: "block of file names", RANDOM: "image",
        BY_COLUMN: "value of the column",
    }[scheme]  # fmt: skip
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
        elif n_units == 1 and scheme == BY_COLUMN:
            said.append(
                f"All {n} images of {name} have one value in the column: it can not be evaluated, "
                "since the model never saw it while that value was held out."
            )
    return said
