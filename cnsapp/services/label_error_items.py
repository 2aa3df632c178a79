"""A suspected label as the list shows it, with the reason in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.models import ModelView
from cnsapp.services.suspect_rows import OPEN, Ranked, Standing
from db.session import Store

Key = tuple[float, int]


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes
    ----------
    image
        As grids show it, with the label of today.
    label_class_id, label
        What it was labelled when the model was trained, as that class is called today.
    suggested_class_id, suggested
        The class that model and neighbours hold likeliest beside it.
    score
        Suspicion, 0.5 to 1.
    label_probability, suggested_probability
        What the model said, 0 to 1.
    n_like_suggested, n_like_label, n_neighbours
        Of the (at most 5) nearest labelled images, how many carry which label today.
    neighbour_ids
        These images, the nearest first.
    flagged
        Sure enough to be called a label error; else less sure.
    decision
        "" (open), "confirmed", "corrected", or "set aside" (unsure, skipped, taken back, waiting).
    reason
        Why it is suspected, in a sentence.
    """

    image: ImageItem
    label_class_id: int
    label: str
    suggested_class_id: int
    suggested: str
    score: float
    label_probability: float
    suggested_probability: float
    n_like_suggested: int
    n_like_label: int
    n_neighbours: int
    neighbour_ids: tuple[int, ...]
    flagged: bool
    decision: str
    reason: str

    @property
    def cursor(self) -> Key:
        """The value of `after` that goes on behind this image."""
        return (self.score, self.image.id)


def read_items(
    store: Store, model: ModelView, found: Ranked, now: Standing, rows: Sequence[int]
) -> list[Suspect]:
    """Return these rows of a ranking as the list shows them, in this order."""
    ids = [int(found.image_ids[row]) for row in rows]
    with store.reading() as session:
        images = {item.id: item for item in items_in_order(session, ids)}
    sure = set(found.suspects.order[: found.suspects.n_flagged].tolist())
    return [
        _item(images[image_id], row, model, found, now, row in sure)
        for row, image_id in zip(rows, ids, strict=True)
        if image_id in images
    ]


def _item(
    image: ImageItem, row: int, model: ModelView, found: Ranked, now: Standing, flagged: bool
) -> Suspect:
    given, to = int(found.given[row]), int(found.suspects.suggested[row])
    label, suggested = model.outputs[given], model.outputs[to]
    near = [int(i) for i in found.suspects.nearest[row] if i >= 0]
    they_are = [_label_today(i, model, found, now) for i in near]
    p_label, p_to = (float(found.probabilities[row, k]) for k in (given, to))
    like_to, like_label = (they_are.count(k.class_id) for k in (suggested, label))
    who = "The fold" if found.folds[row] >= 0 else "The model"
    reason = (
        f"{who} that never saw this image says {suggested.name} at {p_to:.2f} and {label.name}, "
        f"its label, at {p_label:.2f}"
    )
    if near:
        are = "is" if like_to == 1 else "are"
        reason += (
            f"; {like_to} of its {len(near)} nearest labelled neighbours {are} {suggested.name}"
        )
    return Suspect(
        image=image,
        label_class_id=label.class_id,
        label=label.name,
        suggested_class_id=suggested.class_id,
        suggested=suggested.name,
        score=float(found.suspects.score[row]),
        label_probability=p_label,
        suggested_probability=p_to,
        n_like_suggested=like_to,
        n_like_label=like_label,
        n_neighbours=len(near),
        neighbour_ids=tuple(int(found.image_ids[i]) for i in near),
        flagged=flagged,
        decision=now.decisions.get(row, OPEN),
        reason=f"{reason}.",
    )


def _label_today(row: int, model: ModelView, found: Ranked, now: Standing) -> int | None:
    if row in now.labels:
        return now.labels[row]
    return model.outputs[int(found.given[row])].class_id
