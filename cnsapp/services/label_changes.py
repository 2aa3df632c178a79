"""What changed in the labels since a moment or since a model: which images, from what to what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.consensus import ConsensusRule, Vote, decide
from cnsapp.domain.labels import TAKES_BACK
from cnsapp.errors import InvalidInputError
from cnsapp.services.class_names import classes_today
from cnsapp.services.images import MAX_PAGE, ImageItem, items_in_order
from cnsapp.services.kept import Kept
from cnsapp.services.models import get_model
from db.deciding import Meanings, class_meanings, consensus_rule, vote_of
from db.models import ClassEvent, Image, ImageEvent, LabelEvent
from db.queries import chunks, read_tally
from db.session import Store

KEPT = 4  # comparisons in memory: a page looks at the same one again and again


@dataclass(frozen=True)
class LabelState:
    """What an image was or is called: a class where the state is label."""

    state: str
    class_id: int | None
    name: str | None


@dataclass(frozen=True)
class LabelChange:
    """An image that is called otherwise now; `who`, `at` and `event_id`: of its newest act."""

    image_id: int
    before: LabelState
    after: LabelState
    who: str
    at: datetime
    event_id: int


@dataclass(frozen=True)
class LabelChanges:
    """What became of the labels of the images in use since a moment, in the classes of today.

    That a class was renamed, merged or deleted is no change of a label, nor is another label rule.

    Attributes
    ----------
    n_before
        Images that had a label then.
    n_changed, n_added, n_removed
        Had a label and have another; had none and have one; had one and have none.
    n_other
        Without a label then and now, but in another state: unsure, skipped and so on.
    moves
        How many images went from what to what, the most frequent first.
    by_person
        How many images the newest act is of each person, the most first.
    changes
        All of them, the newest act first.
    """

    n_before: int
    n_changed: int
    n_added: int
    n_removed: int
    n_other: int
    moves: list[tuple[LabelState, LabelState, int]]
    by_person: list[tuple[str, int]]
    changes: list[LabelChange] = field(repr=False)


_kept: Kept[LabelChanges] = Kept(KEPT)


def labels_since(store: Store, *, project_id: int, moment: datetime) -> LabelChanges:
    """Compare the labels of a project at a moment with those of today."""
    with store.reading() as session:
        newest = session.scalar(
            select(LabelEvent.id)
            .where(LabelEvent.project_id == project_id, LabelEvent.created_at <= moment)
            .order_by(LabelEvent.id.desc())
            .limit(1)
        )
        return _since(store, session, project_id, newest or 0)


def labels_since_model(store: Store, *, model_id: int) -> LabelChanges:
    """Compare the labels that a model was made from with those of today.

    Raises
    ------
    NotFoundError
        There is no such model.
    """
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        last = int(model.settings.get("last_event_id", 0))
        return _since(store, session, model.project_id, last)


def changed_images(
    store: Store,
    found: LabelChanges,
    *,
    before: LabelState | None = None,
    after: LabelState | None = None,
    who: str | None = None,
    behind: int | None = None,
    limit: int = 50,
) -> list[tuple[LabelChange, ImageItem]]:
    """Return changed images, the newest act first, of one move or one person.

    Parameters
    ----------
    behind
        The `event_id` of the last one of the page before.

    Raises
    ------
    InvalidInputError
        `limit` is not from 1 to 1000.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInputError(f"A page of {limit} images: 1 to {MAX_PAGE} are possible.")
    chosen = [
        change
        for change in found.changes
        if before in (None, change.before)
        and after in (None, change.after)
        and who in (None, change.who)
        and (behind is None or change.event_id < behind)
    ][:limit]
    with store.reading() as session:
        items = items_in_order(session, [change.image_id for change in chosen])
    by_id = {item.id: item for item in items}
    return [(c, by_id[c.image_id]) for c in chosen if c.image_id in by_id]


def _since(store: Store, session: Session, project_id: int, event_id: int) -> LabelChanges:
    """Return the changes; worked out once for as long as no label, class or image changes."""
    newest = [
        session.scalar(select(func.max(table.id)).where(table.project_id == project_id))
        for table in (LabelEvent, ClassEvent, ImageEvent)
    ]
    in_use = select(func.count()).where(Image.project_id == project_id, Image.status == "ok")
    newest.append(session.scalar(in_use))  # a file that went missing leaves no event
    rule = consensus_rule(session, project_id)
    key = (str(store.root), project_id, event_id, *newest, rule)
    return _kept.get(key, lambda: _compared(session, project_id, event_id))


def _compared(session: Session, project_id: int, event_id: int) -> LabelChanges:
    rule, meanings = consensus_rule(session, project_id), class_meanings(session, project_id)
    names = {i: c.own_name for i, c in classes_today(session, project_id).items()}
    changes: list[LabelChange] = []
    for part in chunks(_touched(session, project_id, event_id)):
        for image_id, events in _events(session, part).items():
            before, after = (
                _state([e for e in events if e.id <= last], rule, meanings, names)
                for last in (event_id, events[-1].id)
            )
            if before != after:
                newest = events[-1]
                changes.append(
                    LabelChange(
                        image_id, before, after, newest.annotator, newest.created_at, newest.id
                    )
                )
    labelled_now = read_tally(session, project_id).get("state:label", 0)
    return _summed(changes, labelled_now)


def _summed(changes: list[LabelChange], labelled_now: int) -> LabelChanges:
    kinds = Counter((c.before.state == "label", c.after.state == "label") for c in changes)
    moves = Counter((c.before, c.after) for c in changes)
    people = Counter(c.who for c in changes)
    added, removed = kinds[False, True], kinds[True, False]
    return LabelChanges(
        n_before=labelled_now - added + removed,
        n_changed=kinds[True, True],
        n_added=added,
        n_removed=removed,
        n_other=kinds[False, False],
        moves=sorted(
            ((before, after, n) for (before, after), n in moves.items()),
            key=lambda move: (-move[2], *_words(move[0]), *_words(move[1])),
        ),
        by_person=sorted(people.items(), key=lambda person: (-person[1], person[0])),
        changes=sorted(changes, key=lambda change: -change.event_id),
    )


def _words(state: LabelState) -> tuple[str, str]:
    return state.state, state.name or ""


def _touched(session: Session, project_id: int, event_id: int) -> list[int]:
    """Return the images in use that got an event since, ascending."""
    since = select(LabelEvent.image_id).where(
        LabelEvent.id > event_id, LabelEvent.project_id == project_id
    )
    wanted = select(Image.id).where(Image.id.in_(since), Image.status == "ok")
    return list(session.scalars(wanted.order_by(Image.id)))


def _events(session: Session, image_ids: Sequence[int]) -> dict[int, list[Any]]:
    """Return the label events of images, the oldest first."""
    columns = (
        LabelEvent.id,
        LabelEvent.image_id,
        LabelEvent.class_id,
        LabelEvent.annotator,
        LabelEvent.kind,
        LabelEvent.source,
        LabelEvent.target_id,
        LabelEvent.created_at,
    )
    found: dict[int, list[Any]] = {}
    for row in session.execute(
        select(*columns).where(LabelEvent.image_id.in_(image_ids)).order_by(LabelEvent.id)
    ):
        found.setdefault(row.image_id, []).append(row)
    return found


def _state(
    events: Sequence[Any], rule: ConsensusRule, meanings: Meanings, names: dict[int, str]
) -> LabelState:
    """Return what an image is called by these events alone, as `db.deciding` decides it."""
    newest = {e.target_id: e.kind for e in events if e.kind in TAKES_BACK}
    votes: dict[str, Vote] = {}
    for event in events:
        if event.kind in TAKES_BACK or newest.get(event.id) == "undo":
            continue
        votes[event.annotator] = vote_of(event, meanings)
    decision = decide(list(votes.values()), rule)
    return LabelState(decision.state, decision.class_id, names.get(decision.class_id or 0))
