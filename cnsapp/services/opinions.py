"""What people say of the images that two or more of them read, as a table: for agreement.

A label that settled a dispute was given with the others in sight: the reading before it counts. A
suggestion that was accepted is no opinion of its own: two who accept one model do not agree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from cnsapp.services.kept import Kept
from db.deciding import Meanings, class_meanings, is_void
from db.models import AnnotatorLabel, ClassEvent, Image, ImageEvent, LabelEvent, Reading
from db.queries import chunks
from db.session import Store

KEPT = 24  # answers remembered
ACCEPTS = "suggestion"
SETTLES = "adjudication"
Labels = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Opinions:
    """What people say of the images that two or more of them read."""

    image_ids: Labels  # (N,) ascending
    groups: list[str | None]
    people: list[str]
    said: Labels  # (N, P) class, 0 for none


def both(read: Opinions, i: int, j: int) -> tuple[list[int], list[int], list[str | None], Labels]:
    """Return what two people call the images that both read, their groups, and their ids."""
    common = np.flatnonzero((read.said[:, i] > 0) & (read.said[:, j] > 0))
    a, b = read.said[common, i].tolist(), read.said[common, j].tolist()
    return a, b, [read.groups[k] for k in common], read.image_ids[common]


def opinions(store: Store, project_id: int, only_second: bool) -> Opinions:
    """Return the table of a project; `only_second`: of images with a blind second reading."""
    return kept(
        store, project_id, ("read", only_second), lambda: _fetch(store, project_id, only_second)
    )


def _fetch(store: Store, project_id: int, only_second: bool) -> Opinions:
    word = AnnotatorLabel
    mine = [word.project_id == project_id, word.state == "label"]
    of_several = select(word.image_id).where(*mine).group_by(word.image_id)
    of_several = of_several.having(func.count() > 1)
    statement = (
        select(word.image_id, word.annotator, word.class_id, word.source, Image.group_key)
        .join(Image, Image.id == word.image_id)
        .where(*mine, Image.status == "ok", word.image_id.in_(of_several))
    )
    if only_second:
        second = aliased(AnnotatorLabel)
        blind = select(second.image_id).where(
            second.project_id == project_id, second.source == "second", second.state == "label"
        )
        statement = statement.where(word.image_id.in_(blind))
    with store.reading() as session:
        meanings = class_meanings(session, project_id)
        rows = session.execute(statement).all()
        settled = [(row[0], row[1]) for row in rows if row[3] == SETTLES]
        before = _before(session, settled)
    said: dict[tuple[int, str], int] = {}
    groups: dict[int, str | None] = {}
    for image_id, who, class_id, source, group in rows:
        if source == ACCEPTS:
            continue
        said_class = before.get((image_id, who)) if source == SETTLES else class_id
        meant = meant_now(said_class, meanings)
        if meant is not None:
            said[image_id, who] = meant
            groups[image_id] = group
    return _as_table(said, groups)


def meant_now(class_id: int | None, meanings: Meanings) -> int | None:
    """Return the class that a class stands for now, None where it is gone."""
    return None if class_id is None else meanings.get(class_id, class_id)


def _before(session: Session, settled: Sequence[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """Return the class that people gave these images before they settled a dispute."""
    wanted = set(settled)
    found: dict[tuple[int, str], int] = {}
    for part in chunks(sorted({image_id for image_id, _ in settled})):
        for image_id, who, class_id in session.execute(
            select(LabelEvent.image_id, LabelEvent.annotator, LabelEvent.class_id)
            .where(
                LabelEvent.image_id.in_(part),
                LabelEvent.kind == "label",
                LabelEvent.source.not_in((SETTLES, ACCEPTS)),
                ~is_void(),
            )
            .order_by(LabelEvent.id)
        ):
            if (image_id, who) in wanted and class_id is not None:
                found[image_id, who] = class_id  # the latest stays
    return found


def _as_table(said: dict[tuple[int, str], int], groups: dict[int, str | None]) -> Opinions:
    ids = np.array(sorted(groups), np.int64)
    people = sorted({who for _, who in said})
    row, column = {int(i): k for k, i in enumerate(ids)}, {who: k for k, who in enumerate(people)}
    table = np.zeros((len(ids), len(people)), np.int64)
    for (image_id, who), class_id in said.items():
        table[row[image_id], column[who]] = class_id
    several = np.flatnonzero((table > 0).sum(1) > 1)
    kept = np.flatnonzero((table[several] > 0).any(0))
    ids = ids[several]
    return Opinions(
        ids,
        [groups[int(i)] for i in ids],
        [people[k] for k in kept],
        table[np.ix_(several, kept)],
    )


_answers: Kept[Any] = Kept(KEPT)


def kept(store: Store, project_id: int, what: tuple[Hashable, ...], make: Callable[[], T]) -> T:
    """Return an answer from memory while nothing was labelled, grouped or reclassed since."""
    with store.reading() as session:
        newest = [session.scalar(select(func.max(LabelEvent.id)))]
        newest += [
            session.scalar(select(func.max(table.id)).where(table.project_id == project_id))
            for table in (ClassEvent, ImageEvent)
        ]
        readings = session.execute(
            select(func.count(), func.max(Reading.id)).where(Reading.project_id == project_id)
        ).one()
    key = (str(store.engine.url), project_id, *newest, *readings, *what)
    found: T = _answers.get(key, make)
    return found
