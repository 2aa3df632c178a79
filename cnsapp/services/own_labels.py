"""One's own labels only: images as one person called them, and nothing of what others said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.services.images import ImageItem
from db.deciding import class_meanings
from db.models import AnnotatorLabel, Image
from db.queries import chunks
from db.session import Store

Item = TypeVar("Item", bound=ImageItem)
Own = tuple[str, int | None, str | None, int]  # state, class, source, event


def labels_of(store: Store, items: Sequence[Item], annotator: str) -> list[Item]:
    """Return the items with what this person said of them, as if nobody else had labelled.

    Tags stay, as they are the project's; whether somebody wrote a note, or people disagree, is not
    told.
    """
    with store.reading() as session:
        said = own_words(session, [item.id for item in items], annotator)
    return [_as_own(item, said.get(item.id)) for item in items]


def own_words(session: Session, image_ids: Sequence[int], annotator: str) -> dict[int, Own]:
    """Return what a person says of these images, in the classes of today; images left out: none."""
    found: dict[int, Own] = {}
    meanings: dict[int, dict[int, int | None]] = {}
    for part in chunks(list(image_ids)):
        rows = session.execute(
            select(AnnotatorLabel, Image.project_id)
            .join(Image, Image.id == AnnotatorLabel.image_id)
            .where(AnnotatorLabel.image_id.in_(part), AnnotatorLabel.annotator == annotator)
        )
        for word, project_id in rows:
            if project_id not in meanings:
                meanings[project_id] = dict(class_meanings(session, project_id))
            class_id = word.class_id
            if class_id is not None:
                class_id = meanings[project_id].get(class_id, class_id)
                if class_id is None:
                    continue  # its class is gone: it says nothing any more
            found[word.image_id] = (word.state, class_id, word.source, word.event_id)
    return found


def _as_own(item: Item, said: Own | None) -> Item:
    state, class_id, source, event_id = said or ("none", None, None, 0)
    return replace(
        item, state=state, class_id=class_id, source=source, rev=event_id, disputed=False,
        noted=False,
    )  # fmt: skip
