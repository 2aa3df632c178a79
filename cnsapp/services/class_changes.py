"""Every change of the classes is an event: who, when, what was and what became; undone by another.

An event notes the columns that it changed, before and after, for each class, and what it `took`:
names and keys that it gave or freed, classes that it merged into. It can be taken back while no
later change that counts touches the same columns or took the same; so the classes always are what
the changes that count make of them, in their order, and all of them can be taken back one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.hotkeys import find_conflict
from cnsapp.domain.labels import clean_annotator
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.class_rows import active_rows, free_name_key
from db.models import AnnotatorLabel, ClassEvent, LabelClass, LabelEvent, Project

FIELDS = (
    "name", "name_key", "parent", "color", "hotkey", "position", "description", "active",
    "merged_into",
)  # fmt: skip
TAKES_BACK = ("undo", "redo")
MAKES = ("added", "split", "imported")  # kinds of events that may make classes
Rows = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class ClassChange:
    """A change of the classes; `counts` is false while it is taken back, by `undone_by`."""

    id: int
    kind: str  # added | changed | ordered | merged | deleted | split | imported
    class_id: int | None
    who: str
    at: datetime
    sentence: str
    counts: bool = True
    undone_by: str | None = None
    undone_at: datetime | None = None
    made: tuple[int, ...] = ()  # classes that it made


def begin(session: Session, project_id: int) -> Rows:
    """Return the classes as they are, to `record` what becomes of them; one change at a time."""
    if session.get(Project, project_id, with_for_update=True) is None:
        raise NotFoundError(f"There is no project number {project_id}.")
    session.expire_all()  # somebody may have changed them before this one's turn came
    rows = session.scalars(select(LabelClass).where(LabelClass.project_id == project_id))
    return {row.id: _columns(row) for row in rows}


def record(
    session: Session,
    project_id: int,
    before: Rows,
    *,
    kind: str,
    who: str,
    words: str,
    class_id: int | None = None,
    action: str = "",
    target_id: int | None = None,
) -> ClassChange | None:
    """Append the event of what became of the classes since `begin`; None when nothing did."""
    session.flush()
    rows = session.scalars(select(LabelClass).where(LabelClass.project_id == project_id))
    was: Rows = {}
    now: Rows = {}
    for row in rows:
        new = _columns(row)
        old = before.get(row.id)
        if old is None:  # to take it back is to make it as if it were gone
            was[row.id] = {"active": False, "name_key": free_name_key(row.id)}
            now[row.id] = new
        elif changed := [field for field in FIELDS if old[field] != new[field]]:
            was[row.id] = {field: old[field] for field in changed}
            now[row.id] = {field: new[field] for field in changed}
    if not was and target_id is None:
        return None
    event = ClassEvent(
        project_id=project_id,
        class_id=class_id,
        kind=kind,
        who=clean_annotator(who),
        details={
            "before": _keyed(was),
            "after": _keyed(now),
            "took": _taken(before, was, now),
            "words": words,
        },
        action=action,
        target_id=target_id,
    )
    session.add(event)
    session.flush()
    return _view(event, None)


@dataclass(frozen=True)
class Standing:
    """A change and whether it counts: `at` orders those that do, `back` is what took it back."""

    event: ClassEvent
    at: int
    back: ClassEvent | None


def standings(session: Session, project_id: int) -> list[Standing]:
    """Return all changes of a project's classes, the oldest first."""
    events = session.scalars(
        select(ClassEvent).where(ClassEvent.project_id == project_id).order_by(ClassEvent.id)
    ).all()
    newest = {event.target_id: event for event in events if event.kind in TAKES_BACK}
    found = []
    for event in events:
        if event.kind not in TAKES_BACK:
            last = newest.get(event.id)
            back = last if last is not None and last.kind == "undo" else None
            found.append(Standing(event, last.id if last else event.id, back))
    return found


def views(found: Sequence[Standing]) -> list[ClassChange]:
    """Return changes as pages show them, the newest first."""
    return [_view(one.event, one.back) for one in reversed(found)]


def choose(found: Sequence[Standing], event_id: int | None, *, undo: bool) -> Standing:
    """Return the change that is meant: the one named, else the last that can be taken back (or
    brought back).

    Raises
    ------
    NotFoundError
        There is no such change.
    InvalidInputError
        It is taken back already (or was not).
    """
    if event_id is None:
        fitting = [one for one in found if (one.back is None) == undo]
        if not fitting:
            done, ever = ("taken back", "made") if undo else ("brought back", "taken back")
            raise NotFoundError(f"There is no change to be {done}: none was {ever}.")
        return max(fitting, key=lambda one: one.at)
    named = next((one for one in found if one.event.id == event_id), None)
    if named is None:
        raise NotFoundError(f"There is no change number {event_id} of the classes.")
    if (named.back is None) != undo:
        state = "is taken back already" if undo else "was not taken back"
        raise InvalidInputError(f"It {state}: {_words(named.event)}.")
    return named


def refuse_when_built_upon(found: Sequence[Standing], chosen: Standing) -> None:
    """Raise InvalidInputError when a later change that counts touches the same thing."""
    mine = _touched(chosen.event)
    later = [
        one
        for one in found
        if one.back is None and one.at > chosen.at and _touched(one.event) & mine
    ]
    if later:
        last = max(later, key=lambda one: one.at)
        raise InvalidInputError(
            f"Cannot take back: {_words(chosen.event)}. A later change by {last.event.who} touches "
            f"the same: {_words(last.event)}.",
            "To take back the first alone would undo a part of the later one.",
            "Undo the later change first.",
        )


def refuse_when_moved_on(session: Session, chosen: Standing) -> None:
    """Raise InvalidInputError when a redo would not find what the change had found."""
    for class_id, wanted in _rows(chosen.event, "before").items():
        row = session.get_one(LabelClass, class_id)
        if any(getattr(row, field) != value for field, value in wanted.items()):
            raise InvalidInputError(
                f"Cannot bring back: {_words(chosen.event)}. “{row.name}” is another by now.",
                "It would overwrite what was changed since.",
                "Undo the changes since, or make the change anew.",
            )


def put(session: Session, event: ClassEvent, side: str) -> list[int]:
    """Set the classes to what an event notes as `before` or `after`; return those whose labels
    count otherwise now.

    Raises
    ------
    InvalidInputError
        A name or key is another class's by now, or labels would count for nothing unasked. The
        transaction must end then.
    """
    moved = []
    for class_id, values in _rows(event, side).items():
        row = session.get_one(LabelClass, class_id)
        if "name_key" in values:
            _refuse_taken_name(session, row, str(values["name_key"]))
        for field, value in values.items():
            setattr(row, field, value)
        session.flush()
        if {"active", "merged_into"} & values.keys():
            moved.append(class_id)
            if not row.active:
                _refuse_lost_labels(session, event, row)
    _refuse_taken_keys(session, event)
    return moved


def _refuse_taken_keys(session: Session, event: ClassEvent) -> None:
    rows = active_rows(session, event.project_id)
    touched = {int(i) for i in event.details["before"]}
    for row in (row for row in rows if row.id in touched and row.hotkey):
        for other in rows:
            keys = {row.name: row.hotkey, other.name: other.hotkey}
            if other.id != row.id and find_conflict(keys):
                raise InvalidInputError(
                    f"The key {row.hotkey} of “{row.name}” excludes the key {other.hotkey} that "
                    f"“{other.name}” has by now.",
                    "A press could mean either class.",
                    f"Give “{other.name}” another key first.",
                )


def _refuse_lost_labels(session: Session, event: ClassEvent, row: LabelClass) -> None:
    """A class that is gone again must leave no label that counts through it unasked."""
    if row.merged_into is not None:
        target = session.get_one(LabelClass, row.merged_into)
        if not target.active:
            raise InvalidInputError(
                f"Cannot bring back: {_words(event)}. “{target.name}” is gone by now.",
                "The labels would count for no class.",
                f"Restore “{target.name}” first.",
            )
    elif event.kind in MAKES:
        others = (  # the labels that a split itself gave go with it
            select(func.count())
            .select_from(AnnotatorLabel)
            .join(LabelEvent, LabelEvent.id == AnnotatorLabel.event_id)
            .where(AnnotatorLabel.class_id == row.id, LabelEvent.action != (event.action or "-"))
        )
        if n := session.scalar(others):
            raise InvalidInputError(
                f"Cannot take back: {_words(event)}. “{row.name}” has "
                f"{n:,} label{'s' if n > 1 else ''} by now.",
                "They would count for no class.",
                f"Delete “{row.name}” or merge it: both ask where its labels go, and can be "
                "undone.",
            )


def _refuse_taken_name(session: Session, row: LabelClass, key: str) -> None:
    there = session.scalar(
        select(LabelClass).where(
            LabelClass.project_id == row.project_id,
            LabelClass.name_key == key,
            LabelClass.id != row.id,
        )
    )
    if there is not None:
        raise InvalidInputError(
            f"There is a class “{there.name}” by now.",
            "Two classes that read alike would be mixed up in labels and results.",
            f"Rename “{there.name}” first, or merge it into another class.",
        )


def _taken(before: Rows, was: Rows, now: Rows) -> list[str]:
    """Return the names and keys that a change gave or freed, and the classes it merged into."""
    took: set[str] = set()
    for class_id, new in now.items():
        old = was[class_id]
        for key in (old.get("name_key"), new.get("name_key")):
            if key and not key.startswith("\x1f"):
                took.add(f"name {key}")
        if "active" in new or "hotkey" in new:
            for hotkey in (new.get("hotkey"), before.get(class_id, new)["hotkey"]):
                took |= {f"key {hotkey[0]}"} if hotkey else set()
        if new.get("merged_into") is not None:
            took.add(f"class {new['merged_into']}")
        if "active" in new:
            took.add(f"class {class_id}")
    return sorted(took)


def _touched(event: ClassEvent) -> set[object]:
    columns = {(i, field) for i, values in _rows(event, "before").items() for field in values}
    return {*columns, *event.details["took"]}


def _rows(event: ClassEvent, side: str) -> Mapping[int, dict[str, Any]]:
    """Return what an event notes; of classes that it made, only what has them there or gone."""
    other = event.details["before"]
    return {
        int(class_id): {field: value for field, value in values.items() if field in other[class_id]}
        for class_id, values in event.details[side].items()
    }


def _columns(row: LabelClass) -> dict[str, Any]:
    return {field: getattr(row, field) for field in FIELDS}


def _keyed(rows: Rows) -> dict[str, dict[str, Any]]:
    return {str(class_id): values for class_id, values in rows.items()}


def _words(event: ClassEvent) -> str:
    return str(event.details.get("words") or event.kind)


def _view(event: ClassEvent, back: ClassEvent | None) -> ClassChange:
    before, after = event.details["before"], event.details["after"]
    made = [int(i) for i in after if "name" in after[i] and "name" not in before[i]]
    return ClassChange(
        id=event.id,
        kind=event.kind,
        class_id=event.class_id,
        who=event.who,
        at=event.created_at,
        sentence=_words(event),
        counts=back is None,
        undone_by=back.who if back else None,
        undone_at=back.created_at if back else None,
        made=tuple(made),
    )
