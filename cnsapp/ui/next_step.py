"""What to do next in a project: one answer, the same on every page that asks."""

from __future__ import annotations

from dataclasses import dataclass

from cnsapp.ui.words import plural


@dataclass(frozen=True)
class Standing:
    """Where a project stands in the loop."""

    n_images: int
    n_unlabelled: int
    n_labelled: int
    can_train: bool
    trains_now: bool
    has_model: bool
    n_changed: int  # labels that differ from what the newest model was trained on


@dataclass(frozen=True)
class NextStep:
    """The page to go to, the words on the button, and why."""

    step: str  # images | label | train | review | predict
    page: str
    button: str
    why: str


def next_step(at: Standing) -> NextStep:
    """Return the next thing to do."""
    if at.n_images == 0:
        return NextStep(
            "images", "pages/images.py", "Import images", "This project has no images yet."
        )
    if at.trains_now:
        return NextStep(
            "train", "pages/train.py", "Watch the training", "A model is being trained."
        )
    if not at.can_train:
        return NextStep(
            "label",
            "pages/label.py",
            "Label images",
            "There are too few labels to train a model on; the Train page says how many it takes."
            if at.n_labelled
            else "No image has a label yet.",
        )
    if not at.has_model:
        return NextStep(
            "train",
            "pages/train.py",
            "Train a quick model",
            f"{plural(at.n_labelled, 'image')} labelled: enough for a first model.",
        )
    if at.n_changed:
        return NextStep(
            "train",
            "pages/train.py",
            "Train again",
            f"{plural(at.n_changed, 'label')} changed or added since the newest model.",
        )
    return NextStep(
        "review", "pages/review.py", "Review the model", "See where it is wrong, and mend labels."
    )
