"""Leases: an image that somebody has been handed is nobody else's for some minutes.

One statement decides: a lease is taken where there is none, where it has run out, or where it is
one's own already (then it is renewed). So two people are never handed one image, and what a crashed
browser held comes back by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from db.models import Lease
from db.queries import chunks
from db.types import utc_now

LEASE_SECONDS = 300.0  # unless CNS_LEASE_SECONDS says otherwise


def take(
    session: Session,
    *,
    project_id: int,
    holder: str,
    image_ids: Sequence[int],
    seconds: float = LEASE_SECONDS,
    now: datetime | None = None,
) -> set[int]:
    """Lease what is free of these images, or leased by `holder` already; return what was got.

    Call it in a transaction of `Store.writing`. What is missing from the answer is somebody
    else's at this moment.
    """
    now = now or utc_now()
    until = now + timedelta(seconds=seconds)
    upsert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    got: set[int] = set()
    for part in chunks(sorted(set(image_ids))):  # two people lock them in the same order
        rows = [
            {"image_id": i, "project_id": project_id, "holder": holder, "until": until}
            for i in part
        ]
        statement = upsert(Lease).values(rows)
        mine_or_over = or_(Lease.until < now, Lease.holder == statement.excluded.holder)
        statement = statement.on_conflict_do_update(
            index_elements=["image_id"],
            set_={"holder": statement.excluded.holder, "until": statement.excluded.until},
            where=mine_or_over,
        )
        got.update(session.scalars(statement.returning(Lease.image_id)))
    return got


def hand_over(session: Session, *, project_id: int, before: str, holder: str) -> None:
    """Give a holder what another one held: a page that was loaded again goes on with its images."""
    mine = select(Lease).where(Lease.project_id == project_id, Lease.holder == before)
    for lease in session.scalars(mine):
        lease.holder = holder


def release(
    session: Session,
    *,
    project_id: int,
    holder: str,
    image_ids: Iterable[int] | None = None,
) -> int:
    """Give images back, or all that `holder` has; return how many those were.

    Leases of other people stay, whatever images are named.
    """
    mine = delete(Lease).where(Lease.project_id == project_id, Lease.holder == holder)
    if image_ids is None:
        return len(session.scalars(mine.returning(Lease.image_id)).all())
    n = 0
    for part in chunks(sorted(set(image_ids))):
        some = mine.where(Lease.image_id.in_(part)).returning(Lease.image_id)
        n += len(session.scalars(some).all())
    return n


def forget_old(session: Session, *, project_id: int, now: datetime | None = None) -> None:
    """Remove leases that have run out, so that the table stays as small as the people are few."""
    over = Lease.until < (now or utc_now())
    session.execute(delete(Lease).where(Lease.project_id == project_id, over))


def held_by_others(
    session: Session, *, project_id: int, holder: str, now: datetime | None = None
) -> set[int]:
    """Return the images that other holders have just now."""
    theirs = select(Lease.image_id).where(
        Lease.project_id == project_id,
        Lease.until >= (now or utc_now()),
        Lease.holder != holder,
    )
    return set(session.scalars(theirs))


def count_holders(
    session: Session, *, project_id: int, besides: str, now: datetime | None = None
) -> int:
    """Return how many holders there are beside one."""
    theirs = select(func.count(Lease.holder.distinct())).where(
        Lease.project_id == project_id,
        Lease.until >= (now or utc_now()),
        Lease.holder != besides,
    )
    return session.scalar(theirs) or 0
