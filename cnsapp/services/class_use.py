"""What hangs on a class: the labels, people and models that a change of it would concern."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.errors import NotFoundError
from db.models import AnnotatorLabel, Image, LabelClass, Model
from db.queries import read_tally
from db.session import Store


@dataclass(frozen=True)
class ClassUse:
    """How a class is used.

    Attributes
    ----------
    n_images
        Images that are called so now.
    n_readings, n_people
        What single people say of images, and how many people; with votes more than `n_images`.
    n_models
        Models that know it.
    merged
        Names of classes that count as it.
    """

    n_images: int
    n_readings: int
    n_people: int
    n_models: int
    merged: tuple[str, ...]


@dataclass(frozen=True)
class ImageRow:
    """An image of a class, to choose from when a new class is split off."""

    id: int
    name: str
    version: str  # of its thumbnail's address
    group: str | None


def class_use(store: Store, *, class_id: int) -> ClassUse:
    """Return what hangs on a class; raise NotFoundError when there is none."""
    with store.reading() as session:
        row = session.get(LabelClass, class_id)
        if row is None:
            raise NotFoundError(f"There is no class number {class_id}.")
        family = _family(session, row)
        n, people = session.execute(
            select(func.count(), func.count(func.distinct(AnnotatorLabel.annotator))).where(
                AnnotatorLabel.class_id.in_([class_id, *family])
            )
        ).one()
        images = read_tally(session, row.project_id).get(f"class:{class_id}", 0)
        models = _models(session, row.project_id).get(class_id, 0)
        return ClassUse(images, n, people, models, tuple(family.values()))


def models_per_class(store: Store, *, project_id: int) -> dict[int, int]:
    """Return how many models know each class."""
    with store.reading() as session:
        return _models(session, project_id)


def images_of_class(
    store: Store, *, class_id: int, text: str = "", limit: int = 200
) -> list[ImageRow]:
    """Return images that are called so now, by name; `text` is part of the file's name or group."""
    part = text.strip().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    statement = select(Image).where(
        Image.current_class_id == class_id, Image.current_state == "label", Image.status == "ok"
    )
    if part:
        like = f"%{part}%"
        statement = statement.where(
            Image.file_name.ilike(like, escape="\\") | Image.group_key.ilike(like, escape="\\")
        )
    with store.reading() as session:
        found = session.scalars(statement.order_by(Image.file_name, Image.id).limit(limit))
        return [
            ImageRow(
                image.id, image.file_name, f"{image.sha256[:8]}{image.seen[:8]}", image.group_key
            )
            for image in found
        ]


def _family(session: Session, row: LabelClass) -> dict[int, str]:
    """Return the classes that count as this one, directly or on the way."""
    gone = session.execute(
        select(LabelClass.id, LabelClass.merged_into, LabelClass.name).where(
            LabelClass.project_id == row.project_id, LabelClass.merged_into.is_not(None)
        )
    ).all()
    found: dict[int, str] = {}
    while more := {i: n for i, t, n in gone if t in {row.id, *found} and i not in found}:
        found |= more
    return found


def _models(session: Session, project_id: int) -> dict[int, int]:
    found: dict[int, int] = {}
    lists = select(Model.class_ids).where(Model.project_id == project_id, Model.ready.is_(True))
    for class_ids in session.scalars(lists):
        for class_id in class_ids:
            found[int(class_id)] = found.get(int(class_id), 0) + 1
    return found
