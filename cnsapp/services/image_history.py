"""The story of one image: who said what and when, from what, taken back or not, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from cnsapp.domain.labels import TAKES_BACK
from cnsapp.errors import NotFoundError
from cnsapp.services.notes import KINDS as NOTE_KINDS
from db.deciding import class_meanings
from db.models import Image, ImageEvent, LabelClass, LabelEvent
from db.session import Store

MOST = 500  # entries of one image that are told


@dataclass(frozen=True)
class Saying:
    """What somebody called an image: a state, and a class where the state is label."""

    kind: str = "clear"
    class_id: int | None = None
    name: str | None = None

    def as_json(self, meanings: dict[int, int | None]) -> dict[str, Any]:
        """Return it as JSON; `class_id` is the class that its class stands for now, if any."""
        now = meanings.get(self.class_id, self.class_id) if self.class_id is not None else None
        return {"kind": self.kind, "class_id": now, "name": self.name}


@dataclass(frozen=True)
class Entry:
    """One thing that happened. `before` and `after`: what this person called the image."""

    at: datetime
    who: str
    kind: str
    source: str = ""
    text: str = ""
    undone: bool = False
    current: bool = False
    before: Saying | None = None
    after: Saying | None = None


@dataclass(frozen=True)
class ImageHistory:
    """Everything that happened to an image that a reader may see, the newest first."""

    image_id: int
    name: str
    entries: tuple[Entry, ...]
    meanings: dict[int, int | None]

    def as_json(self) -> dict[str, Any]:
        """Return the history as JSON."""
        return {
            "id": self.image_id,
            "name": self.name,
            "entries": [self._entry(entry) for entry in self.entries],
        }

    def _entry(self, entry: Entry) -> dict[str, Any]:
        return {
            "at": entry.at.isoformat(),
            "who": entry.who,
            "kind": entry.kind,
            "source": entry.source,
            "text": entry.text,
            "undone": entry.undone,
            "current": entry.current,
            "before": entry.before.as_json(self.meanings) if entry.before else None,
            "after": entry.after.as_json(self.meanings) if entry.after else None,
        }


def image_history(store: Store, *, image_id: int, only: str | None = None) -> ImageHistory:
    """Return the history of an image; with `only` what that one person did (blind reading).

    Raises
    ------
    NotFoundError
        There is no such image.
    """
    with store.reading() as session:
        image = session.get(Image, image_id) if 0 < image_id < 2**31 else None
        if image is None:
            raise NotFoundError(f"There is no image number {image_id}.")
        said = select(LabelEvent, LabelClass.name).outerjoin(
            LabelClass, LabelClass.id == LabelEvent.class_id
        )
        said = said.where(LabelEvent.image_id == image_id).order_by(LabelEvent.id)
        beside = select(ImageEvent).where(ImageEvent.image_id == image_id)
        if only is not None:
            said = said.where(LabelEvent.annotator == only)
            beside = beside.where(ImageEvent.who == only)
        events = [(event, name) for event, name in session.execute(said)]
        notes = list(session.scalars(beside.order_by(ImageEvent.id)))
        meanings = dict(class_meanings(session, image.project_id))
        entries = [*_retold(events, image.current_event_id), *map(_beside, notes)]
        entries.sort(key=lambda entry: entry.at, reverse=True)
        return ImageHistory(image_id, image.file_name, tuple(entries[:MOST]), meanings)


class _Person:
    """What one person has said of the image so far, in order, with what they took back."""

    def __init__(self) -> None:
        self.acts: dict[int, Saying] = {}
        self.void: set[int] = set()

    def now(self) -> Saying:
        counting = [saying for key, saying in self.acts.items() if key not in self.void]
        return counting[-1] if counting else Saying()


def _retold(events: Sequence[tuple[LabelEvent, str | None]], current: int | None) -> list[Entry]:
    people: dict[str, _Person] = {}
    steps: list[tuple[LabelEvent, Saying, Saying]] = []
    for event, name in events:
        person = people.setdefault(event.annotator, _Person())
        before = person.now()
        if event.kind == "undo" and event.target_id is not None:
            person.void.add(event.target_id)
        elif event.kind == "redo" and event.target_id is not None:
            person.void.discard(event.target_id)
        elif event.kind not in TAKES_BACK:
            person.acts[event.id] = Saying(event.kind, event.class_id, name)
        steps.append((event, before, person.now()))
    void = set().union(*(person.void for person in people.values())) if people else set()
    return [
        Entry(
            at=event.created_at,
            who=event.annotator,
            kind=event.kind,
            source=event.source,
            undone=event.id in void,
            current=event.id == current,
            before=before,
            after=after,
        )
        for event, before, after in reversed(steps)
    ]


def _beside(event: ImageEvent) -> Entry:
    text = event.reason
    if event.kind not in NOTE_KINDS and not text and event.details.get("to") is not None:
        text = str(event.details["to"])  # put into a group
    return Entry(at=event.created_at, who=event.who, kind=event.kind, text=text)
