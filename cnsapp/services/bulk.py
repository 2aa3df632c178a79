"""Label many images at once, from a list on the server: a group of look-alikes, a whole filter."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from cnsapp.domain.labels import SOURCES, clean_annotator
from cnsapp.errors import InvalidInputError
from cnsapp.services.suggestion_runs import refresh_if_due
from db.deciding import class_meanings, refresh_current
from db.models import Image, LabelClass, LabelEvent
from db.queries import chunks, insert_new
from db.session import Store

PAUSE = 0.002  # seconds between transactions: SQLite's lock has no queue, so leave a gap to get in
MOST_IMAGES = 200_000  # in one action


@dataclass(frozen=True)
class BulkReceipt:
    """What came of a bulk action: `action` names it for undo."""

    action: str
    stored: int
    unknown: int  # images that are not in the project


def label_images(
    store: Store,
    *,
    project_id: int,
    annotator: str,
    image_ids: Sequence[int],
    class_id: int | None,
    source: str = "bulk",
    kind: str = "label",
    classes: Sequence[int] | None = None,
    action: str | None = None,
    only_open: bool = False,
) -> BulkReceipt:
    """Give images one class, or each its own, as one action that one undo takes back.

    Parameters
    ----------
    class_id
        The class for all; None with kind skip, unsure or clear, or where `classes` says it.
    classes
        One class an image, in the order of `image_ids`: accepted suggestions.
    action
        Sent again after a crash with the same name, it stores only what is missing.
    only_open
        Leave images that have got a label, also a moment ago, as they are.

    Raises
    ------
    InvalidInputError
        Nobody is named, a class is not of the project, or there are too many images.
    """
    who = clean_annotator(annotator)
    if len(image_ids) > MOST_IMAGES:
        raise InvalidInputError(
            f"{len(image_ids):,} images at once; {MOST_IMAGES:,} is the most.",
            "Nothing was labelled.",
            "Narrow the selection, or import the labels from a table.",
        )
    if source not in SOURCES:
        raise InvalidInputError(f"There is no source of labels “{source}”.")
    name = action or f"bulk-{uuid.uuid4().hex}"
    chosen = list(classes) if classes is not None else [class_id] * len(image_ids)
    _check_classes(store, project_id, kind, {c for c in chosen if c is not None} or {None})
    wanted = dict(zip(image_ids, chosen, strict=True))
    stored = unknown = 0
    for start, part in enumerate(chunks(list(wanted))):
        if start:
            time.sleep(PAUSE)
        with store.writing() as session:
            states = dict(
                session.execute(
                    select(Image.id, Image.current_state)
                    .where(Image.id.in_(part), Image.project_id == project_id)
                    .order_by(Image.id)
                    .with_for_update()
                ).all()
            )
            unknown += len(part) - len(states)
            known = {i for i, state in states.items() if state == "none" or not only_open}
            rows = [
                {
                    "project_id": project_id,
                    "image_id": image_id,
                    "class_id": wanted[image_id] if kind == "label" else None,
                    "annotator": who,
                    "kind": kind,
                    "source": source,
                    "client": name,
                    "seq": image_id,
                    "action": name,
                    "target_id": None,
                }
                for image_id in part
                if image_id in known
            ]
            stored += insert_new(session, LabelEvent, rows, ["client", "seq"])
            refresh_current(session, project_id, known)
    if stored:
        refresh_if_due(store, project_id=project_id)
    return BulkReceipt(name, stored, unknown)


def _check_classes(
    store: Store, project_id: int, kind: str, class_ids: set[int] | set[None]
) -> None:
    if kind != "label":
        return
    with store.reading() as session:
        known = set(
            session.scalars(select(LabelClass.id).where(LabelClass.project_id == project_id))
        )
        known -= {
            c for c, meaning in class_meanings(session, project_id).items() if meaning is None
        }
    if not class_ids <= known:
        raise InvalidInputError(
            "That class is not in this project (any more).",
            "Nothing was labelled.",
            "Choose one of the project's classes.",
        )
