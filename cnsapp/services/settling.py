"""Deciding anew what images are called, after a change that concerns many of them.

Merging two classes or counting votes concerns every image with such a label, perhaps hundreds of
thousands. The change itself and a note that it is not settled are one transaction; the images
follow in short ones, so that nobody who labels waits. When the process dies in between, the next
start finds the note and finishes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select

from db.deciding import refresh_current
from db.models import AnnotatorLabel, LabelClass, Project
from db.session import Store

NOTE = "settling"  # in Project.settings: {"classes": [ids] or None for all, "stamp": n}
PART = 500  # images a transaction
PAUSE = 0.002  # seconds between transactions: SQLite's lock has no queue, so leave a gap to get in


def to_settle(project: Project, class_ids: Sequence[int] | None = None) -> None:
    """Note, in the transaction of the change, that images labelled so must be decided anew.

    None: every image that anybody has labelled.
    """
    there = project.settings.get(NOTE)
    classes = None if class_ids is None else sorted(set(class_ids))
    if there and (there["classes"] is None or classes is None):
        classes = None
    elif there and classes is not None:
        classes = sorted({*there["classes"], *classes})
    stamp = (there["stamp"] if there else 0) + 1
    project.settings = {**project.settings, NOTE: {"classes": classes, "stamp": stamp}}


def settle(store: Store, project_id: int, progress: Callable[[int], None] | None = None) -> int:
    """Decide anew what the note names, and take the note away; return how many images that were."""
    done = 0
    while (note := _note(store, project_id)) is not None:
        classes, after = _with_merged(store, project_id, note["classes"]), 0
        while ids := _labelled_so(store, project_id, classes, after):
            with store.writing() as session:
                refresh_current(session, project_id, ids)
            after = ids[-1]
            done += len(ids)
            if progress:
                progress(done)
            time.sleep(PAUSE)
        _forget(store, project_id, note["stamp"])
    return done


def settle_all(store: Store) -> None:
    """Finish what an earlier process left unsettled, in every project."""
    with store.reading() as session:
        rows = session.execute(select(Project.id, Project.settings)).all()
    for project_id, settings in rows:
        if NOTE in (settings or {}):
            settle(store, project_id)


def _note(store: Store, project_id: int) -> dict[str, Any] | None:
    with store.reading() as session:
        settings = session.scalar(select(Project.settings).where(Project.id == project_id))
    note: dict[str, Any] | None = (settings or {}).get(NOTE)
    return note


def _with_merged(store: Store, project_id: int, class_ids: list[int] | None) -> list[int] | None:
    """Return these classes and all that were merged into one of them, directly or on the way."""
    if class_ids is None:
        return None
    with store.reading() as session:
        into = dict(
            session.execute(
                select(LabelClass.id, LabelClass.merged_into).where(
                    LabelClass.project_id == project_id, LabelClass.merged_into.is_not(None)
                )
            ).all()
        )
    found = set(class_ids)
    while more := {c for c, target in into.items() if target in found} - found:
        found |= more
    return sorted(found)


def _labelled_so(
    store: Store, project_id: int, class_ids: list[int] | None, after: int
) -> list[int]:
    said = select(AnnotatorLabel.image_id).where(
        AnnotatorLabel.project_id == project_id, AnnotatorLabel.image_id > after
    )
    if class_ids is not None:
        said = said.where(AnnotatorLabel.class_id.in_(class_ids))
    with store.reading() as session:
        return list(session.scalars(said.distinct().order_by(AnnotatorLabel.image_id).limit(PART)))


def _forget(store: Store, project_id: int, stamp: object) -> None:
    """Take the note away, unless another change has added to it meanwhile."""
    with store.writing() as session:
        # locked where there are row locks: settings that are saved just now stay
        project = session.get(Project, project_id, with_for_update=True)
        if project is not None and project.settings.get(NOTE, {}).get("stamp") == stamp:
            project.settings = {k: v for k, v in project.settings.items() if k != NOTE}
