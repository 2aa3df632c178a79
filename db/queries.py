"""Statements shared by services, written so that SQLite and PostgreSQL both take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, exists, func, insert, inspect, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session, aliased

from db.models import Base, Image, ImageEvent, LabelEvent, Tally

T = TypeVar("T")
CHUNK = 500  # rows a statement: below every database's limit on parameters, and milliseconds long


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Yield `items` in runs of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def insert_new(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]], unique: Sequence[str]
) -> int:
    """Insert the rows whose `unique` columns are not there yet; return how many were new."""
    if not rows:
        return 0
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        statement = sqlite_insert(table).on_conflict_do_nothing(index_elements=list(unique))
        # one prepared statement for all rows: five times as fast as a list of VALUES
        return connection.execute(statement, [dict(row) for row in rows]).rowcount
    asking = postgresql_insert(table).on_conflict_do_nothing(index_elements=list(unique))
    key = list(inspect(table).primary_key)
    return len(connection.execute(asking.returning(*key), [dict(row) for row in rows]).all())


def add_to_tally(session: Session, project_id: int, changes: Mapping[str, int]) -> None:
    """Add to the kept counts of a project; keys as in `Tally`."""
    rows = [
        {"project_id": project_id, "key": key, "n": n} for key, n in sorted(changes.items()) if n
    ]
    if not rows:
        return
    upsert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    statement = upsert(Tally).values(rows)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["project_id", "key"], set_={"n": Tally.n + statement.excluded.n}
        )
    )


def read_tally(session: Session, project_id: int) -> dict[str, int]:
    """Return the kept counts of a project's images that are ok; keys as in `Tally`."""
    rows = session.execute(select(Tally.key, Tally.n).where(Tally.project_id == project_id))
    return {row.key: row.n for row in rows}


def deciding_events(image_ids: Sequence[int]) -> Select[int, int]:
    """Return the rule for what an image is called: its latest event that no undo has voided.

    The statement yields (image_id, event_id). This is the only place where the rule stands.
    """
    undo = aliased(LabelEvent)
    voided = exists().where(undo.target_id == LabelEvent.id, undo.kind == "undo")
    return (
        select(LabelEvent.image_id, func.max(LabelEvent.id))
        .where(LabelEvent.image_id.in_(image_ids), LabelEvent.kind != "undo", ~voided)
        .group_by(LabelEvent.image_id)
    )


def refresh_current(session: Session, project_id: int, image_ids: Iterable[int]) -> None:
    """Derive `Image.current_*` of these images from their events, and keep the counts in step.

    Call it in the transaction that appended the events. The image rows are locked first where the
    database has row locks, so that two people who label one image at once are taken in turn.
    """
    changes: dict[str, int] = {}
    for part in chunks(sorted(set(image_ids))):
        _refresh_chunk(session, part, changes)
    add_to_tally(session, project_id, changes)


def _refresh_chunk(session: Session, image_ids: Sequence[int], changes: dict[str, int]) -> None:
    rows = session.execute(
        select(
            Image.id,
            Image.current_state,
            Image.current_class_id,
            Image.current_event_id,
            Image.status,
        )
        .where(Image.id.in_(image_ids))
        .order_by(Image.id)  # two people lock the same images in the same order
        .with_for_update()
    ).all()
    decided = {row[0]: row[1] for row in session.execute(deciding_events(image_ids))}
    events = {
        event_id: (kind, class_id, annotator)
        for event_id, kind, class_id, annotator in session.execute(
            select(LabelEvent.id, LabelEvent.kind, LabelEvent.class_id, LabelEvent.annotator).where(
                LabelEvent.id.in_(list(decided.values()))
            )
        )
    }
    updates = []
    for image_id, old_state, old_class, old_event, status in rows:
        event_id = decided.get(image_id)
        kind, class_id, who = events[event_id] if event_id is not None else ("none", None, None)
        state = "none" if kind == "clear" else kind
        if (state, class_id, event_id) == (old_state, old_class, old_event):
            continue
        if status == "ok":
            _count(changes, old_state, old_class, -1)
            _count(changes, state, class_id, +1)
        updates.append(
            {
                "id": image_id,
                "current_state": state,
                "current_class_id": class_id,
                "current_event_id": event_id,
                "current_annotator": None if state == "none" else who,
            }
        )
    if updates:
        session.execute(update(Image), updates)


def groups_among(*where: ColumnElement[bool]) -> Select[str]:
    """Return the statement for the groups of the images that meet these conditions, by name.

    It jumps along an index from one group to the next, so that a million images in a thousand
    groups cost a thousand steps; the index must have the columns of `where`, then `group_key`.
    """
    least = func.min(Image.group_key)
    jump = select(least.label("key")).where(*where).cte("jump", recursive=True)
    after = select(least).where(*where, Image.group_key > jump.c.key).scalar_subquery()
    jump = jump.union_all(select(after).select_from(jump).where(jump.c.key.is_not(None)))
    return select(jump.c.key).where(jump.c.key.is_not(None)).order_by(jump.c.key)


def set_status(
    session: Session,
    project_id: int,
    image_ids: Iterable[int],
    status: str,
    *,
    kind: str,
    who: str,
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> list[int]:
    """Give images another status, write the event, keep the counts; return those that changed.

    The counts of `Tally` are of images with status ok, as the lists are. Labels stay as they are.
    `kind` as in `ImageEvent`.
    """
    changes: dict[str, int] = {}
    changed: list[int] = []
    for part in chunks(sorted(set(image_ids))):
        rows = session.execute(
            select(Image.id, Image.status, Image.current_state, Image.current_class_id)
            .where(Image.project_id == project_id, Image.id.in_(part), Image.status != status)
            .order_by(Image.id)
            .with_for_update()
        ).all()
        for _, old, state, class_id in rows:
            step = (status == "ok") - (old == "ok")
            changes["images"] = changes.get("images", 0) + step
            if step:
                _count(changes, state, class_id, step)
        ids = [row[0] for row in rows]
        if ids:
            session.execute(update(Image).where(Image.id.in_(ids)).values(status=status))
            event: dict[str, Any] = {"project_id": project_id, "kind": kind, "who": who}
            event |= {"reason": reason, "details": dict(details or {})}
            session.execute(insert(ImageEvent), [{**event, "image_id": i} for i in ids])
        changed += ids
    add_to_tally(session, project_id, changes)
    return changed


def _count(changes: dict[str, int], state: str, class_id: int | None, step: int) -> None:
    if state == "none":
        return
    keys = [f"state:{state}"] + ([f"class:{class_id}"] if state == "label" else [])
    for key in keys:
        changes[key] = changes.get(key, 0) + step
