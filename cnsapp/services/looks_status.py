"""Whether the index of looks fits the project as it is now, and when it is made again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.jobs.states import ACTIVE
from cnsapp.services.jobs import add_job
from cnsapp.services.looks_files import LooksIndex, find_index, has_unreadable_index, sign_of
from db.models import Image, ImageEvent, Job
from db.queries import read_tally
from db.session import Store

OFTEN = timedelta(minutes=10)  # between two indexes that are made by themselves
MUCH = 0.05  # share of images that changed which is worth a new one at once


@dataclass(frozen=True)
class Status:
    """How well the index fits the project as it is now."""

    version: str | None  # None: there is no index yet
    made_at: datetime | None
    n: int  # images in it
    n_missing: int  # images of the project that are not in it yet, or look otherwise since
    n_unread: int  # images that could not be read
    map_method: str  # umap | pca
    job_id: int | None  # the job that makes a new one
    is_unreadable: bool = False  # there is one, but damaged or of an older form

    @property
    def is_stale(self) -> bool:
        """Whether a new index would know more."""
        return self.version is None or self.n_missing > 0


def status(store: Store, *, project_id: int) -> Status:
    """Return how well the index fits the project; costs little when nothing changed."""
    index = find_index(store, project_id=project_id)
    with store.reading() as session:
        job_id = _active(session, project_id, ("looks",))
        if index is None:
            n = read_tally(session, project_id).get("images", 0)
            broken = has_unreadable_index(store, project_id=project_id)
            return Status(None, None, 0, n, 0, "umap", job_id, broken)
        later = _features_since(session, project_id, index.made_at)
        missing = _missing(session, store, project_id, index, later)
    n_unread = 0 if later else len(index.unread)
    return Status(
        index.version, index.made_at, len(index.ids), missing, n_unread,
        index.map_method, job_id,
    )  # fmt: skip


_counted: dict[tuple[str, int], tuple[tuple[Any, ...], int]] = {}


def _missing(
    session: Session, store: Store, project_id: int, index: LooksIndex, later: bool
) -> int:
    """Count the images that the index lacks; anew only when images came, went or were read anew."""
    of_project = Image.project_id == project_id
    sign = (
        index.version,
        later,
        read_tally(session, project_id).get("images", 0),
        session.scalar(select(func.max(Image.id)).where(of_project, Image.status == "ok")),
        session.scalar(select(func.max(ImageEvent.id)).where(ImageEvent.project_id == project_id)),
        session.scalar(
            select(func.count()).where(Job.project_id == project_id, Job.kind == "reread",
                                       Job.state.not_in(ACTIVE))
        ),
    )  # fmt: skip
    key = (str(store.root), project_id)
    kept = _counted.get(key)
    if kept is not None and kept[0] == sign:
        return kept[1]
    rows = session.execute(
        select(Image.id, Image.sha256, Image.seen)
        .where(of_project, Image.status == "ok")
        .order_by(Image.id)
    )
    table = np.array([(i, sign_of(sha, seen)) for i, sha, seen in rows], np.int64).reshape(-1, 2)
    # what had no features then may have got them since
    known = np.zeros(len(table), bool) if later else np.isin(table[:, 0], index.unread)
    if len(index.ids):
        at = np.minimum(np.searchsorted(index.ids, table[:, 0]), len(index.ids) - 1)
        known |= (index.ids[at] == table[:, 0]) & (index.signs[at] == table[:, 1])
    _counted[key] = (sign, int((~known).sum()))
    return _counted[key][1]


def _features_since(session: Session, project_id: int, moment: datetime) -> bool:
    """Return whether features were computed after a moment, or are just now."""
    return (
        session.scalar(
            select(Job.id)
            .where(
                Job.project_id == project_id,
                Job.kind == "features",
                Job.state.in_(ACTIVE) | (Job.finished_at > moment),
            )
            .limit(1)
        )
        is not None
    )


def queue_looks(store: Store, *, project_id: int, requested_by: str = "") -> int:
    """Ask for a new index; return the job that makes it, also when one waits already."""
    with store.writing() as session:
        waiting = _active(session, project_id, ("looks",), ("queued",))
        return waiting or add_job(
            session, kind="looks", project_id=project_id, requested_by=requested_by
        )


def follow_features(store: Store, *, project_id: int) -> int | None:
    """Ask for a new index behind new features, where that is worth it; return the job or None.

    A watched folder brings images every few seconds: the index is made again when a twentieth of
    the images is not in it, or when the last one is ten minutes old; never while more is on its
    way. What is left out until then is counted on the screen, with a button.
    """
    now = status(store, project_id=project_id)
    if now.job_id is not None or not now.is_stale:
        return None
    with store.reading() as session:
        if _active(session, project_id, ("import", "reread", "features"), ("queued",)):
            return None
    is_fresh = now.made_at is not None and datetime.now(UTC) - now.made_at < OFTEN
    if is_fresh and now.n_missing < max(1, MUCH * now.n):
        return None
    return queue_looks(store, project_id=project_id)


def _active(
    session: Session, project_id: int, kinds: Collection[str], states: Collection[str] = ACTIVE
) -> int | None:
    return session.scalar(
        select(Job.id)
        .where(Job.project_id == project_id, Job.kind.in_(kinds), Job.state.in_(states))
        .order_by(Job.id.desc())
        .limit(1)
    )
