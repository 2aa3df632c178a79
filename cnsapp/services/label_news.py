"""What other people have said, a moment ago, of images that one is labelling too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.labels import clean_annotator
from db.models import AnnotatorLabel, Image, LabelEvent, Project
from db.queries import chunks
from db.session import Store

MOST_EVENTS = 2000  # looked at in one answer; the rest comes with the next


@dataclass(frozen=True)
class Changed:
    """An image that somebody else labelled; `others`: who says which class otherwise than I."""

    id: int
    sha: str
    name: str
    class_id: int | None
    state: str
    rev: int
    source: str | None
    disputed: bool
    others: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class News:
    """The images that others labelled since; `as_of` is where to ask from next."""

    images: tuple[Changed, ...]
    as_of: int

    def as_json(self) -> dict[str, Any]:
        """Return the news as JSON."""
        return {"images": [asdict(image) for image in self.images], "as_of": self.as_of}


def news(store: Store, *, project_id: int, annotator: str, since: int) -> News:
    """Return what others have said since the event `since` of images that this person labelled.

    In a project that labels blindly there are no news.
    """
    who = clean_annotator(annotator)
    with store.reading() as session:
        newest = session.scalar(select(func.max(LabelEvent.id))) or 0
        settings = session.scalar(select(Project.settings).where(Project.id == project_id)) or {}
        if settings.get("labelling", {}).get("blind"):
            return News((), newest)
        events = session.execute(
            select(LabelEvent.id, LabelEvent.image_id)
            .where(
                LabelEvent.id > since,
                LabelEvent.project_id == project_id,
                LabelEvent.annotator != who,
            )
            .order_by(LabelEvent.id)
            .limit(MOST_EVENTS)
        ).all()
        as_of = events[-1][0] if len(events) == MOST_EVENTS else newest
        ids = sorted({image_id for _, image_id in events})
        return News(_changed(session, ids, who), as_of)


def _changed(session: Session, ids: Sequence[int], who: str) -> tuple[Changed, ...]:
    found: list[Changed] = []
    for part in chunks(ids):
        said: dict[int, dict[str, int | None]] = {}
        for image_id, person, class_id in session.execute(
            select(
                AnnotatorLabel.image_id, AnnotatorLabel.annotator, AnnotatorLabel.class_id
            ).where(AnnotatorLabel.image_id.in_(part))
        ):
            said.setdefault(image_id, {})[person] = class_id
        mine = [image_id for image_id, people in said.items() if who in people]
        for row in session.scalars(select(Image).where(Image.id.in_(mine)).order_by(Image.id)):
            people = said[row.id]
            others = tuple(
                (person, class_id)
                for person, class_id in sorted(people.items())
                if person != who and class_id is not None and class_id != people[who]
            )
            found.append(
                Changed(
                    row.id, row.sha256[:8], row.file_name, row.current_class_id,
                    row.current_state, row.current_event_id or 0, row.current_source,
                    row.disputed, others if row.disputed else (),
                )
            )  # fmt: skip
    return tuple(found)
