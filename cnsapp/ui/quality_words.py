"""The problems that an image or a project can have, in words."""

from __future__ import annotations

from dataclasses import dataclass

from cnsapp.ui.words import plural


@dataclass(frozen=True)
class Problem:
    """A kind of problem: its name, what is counted, and why it matters."""

    title: str
    unit: str
    why: str

    def counted(self, n: int) -> str:
        """Return `1 pair`, `12 images`."""
        return plural(n, self.unit, "classes" if self.unit == "class" else None)


PROBLEMS = {
    "exact": Problem(
        "Exact duplicates",
        "pair",
        "The same bytes under two names. Training learns from the picture once, but people label it"
        " twice, and it counts twice.",
    ),
    "near": Problem(
        "Near duplicates",
        "pair",
        "Resaved, resized, turned, mirrored or recoloured. Folds and splits keep them on one side;"
        " they still count twice.",
    ),
    "conflict": Problem(
        "Copies with different labels",
        "pair",
        "They show the same and are called differently: one of the labels is wrong.",
    ),
    "groups": Problem(
        "Copies in different groups",
        "pair",
        "The same picture in two patients or slides: training takes the two groups for one, "
        "unless the pictures are set apart.",
    ),
    "blurred": Problem(
        "Blurred",
        "image",
        "Much less sharp than the project's other images: what the label rests on may not "
        "be visible.",
    ),
    "empty": Problem(
        "Empty",
        "image",
        "Nothing but background, light or dark: a model learns the glass, not the tissue.",
    ),
    "over": Problem(
        "Over-exposed",
        "image",
        "A fifth or more is burnt out to white, more than in the other images: detail is "
        "lost for good.",
    ),
    "under": Problem(
        "Under-exposed",
        "image",
        "A fifth or more is pitch black, more than in the other images: detail is lost for good.",
    ),
    "color": Problem(
        "Unusual colour",
        "image",
        "Another stain, scanner or light than the rest: a model may learn the colour "
        "instead of the tissue.",
    ),
    "size": Problem(
        "Unusual size",
        "image",
        "Much larger, smaller or longer than the rest: all are squeezed to one size, so "
        "shapes and scale differ.",
    ),
    "class_imbalance": Problem(
        "Rare classes",
        "class",
        "Ten times fewer images than the largest class: a model seldom answers with it.",
    ),
    "class_one_group": Problem(
        "Classes from one group",
        "class",
        "Class and patient can not be told apart, and no split by group can score the class.",
    ),
    "group_names": Problem(
        "Groups spelt alike",
        "name",
        "Names that differ by case, spaces, dashes or leading zeros may be one patient, "
        "whom a split tears apart.",
    ),
    "folder_imbalance": Problem(
        "One folder holds most",
        "folder",
        "What is special about that folder decides what is learnt.",
    ),
}
