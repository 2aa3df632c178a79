"""Looks at a locked test set: each is noted, since each makes its score a little less worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from cnsapp.domain.parts import TEST
from cnsapp.errors import NotFoundError
from db.models import DataSplit, Model, Prediction, SplitMember, SplitUse
from db.session import Store
from db.types import utc_now

ONE_LOOK = timedelta(hours=1)  # a page that is drawn again, or opened again soon, is one look


@dataclass(frozen=True)
class UseView:
    """A look at test images: who, when, at which model, why.

    `of_this_split` is false for a look by way of another split whose test images overlap.
    """

    id: int
    split_id: int
    split_name: str
    of_this_split: bool
    model_id: int | None
    model_name: str
    job_id: int | None
    who: str
    purpose: str
    at: datetime


def note_use(
    session: Session,
    *,
    split_id: int,
    model_id: int | None = None,
    job_id: int | None = None,
    who: str = "",
    purpose: str = "",
) -> int:
    """Note a look at the test set of a split; return how many there were, this one included.

    A job that was killed and goes on looks once: the same job, model and purpose are one look.
    """
    same = select(SplitUse.id).where(
        SplitUse.split_id == split_id, SplitUse.job_id == job_id, SplitUse.purpose == purpose
    )
    if model_id is not None:
        same = same.where(SplitUse.model_id == model_id)
    if job_id is None or session.scalar(same.limit(1)) is None:
        session.add(
            SplitUse(
                split_id=split_id, model_id=model_id, job_id=job_id, who=who[:200],
                purpose=purpose[:200],
            )
        )  # fmt: skip
        session.flush()
    return n_uses(session, split_id)


def look(store: Store, *, split_id: int, model_id: int, who: str, purpose: str) -> int:
    """Note that somebody looks at a model's test figures on a screen; return how many looks.

    The same person at the same model within an hour looks once, however often a page is drawn.
    """
    recent = (
        SplitUse.split_id == split_id,
        SplitUse.model_id == model_id,
        SplitUse.who == who[:200],
        SplitUse.purpose == purpose[:200],
        SplitUse.created_at > utc_now() - ONE_LOOK,
    )
    with store.reading() as session:
        if session.scalar(select(SplitUse.id).where(*recent).limit(1)) is not None:
            return n_uses(session, split_id)
    with store.writing() as session:
        return note_use(session, split_id=split_id, model_id=model_id, who=who, purpose=purpose)


def has_looked(store: Store, *, model_id: int, who: str) -> bool:
    """Say whether a look of this person at a model's test answers on a screen was noted."""
    mine = (SplitUse.model_id == model_id, SplitUse.who == who[:200], SplitUse.job_id.is_(None))
    with store.reading() as session:
        return session.scalar(select(SplitUse.id).where(*mine).limit(1)) is not None


def n_uses(session: Session, split_id: int) -> int:
    """Return how often the test images of a split were looked at.

    Looks by way of other splits of the project count where their test images overlap: an image
    that was looked at is no less known because the split has a new name.
    """
    ids = [split_id, *overlapping(session, split_id)]
    return (
        session.scalar(select(func.count()).select_from(SplitUse).where(SplitUse.split_id.in_(ids)))
        or 0
    )


def count_uses(store: Store, *, split_id: int) -> int:
    """Return how often the test images of a split were looked at; see `n_uses`."""
    with store.reading() as session:
        return n_uses(session, split_id)


def looks_so_far(store: Store, split_ids: Iterable[int | None]) -> tuple[dict[int, int], list[str]]:
    """Return how often the test images of splits were looked at, and that in sentences.

    For whoever shows test figures, once the look is noted.
    """
    counts = {i: count_uses(store, split_id=i) for i in sorted({i for i in split_ids if i})}
    said = [
        f"The locked test set was looked at {'once' if n == 1 else f'{n:,} times'}, this look "
        "included: say so beside its score."
        for n in dict.fromkeys(counts.values())
    ]
    return counts, said


def uses(store: Store, *, split_id: int, limit: int = 200) -> list[UseView]:
    """Return the looks at a split's test images, the newest first."""
    with store.reading() as session:
        ids = [split_id, *overlapping(session, split_id)]
        rows = session.execute(
            select(SplitUse, DataSplit.name, Model.name, Model.id)
            .join(DataSplit, DataSplit.id == SplitUse.split_id)
            .outerjoin(Model, _model_of_use())
            .where(SplitUse.split_id.in_(ids))
            .order_by(SplitUse.id.desc())
            .limit(limit)
        )
        return [
            UseView(
                use.id, use.split_id, split_name, use.split_id == split_id, model_id,
                model_name or "", use.job_id, use.who, use.purpose, use.created_at,
            )
            for use, split_name, model_name, model_id in rows
        ]  # fmt: skip


def _model_of_use() -> ColumnElement[bool]:
    """Return the condition for the model of a look; a run notes its look before it has one."""
    by_run = and_(
        SplitUse.model_id.is_(None), Model.job_id == SplitUse.job_id, Model.ready.is_(True)
    )
    return or_(Model.id == SplitUse.model_id, by_run)


def models_that_learnt(session: Session, split_id: int) -> list[int]:
    """Return the models that had images of a split's test set to learn from or to be chosen by.

    They were trained before the split, by another one, or by none: they have no test score, but
    whoever set dials by their figures has used these images.
    """
    judged = exists(
        select(Prediction.id)
        .join(SplitMember, SplitMember.image_id == Prediction.image_id)
        .where(
            Prediction.model_id == Model.id,
            Prediction.part != TEST,
            SplitMember.split_id == split_id,
            SplitMember.part == TEST,
        )
    )
    project_id = select(DataSplit.project_id).where(DataSplit.id == split_id).scalar_subquery()
    mine = (Model.project_id == project_id, Model.ready.is_(True))
    others = or_(Model.split_id.is_(None), Model.split_id != split_id)
    return list(session.scalars(select(Model.id).where(*mine, others, judged).order_by(Model.id)))


def about_learnt(session: Session, split_id: int) -> list[str]:
    """Say which models know images of a test set, in a sentence; none where none does."""
    n = len(models_that_learnt(session, split_id))
    if not n:
        return []
    who, they = (f"{n:,} models", "They are") if n > 1 else ("1 model", "It is")
    return [
        f"{who} learnt from images of this test set, being trained before the split or by another. "
        f"{they} not scored on it; settings that were chosen by such figures know these images."
    ]


def overlapping(session: Session, split_id: int) -> Sequence[int]:
    """Return the other splits of the project that were looked at and share test images."""
    project_id = session.scalar(select(DataSplit.project_id).where(DataSplit.id == split_id))
    if project_id is None:
        raise NotFoundError(f"There is no split number {split_id}.", "", "List them: `split list`.")
    mine, theirs = aliased(SplitMember), aliased(SplitMember)
    shared = exists(
        select(mine.image_id)
        .join(theirs, theirs.image_id == mine.image_id)
        .where(
            mine.split_id == split_id,
            mine.part == TEST,
            theirs.split_id == DataSplit.id,
            theirs.part == TEST,
        )
    )
    looked_at = exists(select(SplitUse.id).where(SplitUse.split_id == DataSplit.id))
    return session.scalars(
        select(DataSplit.id).where(
            DataSplit.project_id == project_id, DataSplit.id != split_id, looked_at, shared
        )
    ).all()
