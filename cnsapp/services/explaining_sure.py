"""How sure a model is of an image, class by class, and by which of its networks it was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from cnsapp.services.models import ModelView, get_model
from cnsapp.services.projects import ClassView, list_classes
from db.models import Prediction
from db.queries import chunks
from db.session import Store


@dataclass(frozen=True)
class Probabilities:
    """How sure a model is of each class for one image, the likeliest first, and how it came."""

    values: list[tuple[ClassView, float]]
    source: str  # "out-of-fold, fold 3": by a model that had not seen the image


def probabilities(store: Store, *, model_id: int, image_id: int) -> Probabilities | None:
    """Return the out-of-fold probabilities of an image, or None when the model has none of it.

    For images that were not part of the training, the facts of a map carry the probabilities.
    """
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        row = session.execute(
            select(Prediction.probabilities, Prediction.fold, Prediction.part).where(
                Prediction.model_id == model_id, Prediction.image_id == image_id
            )
        ).one_or_none()
    if row is None:
        return None
    values = _by_class(store, model, row[0])
    if row[2] == "test":
        return Probabilities(values, "locked test set: by a model that had not seen this image")
    fold = "held out" if row[1] is None else f"fold {row[1] + 1}"
    return Probabilities(values, f"out-of-fold, {fold}: by a model that had not seen this image")


def in_test_set(store: Store, *, model_id: int, image_id: int) -> bool:
    """Say whether a model answered an image as one of its locked test set: a look is counted."""
    with store.reading() as session:
        part = session.scalar(
            select(Prediction.part).where(
                Prediction.model_id == model_id, Prediction.image_id == image_id
            )
        )
    return part == "test"


def outside_test_set(store: Store, *, model_id: int, image_ids: Sequence[int]) -> list[int]:
    """Return those of some images that are none of a model's locked test set, in their order."""
    locked: set[int] = set()
    with store.reading() as session:
        for part in chunks(list(image_ids)):
            rows = select(Prediction.image_id).where(
                Prediction.model_id == model_id,
                Prediction.part == "test",
                Prediction.image_id.in_(part),
            )
            locked.update(session.scalars(rows))
    return [image_id for image_id in image_ids if image_id not in locked]


def map_probabilities(
    store: Store, *, model_id: int, facts: dict[str, Any]
) -> Probabilities | None:
    """Return the probabilities that came with a map: those of the deployed model."""
    model = get_model(store, model_id=model_id)
    found = facts.get("probabilities")
    if not isinstance(found, list) or len(found) != len(model.class_ids):
        return None
    return Probabilities(_by_class(store, model, found), "from the deployed model")


def _by_class(store: Store, model: ModelView, values: list[float]) -> list[tuple[ClassView, float]]:
    classes = {c.id: c for c in list_classes(store, project_id=model.project_id)}
    pairs = []
    for output in model.outputs:
        gone = ClassView(output.class_id, output.name, None, output.color, None, len(classes))
        share = sum(float(values[place]) for place in output.places)
        pairs.append((classes.get(output.class_id, gone), share))
    return sorted(pairs, key=lambda pair: -pair[1])
