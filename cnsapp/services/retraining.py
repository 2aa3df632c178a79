"""How far the labels have moved on since a model was trained, and whether to train again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select

from cnsapp.services.class_names import classes_today
from cnsapp.services.images import counts
from cnsapp.services.models import Changes, changed_ids, get_model, labels_changed_since
from db.models import Prediction
from db.session import Store

Worth = Literal["no", "maybe", "yes"]

# rules of thumb: of the labels that a model learnt from, the share that changed or came since
MAYBE, YES = 0.05, 0.2
LABELS_TO_LEARN = 5  # of a class that the model does not know


@dataclass(frozen=True)
class RetrainHint:
    """How far the labels have moved on since a model, and whether to train again.

    Attributes
    ----------
    changes
        Counts of the images labelled otherwise, newly, or no more.
    n_test
        Of the changed and removed ones those of the locked test set: training learns from none.
    n_trained
        Labels that the model was made from.
    share
        Changes, without those of the test set, of these; None where their number is not known.
    unknown_classes
        Classes with labels that the model does not know.
    worth
        By a rule of thumb: yes from a fifth of the labels, or with a class that the model does not
        know; maybe from a twentieth.
    said
        That in a sentence.
    """

    changes: Changes
    n_test: int
    n_trained: int
    share: float | None
    unknown_classes: list[str]
    worth: Worth
    said: str


def retrain_hint(store: Store, *, model_id: int) -> RetrainHint:
    """Say how many labels changed since a model was trained, and whether to train again.

    Raises
    ------
    NotFoundError
        There is no such model.
    """
    model = get_model(store, model_id=model_id)
    changes = labels_changed_since(store, model_id=model_id, sample=0)
    of_test = changed_ids(model).where(Prediction.part == "test").subquery()
    with store.reading() as session:
        n_test = session.scalar(select(func.count()).select_from(of_test)) or 0
        names = {i: c.own_name for i, c in classes_today(session, model.project_id).items()}
    known = {output.class_id for output in model.outputs}
    unknown = [
        names[class_id]
        for class_id, n in counts(store, project_id=model.project_id).per_class.items()
        if class_id not in known and n >= LABELS_TO_LEARN and class_id in names
    ]
    n, trained = changes.total - n_test, model.n_images
    share = n / trained if trained else None
    worth: Worth = "no"
    if unknown or (share is not None and share >= YES):
        worth = "yes"
    elif share is not None and share >= MAYBE:
        worth = "maybe"
    said = _hint(changes, n, n_test, trained, sorted(unknown), worth)
    return RetrainHint(changes, n_test, trained, share, sorted(unknown), worth, said)


def _hint(
    changes: Changes, n: int, n_test: int, trained: int, unknown: Sequence[str], worth: Worth
) -> str:
    if not changes.total and not unknown:
        return "No label changed since this model was trained."
    parts = [
        f"{count:,} {word}"
        for count, word in (
            (changes.n_changed, "changed"),
            (changes.n_new, "new"),
            (changes.n_removed, "removed"),
        )
        if count
    ]
    said = f"Labels changed since this model: {', '.join(parts) or 'none changed'}"
    if n and trained:
        share = 100 * n / trained
        shown = f"{share:,.0f}" if share >= 10 else f"{share:.2g}"
        said += f", {shown} % of the {trained:,} it was made from"
    if n_test:
        said += f" ({n_test:,} of the locked test set not counted)"
    if unknown:
        return f"{said}. It does not know {', '.join(unknown)}: train again."
    return (
        said
        + {
            "yes": ". That is much: train again.",
            "maybe": ". Training again may be worth it.",
            "no": ". Training again would hardly change the model.",
        }[worth]
    )
