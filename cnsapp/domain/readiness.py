"""Can a model be trained on these labels, and what would weaken it: said before the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cnsapp.domain.splits import NO_GROUPS

NEEDED_PER_CLASS = 3  # fewer cannot be split into a part to learn from and a part to score on
NEEDED_CLASSES = 2
RECOMMENDED_PER_CLASS = 10
UNEQUAL = 10.0  # the largest class over the smallest one, from where it is worth a word


@dataclass(frozen=True)
class ClassCount:
    """How many labelled images a class has, and from how many groups they come."""

    name: str
    n: int
    n_groups: int = 0


@dataclass(frozen=True)
class Verdict:
    """What stands in the way, what weakens the result, and what is missing of each class."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    needed: dict[str, int] = field(default_factory=dict)  # class name -> labels still missing
    left_out: list[str] = field(default_factory=list)  # classes too small to be learnt
    about_groups: list[str] = field(default_factory=list)  # those warnings that folds repeat

    @property
    def ok(self) -> bool:
        """Whether training can start."""
        return not self.problems


def assess(counts: Sequence[ClassCount], n_images: int, n_groups: int) -> Verdict:
    """Judge the labels of a project.

    Parameters
    ----------
    counts
        Every class of the project, those without a label included.
    n_images
        Images of the project.
    n_groups
        Different groups (patients, slides) among the labelled images; 0 when none has a group.
    """
    usable = [c for c in counts if c.n >= NEEDED_PER_CLASS]
    few = [c for c in counts if 0 < c.n < NEEDED_PER_CLASS]
    needed = {c.name: NEEDED_PER_CLASS - c.n for c in counts if c.n < NEEDED_PER_CLASS}
    if len(usable) < NEEDED_CLASSES:
        return Verdict([_problem(counts, usable, few, n_images)], [], needed, [])
    warnings = [_left_out(few)] if few else []
    about_groups = _about_groups(usable, n_groups)
    warnings += [*_weaknesses(usable), *about_groups]
    missing = {c.name: NEEDED_PER_CLASS - c.n for c in few}
    return Verdict([], warnings, missing, _names(few), about_groups)


def _problem(
    counts: Sequence[ClassCount],
    usable: Sequence[ClassCount],
    few: Sequence[ClassCount],
    n_images: int,
) -> str:
    rule = (
        f"Training needs at least {NEEDED_CLASSES} classes with {NEEDED_PER_CLASS} labelled images "
        f"each; {RECOMMENDED_PER_CLASS} or more of each make a useful model."
    )
    if n_images == 0:
        return f"This project has no images yet. {rule}"
    if not usable and not few:
        return f"No image has a label yet. {rule}"
    labelled = [c for c in counts if c.n > 0]
    if len(labelled) == 1:
        only = labelled[0]
        return (
            f"Only one class has labels: {only.name} ({only.n}). A model learns by telling classes "
            f"apart. {rule}"
        )
    missing = "; ".join(f"{c.name} has {c.n}, {NEEDED_PER_CLASS - c.n} more needed" for c in few)
    return f"Too few labelled images: {missing}. {rule}"


def _left_out(few: Sequence[ClassCount]) -> str:
    names = ", ".join(f"{c.name} ({c.n})" for c in few)
    return (
        f"Left out, because fewer than {NEEDED_PER_CLASS} images are labelled so: {names}. The "
        "model will not know these classes."
    )


def _weaknesses(usable: Sequence[ClassCount]) -> list[str]:
    found = []
    thin = [c for c in usable if c.n < RECOMMENDED_PER_CLASS]
    if thin:
        names = ", ".join(f"{c.name} ({c.n})" for c in thin)
        found.append(
            f"Few labelled images of {names}: below {RECOMMENDED_PER_CLASS} the score of a class "
            "is little more than a guess."
        )
    most = max(usable, key=lambda c: c.n)
    least = min(usable, key=lambda c: c.n)
    if most.n >= UNEQUAL * least.n:
        found.append(
            f"The classes are unequal: {most.name} has {most.n} labelled images, {least.name} "
            f"{least.n}. Read the balanced accuracy, not the plain one."
        )
    return found


def _about_groups(usable: Sequence[ClassCount], n_groups: int) -> list[str]:
    if n_groups == 0:
        return [NO_GROUPS]
    if n_groups == 1:
        return [
            "All labelled images come from one group. The score says nothing about other patients "
            "or slides."
        ]
    single = [c for c in usable if c.n_groups == 1]
    if single:
        return [
            f"All images of {', '.join(_names(single))} come from one group, so the score of "
            f"{'this class' if len(single) == 1 else 'these classes'} cannot be checked on another "
            "patient or slide."
        ]
    return []


def _names(counts: Sequence[ClassCount | PartCount]) -> list[str]:
    return [c.name for c in counts]


# --- the parts of a split ---

ENOUGH_TESTED = 20  # test images of a class, below which its score is a guess
ENOUGH_GROUPS = 5  # and groups that they come from


@dataclass(frozen=True)
class PartCount:
    """How many labelled images of a class each part of a split holds, and from how many groups.

    An image without a group counts as a group of its own.
    """

    name: str
    n: Mapping[str, int]
    n_groups: Mapping[str, int]


def assess_parts(counts: Sequence[PartCount], parts: Sequence[str], *, grouped: bool) -> list[str]:
    """Say what the parts of a split lack, in words.

    Parameters
    ----------
    counts
        Every class of the project; those without a label are passed over.
    parts
        Those of `train`, `validation` and `test` that the split has.
    grouped
        Whether groups were kept whole, so that a class needs a group for every part.
    """
    used = [c for c in counts if sum(c.n.values())]
    if not used:
        return [
            "No image has a label yet: the parts follow from what belongs together alone, and a "
            "class may turn out to be missing in one of them."
        ]
    said = []
    for part in parts:
        missing = [c for c in used if not c.n.get(part)]
        if not missing:
            continue
        few = [c for c in missing if grouped and sum(c.n_groups.values()) < len(parts)]
        why = ""
        if few:
            n = sum(few[0].n_groups.values())
            why = (
                f" {few[0].name} comes from {n} group{'s' if n != 1 else ''}, and "
                f"{len(parts)} are needed to be in every part."
            )
        said.append(f"{_LACKS[part]}: {', '.join(_names(missing))}. {_SO[part]}{why}")
    if "test" in parts:
        thin = [
            c for c in used if c.n.get("test")
            and (c.n["test"] < ENOUGH_TESTED or (grouped and c.n_groups["test"] < ENOUGH_GROUPS))
        ]  # fmt: skip
        if thin:
            each = ", ".join(f"{c.name} ({_of(c, grouped=grouped)})" for c in thin)
            least = f"{ENOUGH_TESTED} images" + (f" from {ENOUGH_GROUPS} groups" if grouped else "")
            said.append(
                f"Small in the test set: {each}. With fewer than {least} the test score of a class "
                "is little more than a guess."
            )
    return said


_LACKS = {
    "train": "Not among the training images",
    "validation": "Not among the validation images",
    "test": "Not in the test set",
}
_SO = {
    "train": "The model cannot learn what it is never shown.",
    "validation": "How well the model does on it takes no part in its choices.",
    "test": "Its test score is undefined.",
}


def _of(count: PartCount, *, grouped: bool) -> str:
    n = count.n["test"]
    images = f"{n} image{'s' if n != 1 else ''}"
    if not grouped:
        return images
    groups = count.n_groups["test"]
    return f"{images}, {groups} group{'s' if groups != 1 else ''}"
