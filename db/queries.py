"""Statements shared by services, written so that SQLite and PostgreSQL both take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, insert, inspect, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from db.models import Base, Image, ImageEvent, Tally

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


def upsert(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]], unique: Sequence[str]
) -> None:
    """Insert rows, or replace the other columns of those whose `unique` ones are there."""
    if not rows:
        return
    connection = session.connection()
    make = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = make(table)
    others = {name: statement.excluded[name] for name in rows[0] if name not in unique}
    statement = statement.on_conflict_do_update(index_elements=list(unique), set_=others)
    connection.execute(statement, [dict(row) for row in rows])


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
                count_label(changes, state, class_id, step)
        ids = [row[0] for row in rows]
        if ids:
            session.execute(update(Image).where(Image.id.in_(ids)).values(status=status))
            event: dict[str, Any] = {"project_id": project_id, "kind": kind, "who": who}
            event |= {"reason": reason, "details": dict(details or {})}
            session.execute(insert(ImageEvent), [{**event, "image_id": i} for i in ids])
        changed += ids
    add_to_tally(session, project_id, changes)
    return changed


def count_label(changes: dict[str, int], state: str, class_id: int | None, step: int) -> None:
    """Note in changes of the kept counts that one more (or fewer) image is called so."""
    if state == "none":
        return
    keys = [f"state:{state}"] + ([f"class:{class_id}"] if state == "label" else [])
    for key in keys:
        changes[key] = changes.get(key, 0) + step
