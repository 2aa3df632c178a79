"""Take back and bring back changes of the classes; the labels they gave go with them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.labels import clean_annotator
from cnsapp.errors import NotFoundError
from cnsapp.services.bulk import PAUSE
from cnsapp.services.class_changes import (
    ClassChange,
    Rows,
    Standing,
    begin,
    choose,
    put,
    record,
    refuse_when_built_upon,
    refuse_when_moved_on,
    standings,
    views,
)
from cnsapp.services.settling import settle, to_settle
from cnsapp.services.suggestion_runs import refresh_soon
from db.deciding import is_void, refresh_current
from db.models import ClassEvent, LabelClass, LabelEvent, Project
from db.queries import chunks, insert_new
from db.session import Store

Progress = Callable[[int], None] | None


def undo_class_change(
    store: Store,
    *,
    project_id: int,
    who: str,
    change: int | None = None,
    progress: Progress = None,
) -> ClassChange:
    """Take back a change of the classes: the one named, else the last one that counts.

    Raises
    ------
    InvalidInputError
        A later change touches the same thing, or labels would be lost; the sentence says what to
        do first.
    NotFoundError
        There is nothing to take back.
    """
    clean_annotator(who)
    with store.reading() as session:  # rehearsed, and rolled back: labels move before the class
        found = standings(session, project_id)
        action = _undo(session, found, choose(found, change, undo=True))[0].action
    _turn_labels(store, project_id, action, "undo", who)
    with store.writing() as session:
        before = begin(session, project_id)
        found = standings(session, project_id)
        event, moved = _undo(session, found, choose(found, change, undo=True))
        done = _turned(session, project_id, before, event.id, "undo", who, moved)
    settle(store, project_id, progress)
    refresh_soon(store, project_id=project_id)
    return done


def _undo(
    session: Session, found: Sequence[Standing], chosen: Standing
) -> tuple[ClassEvent, list[int]]:
    refuse_when_built_upon(found, chosen)
    return chosen.event, put(session, chosen.event, "before")


def redo_class_change(
    store: Store,
    *,
    project_id: int,
    who: str,
    change: int | None = None,
    progress: Progress = None,
) -> ClassChange:
    """Bring back a change that was taken back: the one named, else the last one taken back.

    Raises
    ------
    InvalidInputError
        The classes it changed are others by now.
    NotFoundError
        There is nothing to bring back.
    """
    with store.writing() as session:
        before = begin(session, project_id)
        chosen = choose(standings(session, project_id), change, undo=False)
        refuse_when_moved_on(session, chosen)
        event = chosen.event
        moved = put(session, event, "after")
        done = _turned(session, project_id, before, event.id, "redo", who, moved)
    _turn_labels(store, project_id, event.action, "redo", who)
    settle(store, project_id, progress)
    refresh_soon(store, project_id=project_id)
    return done


def restore_class(store: Store, *, class_id: int, who: str) -> ClassChange:
    """Bring back a class that was merged or deleted, with its labels."""
    with store.reading() as session:
        row = session.get(LabelClass, class_id)
        if row is None or row.active:
            raise NotFoundError(f"There is no class number {class_id} that is gone.")
        project_id, name = row.project_id, row.name
        taken = [
            one
            for one in standings(session, project_id)
            if one.back is None
            and one.event.details["after"].get(str(class_id), {}).get("active") is False
        ]
        change = max(taken, key=lambda one: one.at).event.id if taken else None
    if change is None:  # it was added, and that was taken back
        raise NotFoundError(f"“{name}” was not deleted.", "", "Bring back that it was added.")
    return undo_class_change(store, project_id=project_id, who=who, change=change)


def list_changes(store: Store, *, project_id: int, limit: int = 50) -> list[ClassChange]:
    """Return the changes of the classes, the newest first, and whether they count."""
    with store.reading() as session:
        return views(standings(session, project_id))[:limit]


def _turned(
    session: Session, project_id: int, before: Rows, target: int, kind: str, who: str,
    moved: Sequence[int],
) -> ClassChange:  # fmt: skip
    """Append the event of an undo or redo, and note whose labels count otherwise now."""
    if moved:
        to_settle(session.get_one(Project, project_id), moved)
    record(session, project_id, before, kind=kind, who=who, words="", target_id=target)
    found = views(standings(session, project_id))
    return next(one for one in found if one.id == target)


def _turn_labels(store: Store, project_id: int, action: str, kind: str, who: str) -> None:
    """Take back, or bring back, the labels that a change of the classes gave."""
    if not action:
        return
    name = f"{action}/{kind}/{uuid.uuid4().hex[:8]}"
    there = is_void() if kind == "redo" else ~is_void()
    statement = select(LabelEvent.id, LabelEvent.image_id, LabelEvent.source).where(
        LabelEvent.project_id == project_id,
        LabelEvent.client == action,
        LabelEvent.kind == "label",
        there,
    )
    with store.reading() as session:
        events = session.execute(statement).all()
    for start, part in enumerate(chunks(events)):
        if start:
            time.sleep(PAUSE)
        rows: list[dict[str, Any]] = [
            {
                "project_id": project_id,
                "image_id": image_id,
                "class_id": None,
                "annotator": clean_annotator(who),
                "kind": kind,
                "source": source,
                "client": name[-64:],
                "seq": event_id,
                "action": name[:80],
                "target_id": event_id,
            }
            for event_id, image_id, source in part
        ]
        with store.writing() as session:
            insert_new(session, LabelEvent, rows, ["client", "seq"])
            refresh_current(session, project_id, {row[1] for row in part})
