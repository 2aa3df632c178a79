"""Take images out of use and back in: each an event with who, when and why. Labels stay."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from cnsapp.domain.labels import clean_annotator
from cnsapp.errors import InvalidInputError
from cnsapp.services.label_import import PAUSE, find_images
from cnsapp.services.tables import read_csv
from db.models import Image, ImageEvent, ImageFlag, NearPair
from db.queries import chunks, set_status
from db.session import Store

T = TypeVar("T")
EXCLUDED, RESTORED, GROUPED, APART, FINE = "excluded", "restored", "grouped", "apart", "fine"
AT_ONCE = 200  # images a transaction: somebody who labels meanwhile does not notice


@dataclass(frozen=True)
class Change:
    """What one act changed; `action` names it for `undo`."""

    action: str
    image_ids: list[int]
    n_pairs: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the change as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ImageNote:
    """One thing that happened to an image beside its labels."""

    at: datetime
    kind: str
    who: str
    reason: str


@dataclass(frozen=True)
class CsvChange:
    """What came of a table of images to exclude or restore."""

    rows: int
    changed: int
    unchanged: int
    unknown_files: tuple[str, ...]
    action: str

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)


def in_turn(items: Sequence[T], size: int = AT_ONCE) -> Iterator[Sequence[T]]:
    """Yield `items` in parts for a short transaction each, with gaps for those who label."""
    for n, part in enumerate(chunks(items, size)):
        if n:
            time.sleep(PAUSE)
        yield part


def new_action() -> str:
    """Return a name for one act, by which it can be taken back."""
    return uuid.uuid4().hex


def exclude(
    store: Store,
    *,
    project_id: int,
    image_ids: Iterable[int],
    who: str,
    reason: str = "",
    action: str = "",
    details: dict[str, Any] | None = None,
) -> Change:
    """Take images out of use; those that are in use change, all others stay as they are.

    An excluded image is in no list, count, training or export of a dataset. Its labels stay, models
    that learnt from it stay, and it can be restored.
    """
    return _change(store, project_id, image_ids, EXCLUDED, who, reason, action, details)


def restore(
    store: Store,
    *,
    project_id: int,
    image_ids: Iterable[int],
    who: str,
    reason: str = "",
    action: str = "",
) -> Change:
    """Take excluded images back into use; those that are not excluded stay as they are."""
    return _change(store, project_id, image_ids, RESTORED, who, reason, action, None)


def _change(
    store: Store,
    project_id: int,
    image_ids: Iterable[int],
    kind: str,
    who: str,
    reason: str,
    action: str,
    details: dict[str, Any] | None,
) -> Change:
    old, new = ("ok", "excluded") if kind == EXCLUDED else ("excluded", "ok")
    action, who = action or new_action(), clean_annotator(who)
    changed = []
    for part in in_turn(sorted(set(image_ids))):
        with store.writing() as session:
            ids = _with_status(session, project_id, part, old)
            changed += set_status(
                session, project_id, ids, new, kind=kind, who=who, reason=reason,
                details={"action": action, **(details or {})},
            )  # fmt: skip
    return Change(action, changed)


def change_from_csv(
    store: Store,
    *,
    project_id: int,
    csv: Path,
    who: str,
    reason: str = "",
    back: bool = False,
) -> CsvChange:
    """Exclude (or with `back` restore) the images that a CSV names by `file` or `sha256`.

    Raises
    ------
    InvalidInputError
        The file cannot be read or names no such column; nothing is changed then.
    """
    head, rows = read_csv(csv)
    column = next((name for name in ("sha256", "file") if name in head), None)
    if column is None:
        raise InvalidInputError(
            f"{csv.name} has the columns {', '.join(head) or 'none'}.",
            "A column “file” or “sha256” says which image.",
            "Name the columns in the first line, then try again.",
        )
    names = [row[column] for row in rows if row[column]]
    with store.reading() as session:
        found = find_images(session, project_id, column, names)
    ids = {image_id for same in found.values() for image_id in same}
    act = restore if back else exclude
    done = act(store, project_id=project_id, image_ids=ids, who=who, reason=reason)
    return CsvChange(
        rows=len(names),
        changed=len(done.image_ids),
        unchanged=len(ids) - len(done.image_ids),
        unknown_files=tuple(dict.fromkeys(name for name in names if name not in found)),
        action=done.action,
    )


def undo(store: Store, *, project_id: int, action: str, who: str) -> Change:
    """Take one act back: excluded images are restored, groups are as before, answers are open.

    An image that somebody else restored or grouped otherwise meanwhile stays as they left it.
    """
    who = clean_annotator(who)
    with store.reading() as session:
        events = session.scalars(
            select(ImageEvent)
            .where(
                ImageEvent.project_id == project_id,
                ImageEvent.details["action"].as_string() == action,
            )
            .order_by(ImageEvent.id)
        ).all()
        was = [(e.image_id, e.kind, dict(e.details)) for e in events]
    by_kind = {kind: [i for i, k, _ in was if k == kind] for kind in (EXCLUDED, RESTORED)}
    undone = f"undone: {action}"
    changed = restore(
        store, project_id=project_id, image_ids=by_kind[EXCLUDED], who=who, reason=undone
    ).image_ids
    changed += exclude(
        store, project_id=project_id, image_ids=by_kind[RESTORED], who=who, reason=undone
    ).image_ids
    for part in in_turn(was):
        with store.writing() as session:
            changed += _undo_part(session, project_id, part, who, undone)
    return Change(action, changed)


def _undo_part(
    session: Session,
    project_id: int,
    events: Sequence[tuple[int, str, dict[str, Any]]],
    who: str,
    undone: str,
) -> list[int]:
    grouped = [(i, details) for i, kind, details in events if kind == GROUPED]
    moved = put_into_groups(
        session,
        project_id=project_id,
        groups={i: details["from"] for i, details in grouped},
        before={i: details["to"] for i, details in grouped},
        who=who,
        reason=undone,
        details={},
    )
    for details in (details for _, _, details in events if "pair" in details):
        _answer(session, project_id, details["pair"], "")
    fine: dict[str, list[int]] = {}
    for image_id, kind, details in events:
        if kind == FINE:
            fine.setdefault(details["flag"], []).append(image_id)
    for flag, ids in fine.items():
        session.execute(
            update(ImageFlag)
            .where(
                ImageFlag.project_id == project_id,
                ImageFlag.kind == flag,
                ImageFlag.image_id.in_(ids),
            )
            .values(answer="")
        )
    return moved


def put_into_groups(
    session: Session,
    *,
    project_id: int,
    groups: Mapping[int, str | None],
    who: str,
    reason: str,
    details: Mapping[str, Any],
    before: Mapping[int, str | None] | None = None,
) -> list[int]:
    """Put images (id -> group) into other groups, each an event; return those that moved.

    This is the only way to change a group. With `before` only images move whose group is still
    the one named there.
    """
    moved: list[int] = []
    for part in chunks(sorted(groups)):
        rows = session.execute(
            select(Image.id, Image.group_key)
            .where(Image.project_id == project_id, Image.id.in_(part))
            .order_by(Image.id)
            .with_for_update()
        ).all()
        changes = [
            (image_id, now, groups[image_id])
            for image_id, now in rows
            if now != groups[image_id] and (before is None or before.get(image_id) == now)
        ]
        if not changes:
            continue
        session.execute(update(Image), [{"id": i, "group_key": to} for i, _, to in changes])
        event = {"project_id": project_id, "kind": GROUPED, "who": who, "reason": reason}
        session.execute(
            insert(ImageEvent),
            [
                {**event, "image_id": i, "details": {"from": was, "to": to, **details}}
                for i, was, to in changes
            ],
        )
        moved += [i for i, _, _ in changes]
    return moved


def image_notes(store: Store, *, image_id: int, limit: int = 20) -> list[ImageNote]:
    """Return what happened to an image beside its labels, the newest first."""
    with store.reading() as session:
        rows = session.scalars(
            select(ImageEvent)
            .where(ImageEvent.image_id == image_id)
            .order_by(ImageEvent.id.desc())
            .limit(limit)
        )
        return [ImageNote(row.created_at, row.kind, row.who, row.reason) for row in rows]


def add_note(
    session: Session,
    project_id: int,
    image_ids: Sequence[int],
    kind: str,
    who: str,
    details: dict[str, Any],
) -> None:
    """Write an event of images that changes no status."""
    event = {"project_id": project_id, "kind": kind, "who": who, "reason": "", "details": details}
    session.execute(insert(ImageEvent), [{**event, "image_id": i} for i in image_ids])


def _with_status(
    session: Session, project_id: int, ids: Sequence[int], status: str
) -> Sequence[int]:
    return session.scalars(
        select(Image.id).where(
            Image.project_id == project_id, Image.id.in_(ids), Image.status == status
        )
    ).all()


def _answer(session: Session, project_id: int, pair: Sequence[int], answer: str) -> None:
    session.execute(
        update(NearPair)
        .where(
            NearPair.project_id == project_id,
            NearPair.image_a == pair[0],
            NearPair.image_b == pair[1],
        )
        .values(answer=answer)
    )
