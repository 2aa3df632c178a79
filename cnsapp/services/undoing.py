"""What a person can take back, and bring back again: without limit, across reloads and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from cnsapp.domain.labels import TAKES_BACK, clean_annotator
from db.deciding import is_void
from db.models import LabelEvent
from db.queries import chunks
from db.session import Store

PART = 1000  # events looked at in one statement
CLASS_ACTION = "classes/"  # begins the action of labels that belong to a change of the classes
MOST_EVENTS = 10_000  # in one answer, beyond its first step: a label on 5,000 images is one step


@dataclass(frozen=True)
class UndoStep:
    """One action that can be taken back or brought back: its events as (client, seq, image id).

    `class_id` is None where they gave several classes. `last_event`: the list goes on behind it.
    """

    action: str
    kind: str
    class_id: int | None
    last_event: int
    events: tuple[tuple[str, int, int], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the step as JSON."""
        return asdict(self)


def undo_stack(
    store: Store, *, project_id: int, annotator: str, limit: int = 50, before: int | None = None
) -> list[UndoStep]:
    """Return the latest actions of this person that still count, the newest first.

    Imports are not among them: a key press must not take back ten thousand labels from a file;
    nor is what a change of the classes did, which is taken back in their list of changes.
    `before` continues a list after the step whose `last_event` it names.
    """
    who = clean_annotator(annotator)
    found: dict[str, list[LabelEvent]] = {}
    with store.reading() as session:
        last = before
        while len(found) <= limit and sum(map(len, found.values())) <= MOST_EVENTS:
            part = session.scalars(_acts(project_id, who, last)).all()
            for event in part:
                found.setdefault(event.action, []).append(event)
            if len(part) < PART:
                return [_step(*item) for item in list(found.items())[:limit]]
            last = part[-1].id
        whole = list(found.items())
        if len(whole) > 1:
            whole.pop()  # the oldest may not be whole yet
        else:
            whole = [(whole[0][0], _all_of(session, project_id, whole[0][1][0]))]
        return [_step(*item) for item in whole[:limit]]


def redo_stack(store: Store, *, project_id: int, annotator: str, limit: int = 50) -> list[UndoStep]:
    """Return the actions that this person took back and has not acted since, the last one first.

    A new label ends the list, as everywhere: what was undone before it stays in the history.
    """
    who = clean_annotator(annotator)
    undone: dict[str, list[LabelEvent]] = {}
    settled: set[int | None] = set()
    with store.reading() as session:
        last: int | None = None
        while len(undone) <= limit:
            part = session.scalars(_any(project_id, who, last)).all()
            for event in part:
                if event.kind not in TAKES_BACK:
                    return _redoable(session, undone, limit)
                if event.kind == "undo" and event.target_id not in settled:
                    undone.setdefault(event.action, []).append(event)
                settled.add(event.target_id)
            if len(part) < PART:
                break
            last = part[-1].id
        return _redoable(session, undone, limit)


def _acts(project_id: int, annotator: str, before: int | None) -> Select[LabelEvent]:
    return _any(project_id, annotator, before).where(LabelEvent.kind.not_in(TAKES_BACK), ~is_void())


def _any(project_id: int, annotator: str, before: int | None) -> Select[LabelEvent]:
    statement = (
        select(LabelEvent)
        .where(
            LabelEvent.project_id == project_id,
            LabelEvent.annotator == annotator,
            LabelEvent.source != "import",
            LabelEvent.action.not_like(f"{CLASS_ACTION}%"),
        )
        .order_by(LabelEvent.id.desc())
        .limit(PART)
    )
    return statement if before is None else statement.where(LabelEvent.id < before)


def _all_of(session: Session, project_id: int, sample: LabelEvent) -> list[LabelEvent]:
    """Return all events of the action that one of them belongs to, the newest first."""
    return list(
        session.scalars(
            select(LabelEvent)
            .where(
                LabelEvent.project_id == project_id,
                LabelEvent.annotator == sample.annotator,
                LabelEvent.action == sample.action,
                LabelEvent.kind.not_in(TAKES_BACK),
                ~is_void(),
            )
            .order_by(LabelEvent.id.desc())
        )
    )


def _redoable(session: Session, undone: dict[str, list[LabelEvent]], limit: int) -> list[UndoStep]:
    steps = list(undone.values())[:limit]
    ids = [event.target_id for events in steps for event in events if event.target_id]
    targets: dict[int, LabelEvent] = {}
    for part in chunks(ids):
        for event in session.scalars(select(LabelEvent).where(LabelEvent.id.in_(part))):
            targets[event.id] = event
    return [
        _step(events[0].action, [targets[e.target_id] for e in events if e.target_id in targets])
        for events in steps
    ]


def _step(action: str, events: Sequence[LabelEvent]) -> UndoStep:
    newest = events[0]
    return UndoStep(
        action=action,
        kind=newest.kind,
        class_id=newest.class_id if len({event.class_id for event in events}) == 1 else None,
        last_event=min(event.id for event in events),
        events=tuple((event.client, event.seq, event.image_id) for event in events),
    )
