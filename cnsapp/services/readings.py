"""Reading images again: asked for on a share of them, answered blindly, counted.

A second reading is somebody else's, a self reading is the same person's once more. It is answered
by a label (or an "unsure") that is stored with that source, and open again when that is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from sqlalchemy import ColumnElement, Select, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from cnsapp.domain.labels import clean_annotator
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.filtering import ImageFilter, Span, page_of_ids
from db.deciding import class_meanings, is_void
from db.models import AnnotatorLabel, Image, LabelEvent, Project, Reading
from db.queries import chunks
from db.session import Store

Kind = Literal["second", "self"]
KINDS: tuple[Kind, ...] = ("second", "self")
EVERYTHING = ImageFilter()
MOST = 100_000  # asked for at once
ANSWERS = ("label", "unsure")


@dataclass(frozen=True)
class Wanted:
    """Which images are to be read again, and by whom.

    Attributes
    ----------
    kind
        `second`: by somebody who has not read it. `self`: by who labelled it, once more.
    by
        The person: the one who is asked (second; None is anybody) or whose images they are (self).
    share
        Part of the images that can be asked for, above 0 to 1. Or `number`: so many of them.
    evenly
        As many of each class as there are, instead of as they come.
    filter
        Only images that it lets through.
    seed
        Draws the images; the same seed draws the same ones.
    """

    kind: Kind = "second"
    by: str | None = None
    share: float | None = None
    number: int | None = None
    evenly: bool = False
    filter: ImageFilter = EVERYTHING
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInputError(f"There are no readings “{self.kind}”: second or self.")
        if (self.share is None) == (self.number is None):
            raise InvalidInputError(
                "How many images?", "", "Name a share of the labelled images, or a number."
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise InvalidInputError(
                f"A share of {self.share:g}.", "", "Choose above 0 and at most 1 (all images)."
            )
        if self.number is not None and not 1 <= self.number <= MOST:
            raise InvalidInputError(f"{self.number:,} readings.", "", f"Choose 1 to {MOST:,}.")


@dataclass(frozen=True)
class Ahead:
    """What asking would do: images that can be asked for, and how many would be drawn."""

    possible: int
    drawn: int
    per_class: dict[int, int]


@dataclass(frozen=True)
class ReadingCount:
    """Readings of one kind that one person (None: anybody) is asked for."""

    kind: str
    wanted_from: str | None
    open: int
    done: int

    def as_json(self) -> dict[str, Any]:
        """Return the count as JSON."""
        return asdict(self)


def preview(store: Store, *, project_id: int, wanted: Wanted) -> Ahead:
    """Return how many images can be asked for, and how many `ask` would draw of each class."""
    with store.reading() as session:
        _need_project(session, project_id)
        possible = _possible(session, project_id, wanted)
    drawn = _draw(possible, wanted)
    per_class: dict[int, int] = {}
    for image_id in drawn:
        class_id = possible[image_id][1]
        per_class[class_id] = per_class.get(class_id, 0) + 1
    return Ahead(len(possible), len(drawn), per_class)


def ask(store: Store, *, project_id: int, asked_by: str, wanted: Wanted) -> int:
    """Ask for readings, in short transactions; return how many were asked for.

    An image that waits for such a reading already is not asked for twice.

    Raises
    ------
    InvalidInputError
        Nobody is named, or no image can be asked for; the sentence says why.
    NotFoundError
        There is no such project.
    """
    who = clean_annotator(asked_by)
    with store.reading() as session:
        _need_project(session, project_id)
        drawn = _draw(_possible(session, project_id, wanted), wanted)
    if not drawn:
        raise InvalidInputError(
            "No image can be asked for.", _nothing(wanted), "Label more images, or choose others."
        )
    n = 0
    for part in chunks(drawn):
        with store.writing() as session:
            # looked at again: somebody may have asked for, or read, one of them meanwhile
            still = _possible(session, project_id, wanted, part)
            rows = [
                {
                    "project_id": project_id,
                    "image_id": image_id,
                    "kind": wanted.kind,
                    "wanted_from": wanted.by,
                    "first_event": still[image_id][0],
                    "asked_by": who,
                }
                for image_id in part
                if image_id in still
            ]
            if rows:
                session.execute(insert(Reading), rows)
            n += len(rows)
    return n


def withdraw(
    store: Store, *, project_id: int, kind: Kind | None = None, by: str | None = None,
    anybody: bool = False,
) -> int:  # fmt: skip
    """Take back what is asked for and not answered; return how many readings that were.

    Parameters
    ----------
    kind
        Only second, or only self readings.
    by
        Only those that this person is asked for; `anybody`: only those asked of nobody by name.
    """
    mine = [Reading.project_id == project_id, Reading.done_event.is_(None)]
    if kind is not None:
        mine.append(Reading.kind == kind)
    if anybody:
        mine.append(Reading.wanted_from.is_(None))
    elif by is not None:
        mine.append(Reading.wanted_from == by)
    n = 0
    while True:
        with store.writing() as session:
            _need_project(session, project_id)
            ids = list(session.scalars(select(Reading.id).where(*mine).limit(500)))
            session.execute(delete(Reading).where(Reading.id.in_(ids), *mine))
        n += len(ids)
        if len(ids) < 500:
            return n


def count_readings(store: Store, *, project_id: int) -> list[ReadingCount]:
    """Return how many readings are open and done, by kind and by who is asked."""
    done = func.count(Reading.done_event)
    statement = (
        select(Reading.kind, Reading.wanted_from, func.count() - done, done)
        .where(Reading.project_id == project_id)
        .group_by(Reading.kind, Reading.wanted_from)
        .order_by(Reading.kind, Reading.wanted_from)
    )
    with store.reading() as session:
        return [ReadingCount(*row) for row in session.execute(statement)]


def keep_answers(session: Session, project_id: int, image_ids: Iterable[int]) -> None:
    """Derive which readings of these images are answered, in the transaction of their events.

    A reading is answered by the latest label of its kind, that still counts, of who was asked:
    given after the label it is compared with and before the next such reading was asked for.
    """
    for part in chunks(sorted(set(image_ids))):
        rows = session.scalars(
            select(Reading)
            .where(Reading.image_id.in_(part), Reading.project_id == project_id)
            .order_by(Reading.id)
        ).all()
        if rows:
            _keep(session, rows)


def _keep(session: Session, rows: Sequence[Reading]) -> None:
    images = sorted({row.image_id for row in rows})
    given: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for event_id, image_id, source, who in session.execute(
        select(LabelEvent.id, LabelEvent.image_id, LabelEvent.source, LabelEvent.annotator)
        .where(
            LabelEvent.image_id.in_(images),
            LabelEvent.source.in_(KINDS),
            LabelEvent.kind.in_(ANSWERS),
            ~is_void(),
        )
        .order_by(LabelEvent.id)
    ):
        given.setdefault((image_id, source), []).append((event_id, who))
    firsts = _annotators(session, [row.first_event for row in rows if row.first_event])
    changes = []
    for at, row in enumerate(rows):
        until = _next_asked(rows, at)
        answers = [
            event_id
            for event_id, who in given.get((row.image_id, row.kind), [])
            if (row.first_event or 0) < event_id <= until
            and (who == row.wanted_from if row.wanted_from else who != firsts.get(row.first_event))
        ]
        answer = answers[-1] if answers else None
        if answer != row.done_event:
            changes.append({"id": row.id, "done_event": answer})
    if changes:
        session.execute(update(Reading), changes)


def _next_asked(rows: Sequence[Reading], at: int) -> float:
    """Return the label that the next such reading is compared with: it belongs to this one."""
    mine = rows[at]
    for later in rows[at + 1 :]:
        same = (later.image_id, later.kind, later.wanted_from)
        if same == (mine.image_id, mine.kind, mine.wanted_from) and later.first_event:
            return later.first_event
    return float("inf")


def _annotators(session: Session, event_ids: Sequence[int]) -> Mapping[int | None, str]:
    found: dict[int | None, str] = {}
    for part in chunks(event_ids):
        found.update(
            session.execute(
                select(LabelEvent.id, LabelEvent.annotator).where(LabelEvent.id.in_(part))
            ).all()
        )
    return found


def _possible(
    session: Session, project_id: int, wanted: Wanted, among: Sequence[int] | None = None
) -> dict[int, tuple[int, int]]:
    """Return the images that can be asked for: id -> (event it is compared with, class)."""
    statement = _readable(project_id, wanted)
    if among is not None:
        statement = statement.where(Image.id.in_(among))
    meanings = class_meanings(session, project_id)
    found: dict[int, tuple[int, int]] = {}
    for image_id, event_id, class_id in session.execute(statement):
        means = None if class_id is None else meanings.get(class_id, class_id)
        if means is not None and found.get(image_id, (0, 0))[0] < event_id:
            found[image_id] = (event_id, means)
    if wanted.filter == EVERYTHING or among is not None:
        return found
    through = set(page_of_ids(session, project_id, wanted.filter, Span(), 2**31))
    return {image_id: said for image_id, said in found.items() if image_id in through}


def _readable(project_id: int, wanted: Wanted) -> Select[int, int, int | None]:
    word = AnnotatorLabel
    statement = (
        select(word.image_id, word.event_id, word.class_id)
        .join(Image, Image.id == word.image_id)
        .where(word.project_id == project_id, word.state == "label", Image.status == "ok")
        .where(~_waits(wanted))
    )
    if wanted.kind == "self":
        return statement.where(word.annotator == (wanted.by or ""))
    if wanted.by is None:  # a second reader is missing
        return statement.where(Image.readers == 1)
    theirs = select(AnnotatorLabel.image_id).where(AnnotatorLabel.annotator == wanted.by)
    return statement.where(word.image_id.not_in(theirs))


def _waits(wanted: Wanted) -> ColumnElement[bool]:
    """Return the condition that an image waits for such a reading already."""
    same = Reading.wanted_from == wanted.by
    if wanted.kind == "second":
        same = or_(same, Reading.wanted_from.is_(None)) if wanted.by else Reading.id > 0
    return exists(
        select(Reading.id).where(
            Reading.image_id == Image.id,
            Reading.kind == wanted.kind,
            Reading.done_event.is_(None),
            same,
        )
    )


def _draw(possible: Mapping[int, tuple[int, int]], wanted: Wanted) -> list[int]:
    """Draw images at random, by the seed; evenly: in turn from each class until there are enough.

    The classes that have fewer give all they have.
    """
    ids = np.array(sorted(possible), np.int64)
    n = min(wanted.number or 0, len(ids))
    if wanted.share is not None and len(ids):
        n = max(1, round(wanted.share * len(ids)))
    mixed = np.random.default_rng(wanted.seed).permutation(ids)
    if not wanted.evenly:
        return [int(i) for i in mixed[:n]]
    turn: dict[int, int] = {}
    keyed = []
    for place, image_id in enumerate(mixed):
        class_id = possible[int(image_id)][1]
        turn[class_id] = turn.get(class_id, 0) + 1
        keyed.append((turn[class_id], place, int(image_id)))
    return [image_id for _, _, image_id in sorted(keyed)[:n]]


def _nothing(wanted: Wanted) -> str:
    if wanted.kind == "self":
        return f"{wanted.by or 'Nobody'} has labelled no image that is not asked for already."
    if wanted.by is None:
        return "No image was read by one person alone, or all such images are asked for already."
    return f"{wanted.by} has read every labelled image, or is asked for them already."


def _need_project(session: Session, project_id: int) -> None:
    if session.get(Project, project_id) is None:
        raise NotFoundError(f"There is no project number {project_id}.")
