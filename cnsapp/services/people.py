"""Who labels in a project."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.pace import Pace, labelling_pace
from db.deciding import class_meanings, is_void
from db.models import AnnotatorLabel, LabelEvent
from db.session import Store

MACHINES = ("import", "demo")  # names that imports sign with
LATEST = 2000  # labels that a pace is worked out from: of this week, not of the first day


def list_annotators(store: Store, *, project_id: int, limit: int = 50) -> list[str]:
    """Return the people who have labelled in a project, by name."""
    found: list[str] = []
    last = ""
    with store.reading() as session:
        while len(found) < limit:  # hops from name to name in the index, however many the events
            name = session.scalar(
                select(func.min(LabelEvent.annotator)).where(
                    LabelEvent.project_id == project_id, LabelEvent.annotator > last
                )
            )
            if name is None:
                break
            found.append(name)
            last = name
    return [name for name in found if name not in MACHINES]


@dataclass(frozen=True)
class Person:
    """What somebody has done in a project: images they call something now, and how fast.

    `pace` is of their latest labels, of active time only.
    """

    name: str
    labelled: int
    unsure: int
    skipped: int
    last_at: datetime | None
    pace: Pace
    per_class: dict[int, int]

    @property
    def is_machine(self) -> bool:
        """Whether an import signed with this name."""
        return self.name in MACHINES


def list_people(store: Store, *, project_id: int) -> list[Person]:
    """Return all who have labelled in a project, those with the most labels first."""
    word = AnnotatorLabel
    with store.reading() as session:
        meanings = class_meanings(session, project_id)
        rows = session.execute(
            select(word.annotator, word.state, word.class_id, func.count())
            .where(word.project_id == project_id)
            .group_by(word.annotator, word.state, word.class_id)
        ).all()
        states: dict[str, Counter[str]] = {}
        classes: dict[str, Counter[int]] = {}
        for who, state, class_id, n in rows:
            means = None if class_id is None else meanings.get(class_id, class_id)
            if state == "label" and means is None:
                continue  # of a class that is gone
            states.setdefault(who, Counter())[state] += n
            if state == "label" and means is not None:
                classes.setdefault(who, Counter())[means] += n
        found = [
            Person(
                name=who,
                labelled=said["label"],
                unsure=said["unsure"],
                skipped=said["skip"],
                last_at=_last_at(session, project_id, who),
                pace=labelling_pace(latest_times(session, project_id, who)),
                per_class=dict(classes.get(who, {})),
            )
            for who, said in states.items()
        ]
    return sorted(found, key=lambda person: (-person.labelled, person.name))


def latest_times(session: Session, project_id: int, annotator: str) -> list[float]:
    """Return when a person gave their latest labels, skips and doubts, in seconds."""
    moments = session.scalars(
        select(LabelEvent.created_at)
        .where(
            LabelEvent.project_id == project_id,
            LabelEvent.annotator == annotator,
            LabelEvent.kind.in_(("label", "skip", "unsure")),
            LabelEvent.source != "import",
            ~is_void(),  # two hundred labels in one press that was taken back are no pace
        )
        .order_by(LabelEvent.id.desc())
        .limit(LATEST)
    )
    return [moment.timestamp() for moment in moments]


def _last_at(session: Session, project_id: int, annotator: str) -> datetime | None:
    return session.scalar(
        select(LabelEvent.created_at)
        .where(LabelEvent.project_id == project_id, LabelEvent.annotator == annotator)
        .order_by(LabelEvent.id.desc())
        .limit(1)
    )
