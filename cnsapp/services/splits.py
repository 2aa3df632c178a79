"""Splits: divide a project's images once, lock the test set, follow one split in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from cnsapp.domain.labels import clean_annotator
from cnsapp.domain.names import clean_name
from cnsapp.domain.parts import (
    DEFAULT_SHARES,
    PARTS,
    TEST,
    TRAIN,
    VALIDATION,
    Division,
    check_shares,
    divide,
)
from cnsapp.domain.splits import BY_COLUMN, BY_GROUP, SCHEMES
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.split_counts import PartCounts, Ties, check_column, count_parts, count_ties
from cnsapp.services.split_pins import (
    PinChange,
    find_members,
    list_pinned,
    pin_images,
    unpin_images,
)
from cnsapp.services.split_rows import (
    Row,
    active_row,
    assign_new,
    count_unplaced,
    get_row,
    picture_keys,
    read_column,
    read_rows,
    write_members,
)
from cnsapp.services.split_uses import UseView, count_uses, look, n_uses, note_use, uses
from db.models import DataSplit, Image, Project, SplitMember
from db.session import Store

__all__ = [
    "DEFAULT_SHARES", "PARTS", "TEST", "TRAIN", "VALIDATION", "BriefSplit", "PartCounts",
    "PinChange", "SplitView", "Ties", "UseView", "activate", "active_split", "assign_new",
    "check_column", "count_ties", "count_uses", "create_split", "deactivate", "find_active",
    "find_members", "get_split", "list_brief", "list_pinned", "list_splits", "look", "n_uses",
    "note_use", "part_counts", "pin_images", "test_ids", "unpin_images", "uses",
]  # fmt: skip


@dataclass(frozen=True)
class SplitView:
    """A split as pages and commands show it.

    `n` counts members by part; `said` is what a reader of its scores must know; `n_uses` how often
    the test images were looked at; `unplaced` the images in use that came later and have no part
    yet (they get one at the next training).
    """

    id: int
    project_id: int
    name: str
    scheme: str
    seed: int
    shares: dict[str, float]
    column: str
    active: bool
    created_by: str
    created_at: datetime
    n: dict[str, int]
    n_pinned: int
    n_uses: int
    unplaced: int
    said: list[str] = field(default_factory=list)

    @property
    def grouped(self) -> bool:
        """Whether groups were kept whole."""
        return self.scheme in (BY_GROUP, BY_COLUMN)


@dataclass(frozen=True)
class BriefSplit:
    """A split as a list names it."""

    id: int
    name: str
    active: bool
    n_test: int
    n_uses: int


def create_split(
    store: Store,
    *,
    project_id: int,
    name: str = "",
    shares: Mapping[str, float] = DEFAULT_SHARES,
    seed: int = 0,
    scheme: str = "",
    column: str = "",
    who: str = "",
) -> SplitView:
    """Divide the images of a project, lock the test set, and let training follow this split.

    Parameters
    ----------
    shares
        Part of the images that `train`, `validation` and `test` are to hold; they add up to 1.
    scheme
        What is kept together: `by group`, `by file-name blocks`, `by column`, `random`; empty:
        groups if there are any, else blocks.
    column
        Of the metadata, for `by column`: whole values go to one part.

    Raises
    ------
    InvalidInputError
        No image, one group only, no such column, shares that do not add up, a scheme that the
        images do not allow, or an empty or overlong name.
    """
    wished, who = check_shares(shares), clean_annotator(who)
    if scheme not in ("", *SCHEMES):
        raise InvalidInputError(
            f"There is no way to divide images “{scheme}”.", "", f"Use {', '.join(SCHEMES)}."
        )
    if column and scheme != BY_COLUMN:
        raise InvalidInputError(
            f"The column “{column}” is only used by column.",
            "",
            "Choose `by column`, or no column.",
        )
    with store.reading() as session:
        if session.get(Project, project_id) is None:
            raise NotFoundError(f"There is no project number {project_id}.")
        title = _free_name(session, project_id, name)
        rows = read_rows(session, project_id)
        values = read_column(session, project_id, column) if scheme == BY_COLUMN else None
        pins = _pins(session, project_id)
        made = _divide(session, project_id, rows, wished, seed, scheme, values, pins)
    settings = {"shares": wished, "column": column, "said": made.warnings, "complete": False}
    with store.writing() as session:
        split = DataSplit(
            project_id=project_id, name=title, scheme=made.scheme, seed=seed, settings=settings,
            active=False, created_by=who,
        )  # fmt: skip
        session.add(split)
        session.flush()
    parts = {row.id: str(part) for row, part in zip(rows, made.parts, strict=True)}
    write_members(store, split.id, parts, frozenset(pins))
    with store.writing() as session:
        _activate(session, project_id, split.id)
        session.execute(
            update(DataSplit)
            .where(DataSplit.id == split.id)
            .values(settings=settings | {"complete": True})
        )
    assign_new(store, project_id)  # images that were imported meanwhile
    return get_split(store, split_id=split.id)


def _divide(
    session: Session,
    project_id: int,
    rows: Sequence[Row],
    shares: Mapping[str, float],
    seed: int,
    scheme: str,
    values: Mapping[int, str] | None,
    pins: Mapping[int, str],
) -> Division:
    classes = {c: k for k, c in enumerate(sorted({r.class_id for r in rows if r.class_id}))}
    return divide(
        np.array([classes.get(row.class_id or 0, -1) for row in rows], dtype=np.int64),
        [row.group for row in rows],
        [row.name for row in rows],
        shares=shares,
        seed=seed,
        scheme=scheme or None,
        column=None if values is None else [values.get(row.id) for row in rows],
        pictures=picture_keys(session, project_id, [r.id for r in rows], [r.sha256 for r in rows]),
        pinned=[pins.get(row.id) for row in rows],
    )


def list_splits(store: Store, *, project_id: int) -> list[SplitView]:
    """Return the splits of a project, the newest first."""
    with store.reading() as session:
        rows = session.scalars(
            select(DataSplit)
            .where(DataSplit.project_id == project_id)
            .order_by(DataSplit.id.desc())
        ).all()
        return [_view(session, row) for row in rows if row.settings.get("complete", True)]


def list_brief(store: Store, *, project_id: int) -> list[BriefSplit]:
    """Return the splits of a project, the newest first, as a list names them: in milliseconds."""
    with store.reading() as session:
        rows = session.scalars(
            select(DataSplit)
            .where(DataSplit.project_id == project_id)
            .order_by(DataSplit.id.desc())
        ).all()
        return [
            BriefSplit(row.id, row.name, row.active, _n_test(session, row.id),
                       n_uses(session, row.id))
            for row in rows if row.settings.get("complete", True)
        ]  # fmt: skip


def _n_test(session: Session, split_id: int) -> int:
    return (
        session.scalar(
            select(func.count()).where(SplitMember.split_id == split_id, SplitMember.part == TEST)
        )
        or 0
    )


def get_split(store: Store, *, split_id: int, project_id: int | None = None) -> SplitView:
    """Return one split; raise NotFoundError when there is none (in that project)."""
    with store.reading() as session:
        return _view(session, get_row(session, split_id, project_id))


def active_split(store: Store, *, project_id: int) -> SplitView | None:
    """Return the split that training follows, or None: folds only."""
    with store.reading() as session:
        row = active_row(session, project_id)
        return None if row is None else _view(session, row)


def find_active(session: Session, project_id: int) -> int | None:
    """Return the number of the split that training follows, or None."""
    row = active_row(session, project_id)
    return None if row is None else row.id


def test_ids(session: Session, project_id: int) -> set[int]:
    """Return the images of the locked test set of the active split; empty without one."""
    split_id = find_active(session, project_id)
    if split_id is None:
        return set()
    return set(
        session.scalars(
            select(SplitMember.image_id).where(
                SplitMember.split_id == split_id, SplitMember.part == TEST
            )
        )
    )


def activate(store: Store, *, split_id: int) -> SplitView:
    """Let training follow a split; images that came since get a part in it."""
    with store.writing() as session:
        row = get_row(session, split_id)
        _activate(session, row.project_id, split_id)
    assign_new(store, row.project_id)
    return get_split(store, split_id=split_id)


def deactivate(store: Store, *, project_id: int) -> None:
    """Let training follow no split: every labelled image is learnt from, folds alone score."""
    with store.writing() as session:
        session.execute(
            update(DataSplit).where(DataSplit.project_id == project_id).values(active=False)
        )


def part_counts(store: Store, *, split_id: int) -> PartCounts:
    """Return how many images and groups of each class every part holds."""
    with store.reading() as session:
        return count_parts(session, get_row(session, split_id))


def _pins(session: Session, project_id: int) -> dict[int, str]:
    """Return the pins that a new split keeps: those of the active split, else of the newest."""
    row = (
        active_row(session, project_id)
        or session.scalars(
            select(DataSplit)
            .where(DataSplit.project_id == project_id)
            .order_by(DataSplit.id.desc())
            .limit(1)
        ).first()
    )
    if row is None:
        return {}
    found = session.execute(
        select(SplitMember.image_id, SplitMember.part)
        .join(Image, Image.id == SplitMember.image_id)
        .where(SplitMember.split_id == row.id, SplitMember.pinned.is_(True), Image.status == "ok")
    )
    return dict(found.all())


def _free_name(session: Session, project_id: int, name: str) -> str:
    shown = clean_name(name)
    if len(shown) > 200:
        raise InvalidInputError(
            "The name of the split is longer than 200 characters.", "", "Give it a shorter one."
        )
    taken = set(
        session.scalars(select(DataSplit.name).where(DataSplit.project_id == project_id)).all()
    )
    if shown and shown in taken:
        raise InvalidInputError(
            f"There is a split “{shown}” already.",
            "A split is never replaced.",
            "Name it otherwise.",
        )
    numbers = (f"Split {k}" for k in range(len(taken) + 1, 2 * len(taken) + 3))
    return shown or next(title for title in numbers if title not in taken)


def _activate(session: Session, project_id: int, split_id: int) -> None:
    session.execute(
        update(DataSplit)
        .where(DataSplit.project_id == project_id)
        .values(active=DataSplit.id == split_id)
    )


def _view(session: Session, row: DataSplit) -> SplitView:
    counted = session.execute(
        select(SplitMember.part, func.count())
        .where(SplitMember.split_id == row.id)
        .group_by(SplitMember.part)
    ).all()
    pinned = session.scalar(
        select(func.count()).where(SplitMember.split_id == row.id, SplitMember.pinned.is_(True))
    )
    settings = row.settings
    return SplitView(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        scheme=row.scheme,
        seed=row.seed,
        shares={part: float(settings.get("shares", {}).get(part, 0)) for part in PARTS},
        column=str(settings.get("column", "")),
        active=row.active,
        created_by=row.created_by,
        created_at=row.created_at,
        n=dict.fromkeys(PARTS, 0) | dict(counted),
        n_pinned=pinned or 0,
        n_uses=n_uses(session, row.id),
        unplaced=count_unplaced(session, row),
        said=[str(line) for line in settings.get("said", [])],
    )
