"""What an image is called now: derived from its label events, written once.

1. An event counts unless the newest undo or redo that names it is an undo.
2. What a person says of an image is their latest event that counts (`AnnotatorLabel`).
3. A class that was merged or deleted stands for the one it was merged into, or for none.
4. The project's rule makes one label of what all people say (`cnsapp.domain.consensus`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from cnsapp.domain.consensus import ConsensusRule, Decision, Vote, decide
from db.models import AnnotatorLabel, Image, LabelClass, LabelEvent, Project
from db.queries import add_to_tally, chunks, count_label

Meanings = Mapping[int, int | None]
TAKES_BACK = ("undo", "redo")


def is_void() -> ColumnElement[bool]:
    """Return the condition on `LabelEvent` that the newest undo or redo naming it is an undo."""
    later = aliased(LabelEvent)
    newest = (
        select(later.kind)
        .where(later.target_id == LabelEvent.id)
        .order_by(later.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return func.coalesce(newest, "") == "undo"


def said_by_each(image_ids: Sequence[int]) -> Select[int]:
    """Return the ids of the events that say what each person calls each of these images now."""
    return (
        select(func.max(LabelEvent.id))
        .where(
            LabelEvent.image_id.in_(image_ids),
            LabelEvent.kind.not_in(TAKES_BACK),
            ~is_void(),
        )
        .group_by(LabelEvent.image_id, LabelEvent.annotator)
    )


def class_meanings(session: Session, project_id: int) -> Meanings:
    """Return what the classes that were merged or deleted stand for now, by id; None: nothing."""
    gone = dict(
        session.execute(
            select(LabelClass.id, LabelClass.merged_into).where(
                LabelClass.project_id == project_id, LabelClass.active.is_(False)
            )
        ).all()
    )
    return {class_id: _followed(class_id, gone) for class_id in gone}


def _followed(class_id: int, gone: Meanings) -> int | None:
    seen: set[int] = set()
    at: int | None = class_id
    while at is not None and at in gone:
        if at in seen:  # two classes merged into each other cannot be; do not hang if they are
            return None
        seen.add(at)
        at = gone[at]
    return at


def consensus_rule(session: Session, project_id: int) -> ConsensusRule:
    """Return how a project makes one label of several people's."""
    settings = session.scalar(select(Project.settings).where(Project.id == project_id))
    return ConsensusRule.from_json((settings or {}).get("label_rule"))


def decide_images(
    session: Session,
    image_ids: Sequence[int],
    rule: ConsensusRule,
    meanings: Meanings,
) -> tuple[dict[int, Decision], dict[int, list[LabelEvent]]]:
    """Return what each image is called, and what each person says of it, from the events alone."""
    found: dict[int, list[LabelEvent]] = {image_id: [] for image_id in image_ids}
    for part in chunks(image_ids):
        events = select(LabelEvent).where(LabelEvent.id.in_(said_by_each(part)))
        for event in session.scalars(events):
            found[event.image_id].append(event)
    decisions = {
        image_id: decide([vote_of(event, meanings) for event in said], rule)
        for image_id, said in found.items()
    }
    return decisions, found


def vote_of(event: LabelEvent, meanings: Meanings) -> Vote:
    """Return what an event says today; a label of a class that is gone for good says nothing."""
    class_id, kind = event.class_id, event.kind
    if class_id is not None and class_id in meanings:
        class_id = meanings[class_id]
        kind = "clear" if class_id is None else kind
    return Vote(
        event.annotator,
        cast(Any, kind),
        class_id,
        event.id,
        adjudicates=event.source == "adjudication",
    )


def refresh_current(session: Session, project_id: int, image_ids: Iterable[int]) -> None:
    """Derive `Image.current_*` and `AnnotatorLabel` of these images, and keep the counts in step.

    Call it in the transaction that appended the events. The image rows are locked first where the
    database has row locks, so that two people who label one image at once are taken in turn.
    """
    rule, meanings = consensus_rule(session, project_id), class_meanings(session, project_id)
    changes: dict[str, int] = {}
    for part in chunks(sorted(set(image_ids))):
        _refresh_chunk(session, part, rule, meanings, changes)
    add_to_tally(session, project_id, changes)


_KEPT = (
    Image.current_state,
    Image.current_class_id,
    Image.current_event_id,
    Image.current_annotator,
    Image.current_source,
    Image.readers,
    Image.disputed,
)


def kept_values(decision: Decision, sources: Mapping[int, str]) -> tuple[Any, ...]:
    """Return the values of the image's columns that follow from a decision, in their order."""
    vote = decision.decided_by
    labelled = decision.state in ("label", "skip", "unsure")
    return (
        decision.state,
        decision.class_id,
        vote.event_id if vote else None,
        vote.annotator if vote and labelled else None,
        sources[vote.event_id] if vote and labelled else None,
        decision.readers,
        decision.disputed,
    )


def values_now(image: Image) -> tuple[Any, ...]:
    """Return those columns of an image as they are."""
    return tuple(getattr(image, column.key) for column in _KEPT)


def _refresh_chunk(
    session: Session,
    image_ids: Sequence[int],
    rule: ConsensusRule,
    meanings: Meanings,
    changes: dict[str, int],
) -> None:
    rows = session.execute(
        select(Image.id, Image.status, *_KEPT)
        .where(Image.id.in_(image_ids))
        .order_by(Image.id)  # two people lock the same images in the same order
        .with_for_update()
    ).all()
    decisions, said = decide_images(session, [row[0] for row in rows], rule, meanings)
    updates = []
    for image_id, status, *before in rows:
        old: tuple[Any, ...] = tuple(before)
        sources = {event.id: event.source for event in said[image_id]}
        new = kept_values(decisions[image_id], sources)
        if old == new:
            continue
        if status == "ok":
            count_label(changes, old[0], old[1], -1)
            count_label(changes, new[0], new[1], +1)
        updates.append({"id": image_id, **dict(zip((c.key for c in _KEPT), new, strict=True))})
    if updates:
        session.execute(update(Image), updates)
    _keep_what_each_says(session, image_ids, said)


def _keep_what_each_says(
    session: Session, image_ids: Sequence[int], said: Mapping[int, Sequence[LabelEvent]]
) -> None:
    there = {
        (image_id, who): event_id
        for image_id, who, event_id in session.execute(
            select(
                AnnotatorLabel.image_id, AnnotatorLabel.annotator, AnnotatorLabel.event_id
            ).where(AnnotatorLabel.image_id.in_(image_ids))
        )
    }
    now = {
        (e.image_id, e.annotator): e
        for events in said.values()
        for e in events
        if e.kind != "clear"
    }
    gone = [key for key in there if key not in now]
    moved = [key for key, e in now.items() if key in there and there[key] != e.id]
    new = [key for key in now if key not in there]
    for image_id, who in gone:
        session.execute(
            delete(AnnotatorLabel).where(
                AnnotatorLabel.image_id == image_id, AnnotatorLabel.annotator == who
            )
        )
    if moved:
        session.execute(update(AnnotatorLabel), [_said(now[key]) for key in moved])
    if new:
        session.execute(insert(AnnotatorLabel), [_said(now[key]) for key in new])


def _said(event: LabelEvent) -> dict[str, Any]:
    return {
        "image_id": event.image_id,
        "annotator": event.annotator,
        "project_id": event.project_id,
        "state": event.kind,
        "class_id": event.class_id,
        "source": event.source,
        "event_id": event.id,
    }
