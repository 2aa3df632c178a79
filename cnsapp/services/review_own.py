"""An image of Review as one person may see it where others are hidden (blind reading)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.services.images import ImageItem
from cnsapp.services.review_list import Listed
from db.models import AnnotatorLabel, Image

Item = TypeVar("Item", bound=ImageItem)


@dataclass(frozen=True)
class Word:
    """What one person calls an image, and the event that said so."""

    state: str
    class_id: int | None
    source: str
    event_id: int


def own_word(session: Session, image_id: int, who: str) -> Word | None:
    """Return what a person calls an image, or None."""
    columns = (
        AnnotatorLabel.state,
        AnnotatorLabel.class_id,
        AnnotatorLabel.source,
        AnnotatorLabel.event_id,
    )
    row = session.execute(
        select(*columns).where(AnnotatorLabel.image_id == image_id, AnnotatorLabel.annotator == who)
    ).one_or_none()
    return None if row is None else Word(*row)


def as_own(item: Item, word: Word | None) -> Item:
    """Return an image as if nobody but one person had looked at it."""
    return replace(
        item,
        state=word.state if word else "none",
        class_id=word.class_id if word else None,
        rev=word.event_id if word else 0,
        source=word.source if word else None,
        disputed=False,
        suggestion=None,
        tags=(),
        noted=False,
    )


def without_label(answer: Listed, word: Word | None) -> Listed:
    """Return a model's answer without all that follows from what others call the image."""
    return replace(
        as_own(answer, word),
        label=None,
        label_then=None,
        label_now=None,
        changed=False,
        right=None,
        loss=None,
    )


def own_rows(session: Session, image_ids: Sequence[int], who: str) -> list[Any]:
    """Return the images among these to which a person gave a class, with that class."""
    columns = (Image.id, Image.file_name, Image.sha256, Image.group_key)
    return list(
        session.execute(
            select(*columns, AnnotatorLabel.class_id.label("current_class_id"))
            .join(AnnotatorLabel, AnnotatorLabel.image_id == Image.id)
            .where(
                Image.id.in_(image_ids),
                AnnotatorLabel.annotator == who,
                AnnotatorLabel.state == "label",
            )
        )
    )
