"""Labelling: store what people say of images, take it back, and tell who said what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.labels import (
    MAX_EVENTS,
    TAKES_BACK,
    LabelAct,
    claimed_key,
    clean_annotator,
    read_act,
)
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.busy import in_time
from cnsapp.services.label_import import LabelReport, import_labels, label_from_csv
from cnsapp.services.own_labels import own_words
from cnsapp.services.readings import keep_answers
from cnsapp.services.undoing import UndoStep, redo_stack, undo_stack
from db.deciding import class_meanings, refresh_current
from db.models import Image, LabelClass, LabelEvent, Project
from db.queries import chunks, insert_new, read_tally
from db.session import Store

__all__ = [
    "Answer",
    "LabelReport",
    "Receipt",
    "UndoStep",
    "clean_annotator",
    "high_water",
    "import_labels",
    "label_from_csv",
    "record_events",
    "redo_stack",
    "undo_stack",
]


@dataclass(frozen=True)
class Answer:
    """An act that was not stored, and why. It will never be: sending it again does not help."""

    client: str
    seq: int
    reason: str


@dataclass(frozen=True)
class ImageLabel:
    """What an image is called now. `rev` is the event that decides it, 0 for none."""

    id: int
    sha: str  # the beginning of it, as in picture addresses
    name: str
    class_id: int | None
    state: str
    rev: int
    source: str | None  # where that label comes from
    disputed: bool  # people gave it different classes


@dataclass(frozen=True)
class Receipt:
    """The database's word on a message of events: what it holds now.

    `as_of` is the newest event that `images` and `counts` know of: of two answers the one with the
    larger number is the later one, whatever order they arrive in.
    """

    acked: tuple[tuple[str, int], ...]
    rejected: tuple[Answer, ...]
    images: tuple[ImageLabel, ...]
    counts: dict[str, Any]
    as_of: int

    def as_json(self) -> dict[str, Any]:
        """Return the receipt as JSON."""
        return {
            "acked": [{"client": client, "seq": seq} for client, seq in self.acked],
            "rejected": [asdict(answer) for answer in self.rejected],
            "images": [asdict(image) for image in self.images],
            "counts": self.counts,
            "as_of": self.as_of,
        }


def record_events(
    store: Store,
    *,
    project_id: int,
    annotator: str,
    events: Sequence[Mapping[str, Any]],
    own: bool = False,
) -> Receipt:
    """Store the events that are not stored yet, in one transaction, and say what is stored now.

    Sending the same events again changes nothing and gets the same answer. `own`: the answer tells
    what this person calls the images, not what others do; the counts are the project's.

    Raises
    ------
    InvalidInputError
        Nobody is named as annotator, or there are more events than one message may carry.
    NotFoundError
        There is no such project.
    StoreError
        The database did not take them in time. They may be sent again.
    """
    who = clean_annotator(annotator)
    if len(events) > MAX_EVENTS:
        raise InvalidInputError(
            f"{len(events)} labels came in one message; {MAX_EVENTS} is the most.",
            "A larger one would make other people wait.",
            "Send them in several messages.",
        )
    acts, rejected = _read(events)
    with in_time("The labels"), store.writing() as session:
        if session.get(Project, project_id) is None:
            raise NotFoundError(f"There is no project number {project_id}.")
        images = _known_images(session, project_id, {act.image_id for act in acts})
        classes = _classes(session, project_id)
        good = [act for act in acts if _accept(act, images, classes, rejected)]
        rows = [_row(act, project_id, who) for act in good if act.kind not in TAKES_BACK]
        new = insert_new(session, LabelEvent, rows, ["client", "seq"])
        undos = _undo_rows(
            session, [act for act in good if act.kind in TAKES_BACK], project_id, who, rejected
        )
        new += insert_new(session, LabelEvent, undos, ["client", "seq"])
        if new:
            refresh_current(session, project_id, images)
            keep_answers(session, project_id, images)
        acked = _stored(session, good, project_id, rejected)
        return Receipt(
            acked=acked,
            rejected=tuple(rejected.values()),
            images=_own_labels(session, images, who) if own else _labels(session, images),
            counts=_counts(session, project_id),
            as_of=_high_water(session),
        )


def high_water(store: Store) -> int:
    """Return the number of the newest event; read it *before* the images it is to date."""
    with store.reading() as session:
        return _high_water(session)


def _read(events: Sequence[Any]) -> tuple[list[LabelAct], dict[tuple[str, int], Answer]]:
    acts: dict[tuple[str, int], LabelAct] = {}
    rejected: dict[tuple[str, int], Answer] = {}
    for raw in events:
        try:
            act = read_act(raw)
        except ValueError as error:
            key = claimed_key(raw)
            rejected[key] = Answer(*key, str(error))
        else:
            acts.setdefault(act.key, act)
    return list(acts.values()), rejected


def _known_images(session: Session, project_id: int, ids: set[int]) -> dict[int, str]:
    """Return the SHA-256 of those images that are in the project."""
    known: dict[int, str] = {}
    for part in chunks(sorted(ids)):
        rows = select(Image.id, Image.sha256).where(
            Image.id.in_(part), Image.project_id == project_id
        )
        known.update(session.execute(rows).all())
    return known


def _classes(session: Session, project_id: int) -> set[int]:
    """Return the classes that a label may name: also merged ones, which an open page may show."""
    known = session.scalars(select(LabelClass.id).where(LabelClass.project_id == project_id))
    gone = {c for c, meaning in class_meanings(session, project_id).items() if meaning is None}
    return set(known) - gone


def _accept(
    act: LabelAct,
    images: Mapping[int, str],
    classes: set[int],
    rejected: dict[tuple[str, int], Answer],
) -> bool:
    if act.image_id not in images:
        reason = "The image is not in this project (any more)."
    elif not images[act.image_id].startswith(act.sha):
        reason = "Another image has got the number of the one that was labelled."
    elif act.kind == "label" and act.class_id not in classes:
        reason = "The class is not in this project (any more)."
    else:
        return True
    rejected[act.key] = Answer(*act.key, reason)
    return False


def _row(
    act: LabelAct, project_id: int, annotator: str, target_id: int | None = None
) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "image_id": act.image_id,
        "class_id": act.class_id,
        "annotator": annotator,
        "kind": act.kind,
        "source": act.source,
        "client": act.client,
        "seq": act.seq,
        "action": act.action,
        "target_id": target_id,
    }


def _undo_rows(
    session: Session,
    undos: Sequence[LabelAct],
    project_id: int,
    annotator: str,
    rejected: dict[tuple[str, int], Answer],
) -> list[dict[str, Any]]:
    targets = _events(session, [act.target for act in undos if act.target])
    rows = []
    for act in undos:
        target = targets.get(act.target) if act.target else None
        if target is None or target.kind in TAKES_BACK or target.project_id != project_id:
            reason = f"What was to be {act.kind}ne is not stored."
        elif target.image_id != act.image_id:
            reason = f"What was to be {act.kind}ne is a label of another image."
        elif target.annotator != annotator:
            reason = (
                f"Only {target.annotator} can {act.kind} this label; give it another one instead."
            )
        else:
            rows.append(_row(act, project_id, annotator, target.id))
            continue
        rejected[act.key] = Answer(*act.key, reason)
    return rows


def _events(session: Session, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], LabelEvent]:
    by_client: dict[str, list[int]] = {}
    for client, seq in keys:
        by_client.setdefault(client, []).append(seq)
    found = {}
    for client, seqs in by_client.items():
        for part in chunks(seqs):
            for event in session.scalars(
                select(LabelEvent).where(LabelEvent.client == client, LabelEvent.seq.in_(part))
            ):
                found[(event.client, event.seq)] = event
    return found


def _stored(
    session: Session,
    acts: Sequence[LabelAct],
    project_id: int,
    rejected: dict[tuple[str, int], Answer],
) -> tuple[tuple[str, int], ...]:
    """Return the keys of the acts that the database holds, as they were meant."""
    acts = [act for act in acts if act.key not in rejected]
    stored = _events(session, [act.key for act in acts])
    acked = []
    for act in acts:
        event = stored[act.key]
        meant = (project_id, act.image_id, act.kind, act.class_id)
        if (event.project_id, event.image_id, event.kind, event.class_id) == meant:
            acked.append(act.key)
        else:
            rejected[act.key] = Answer(*act.key, "Another label is stored under the same number.")
    return tuple(acked)


def _labels(session: Session, image_ids: Iterable[int]) -> tuple[ImageLabel, ...]:
    found = []
    for part in chunks(sorted(image_ids)):
        rows = select(
            Image.id,
            func.substr(Image.sha256, 1, 8),
            Image.file_name,
            Image.current_class_id,
            Image.current_state,
            func.coalesce(Image.current_event_id, 0),
            Image.current_source,
            Image.disputed,
        ).where(Image.id.in_(part))
        found += [ImageLabel(*row) for row in session.execute(rows)]
    return tuple(found)


def _own_labels(session: Session, image_ids: Iterable[int], who: str) -> tuple[ImageLabel, ...]:
    said = own_words(session, sorted(image_ids), who)
    nothing = ("none", None, None, 0)
    found = []
    for image in _labels(session, image_ids):
        state, class_id, source, event_id = said.get(image.id, nothing)
        found.append(
            replace(
                image, state=state, class_id=class_id, source=source, rev=event_id, disputed=False
            )
        )
    return tuple(found)


def _counts(session: Session, project_id: int) -> dict[str, Any]:
    tally = read_tally(session, project_id)
    return {
        "images": tally.get("images", 0),
        "labelled": tally.get("state:label", 0),
        "skipped": tally.get("state:skip", 0),
        "unsure": tally.get("state:unsure", 0),
        "waiting": tally.get("state:waiting", 0),
        "undecided": tally.get("state:undecided", 0),
        "per_class": {
            key.removeprefix("class:"): n for key, n in tally.items() if key.startswith("class:")
        },
    }


def _high_water(session: Session) -> int:
    return session.scalar(select(func.max(LabelEvent.id))) or 0
