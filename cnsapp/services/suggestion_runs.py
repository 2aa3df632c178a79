"""When a project's suggestions were made, how good they are, and when they are made again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.jobs.states import ACTIVE
from cnsapp.services.jobs import add_job
from cnsapp.services.label_settings import read_settings
from db.models import Job, LabelEvent, SuggestionRun
from db.queries import read_tally
from db.session import Store

log = logging.getLogger(__name__)
Ask = Callable[..., int | None]
KIND = "suggest"
UNFINISHED = -1.0  # seconds of a run whose guesses are still being written: no reader sees it
LEAST = 2  # labels that two classes must have before anything can be suggested


@dataclass(frozen=True)
class Run:
    """The newest refresh of a project's suggestions.

    `figures` as `cnsapp.domain.suggestions.figures_of` makes them, from images that were held out
    and whose label nobody accepted from a suggestion.
    """

    id: int
    at: datetime
    n_labels: int
    n_images: int
    newest_event: int
    class_ids: list[int]
    figures: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Status:
    """Where a project's suggestions stand."""

    run: Run | None  # None: none were made yet
    n_since: int  # label events since, counted up to some hundreds
    job_id: int | None  # the refresh that waits or runs
    lacking: str  # why none can be made, in words; empty when they can


def newest_run(store: Store, *, project_id: int) -> Run | None:
    """Return the newest refresh that was finished, or None."""
    with store.reading() as session:
        return newest_in(session, project_id)


def runs(store: Store, *, project_id: int, limit: int = 500) -> list[Run]:
    """Return the finished refreshes, the oldest first: the learning curve."""
    with store.reading() as session:
        rows = session.scalars(_finished(project_id).limit(limit)).all()
        return [_run(row) for row in reversed(rows)]


def status(store: Store, *, project_id: int) -> Status:
    """Return where the suggestions of a project stand; costs little."""
    with store.reading() as session:
        run = newest_in(session, project_id)
        since = _events_since(session, project_id, run.newest_event if run else 0, 500)
        return Status(run, since, _active(session, project_id), _lacking(session, project_id))


def refresh(store: Store, *, project_id: int, requested_by: str = "") -> int:
    """Ask for new suggestions; return the job, also when one waits already.

    Raises
    ------
    InvalidInputError
        There are too few labels; the sentence says how many are missing.
    """
    with store.writing() as session:
        if lacking := _lacking(session, project_id):
            raise InvalidInputError(
                lacking, "A model must have seen examples of two classes.", "Label a few more."
            )
        return add_job(session, kind=KIND, project_id=project_id, requested_by=requested_by)


def _behind(ask: Ask) -> Ask:
    """Have a wish that fails noted in the log: what it follows is stored, and the next one asks."""

    @wraps(ask)
    def asked(*arguments: Any, **named: Any) -> int | None:
        try:
            return ask(*arguments, **named)
        except (CnsError, SQLAlchemyError):
            log.warning("new suggestions could not be asked for", exc_info=True)
            return None

    return asked


@_behind
def refresh_if_due(store: Store, *, project_id: int, but: int | None = None) -> int | None:
    """Ask for new suggestions when enough was labelled since the last; return the job, or None.

    Called behind everything that labels; a few short reads when nothing is due. `but` is a refresh
    that is just ending, and does not count as one under way.
    """
    every = read_settings(store, project_id=project_id).suggest_every
    if not every:
        return None
    with store.reading() as session:
        if not _is_due(session, project_id, every, but):
            return None
    with store.writing() as session:  # looked at again: two answers may come here at once
        if not _is_due(session, project_id, every, but):
            return None
        return add_job(session, kind=KIND, project_id=project_id)


@_behind
def refresh_soon(store: Store, *, project_id: int) -> int | None:
    """Ask for suggestions after features or classes changed; return the job, or None."""
    if not read_settings(store, project_id=project_id).suggest_every:
        return None
    with store.writing() as session:
        if _lacking(session, project_id) or not _has_features(session, project_id):
            return None
        return add_job(session, kind=KIND, project_id=project_id)


def _finished(project_id: int) -> Any:
    return (
        select(SuggestionRun)
        .where(SuggestionRun.project_id == project_id, SuggestionRun.seconds >= 0)
        .order_by(SuggestionRun.id.desc())
    )


def newest_in(session: Session, project_id: int) -> Run | None:
    """Return the newest refresh that was finished, in the caller's look at the database."""
    row = session.scalars(_finished(project_id).limit(1)).first()
    return None if row is None else _run(row)


def _run(row: SuggestionRun) -> Run:
    return Run(
        row.id, row.created_at, row.n_labels, row.n_images, row.newest_event,
        [int(c) for c in row.class_ids], row.figures, row.seconds,
    )  # fmt: skip


def _active(session: Session, project_id: int) -> int | None:
    return session.scalar(
        select(func.max(Job.id)).where(
            Job.project_id == project_id, Job.kind == KIND, Job.state.in_(ACTIVE)
        )
    )


def _events_since(
    session: Session, project_id: int, event_id: int, most: int, after: datetime | None = None
) -> int:
    some = select(LabelEvent.id).where(
        LabelEvent.id > event_id, LabelEvent.project_id == project_id
    )
    if after is not None:
        some = some.where(LabelEvent.created_at > after)
    return session.scalar(select(func.count()).select_from(some.limit(most).subquery())) or 0


def _lacking(session: Session, project_id: int) -> str:
    """Return what is missing for any suggestion, in words; empty when nothing is."""
    tally = read_tally(session, project_id)
    per_class = [n for key, n in tally.items() if key.startswith("class:") and n >= LEAST]
    if len(per_class) >= 2:
        return ""
    return (
        f"Suggestions need {LEAST} labels in each of two classes; "
        f"{len(per_class) or 'no'} class has so many."
    )


def _asked(session: Session, project_id: int) -> tuple[int, datetime | None]:
    """Return the newest label event that a refresh knew, and when the last one failed.

    One that could suggest nothing counts too. One that failed or was stopped counts from when it
    was asked for: the next one waits for new labels, or every label would ask again.
    """
    last = session.scalars(
        select(Job)
        .where(Job.project_id == project_id, Job.kind == KIND, Job.state.not_in(ACTIVE))
        .order_by(Job.id.desc())
        .limit(1)
    ).first()
    run = newest_in(session, project_id)
    known = run.newest_event if run else 0
    if last is None:
        return known, None
    if last.state != "done":
        return known, last.created_at
    return max(known, int(last.result.get("newest_event") or 0)), None


def _is_due(session: Session, project_id: int, every: int, but: int | None) -> bool:
    newest, after = _asked(session, project_id)
    since = _events_since(session, project_id, newest, every, after)
    if since < every or _lacking(session, project_id):
        return False
    return _active(session, project_id) in (None, but) and _has_features(session, project_id)


def _has_features(session: Session, project_id: int) -> bool:
    """Return whether features were computed: before that, a refresh would find nothing."""
    done = select(Job.id).where(
        Job.project_id == project_id,
        Job.kind.in_(("features", "train")),
        Job.state.in_(("running", "done")),  # running: it is about to end
    )
    return session.scalar(done.limit(1)) is not None
