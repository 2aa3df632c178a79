"""What a split is made from: images and what ties them together; and where new images go."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from cnsapp.domain.names import name_key
from cnsapp.domain.parts import PARTS, TEST, TRAIN
from cnsapp.domain.splits import BY_COLUMN, BY_GROUP
from cnsapp.domain.together import joined, says_whose, units_of
from cnsapp.errors import InvalidInputError, NotFoundError
from db.models import DataSplit, Image, ImageMeta, NearPair, SplitMember
from db.queries import chunks, insert_new
from db.session import Store

K = TypeVar("K", str, int)
AT_ONCE = 2000  # rows a transaction: about 15 ms
PAUSE = 0.002  # between two of them: SQLite's lock has no queue
STRICTEST = {part: rank for rank, part in enumerate(PARTS)}  # test wins over validation over train


@dataclass(frozen=True)
class Row:
    """An image in use as a split sees it; `group` with case and blanks folded."""

    id: int
    sha256: str
    name: str
    group: str | None
    class_id: int | None


@dataclass(frozen=True)
class Placed:
    """How many new images joined each part, and what to say about them."""

    counts: dict[str, int]
    said: list[str]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())


def read_rows(session: Session, project_id: int) -> list[Row]:
    """Return all images in use of a project, ascending."""
    rows = session.execute(
        select(
            Image.id, Image.sha256, Image.file_name, Image.group_key,
            Image.current_state, Image.current_class_id,
        )
        .where(Image.project_id == project_id, Image.status == "ok")
        .order_by(Image.id)
    )  # fmt: skip
    folded: dict[str, str] = {}  # “P07” and “p07 ” are one patient
    return [
        Row(i, sha, name, fold(group, folded), class_id if state == "label" else None)
        for i, sha, name, group, state, class_id in rows
    ]


def fold(group: str | None, known: dict[str, str]) -> str | None:
    """Return a group as it is compared; `known` saves the work for the next image of it."""
    if not group:
        return None
    if group not in known:
        known[group] = name_key(group)
    return known[group] or None


def picture_keys(
    session: Session, project_id: int, ids: Sequence[int], sha256s: Sequence[str]
) -> list[int | None]:
    """Return a key that images share which show the same: same bytes, or a near-duplicate pair.

    Pairs that somebody set apart do not count; those that nobody answered do, also by way of an
    image that was excluded since.

    Returns
    -------
    (N,) numbers above 0, None for an image that looks like no other.
    """
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def tie(a: int, b: int) -> None:
        a, b = sorted((root(a), root(b)))
        parent[b] = a

    first: dict[str, int] = {}
    for image_id, sha256 in zip(ids, sha256s, strict=True):
        if (other := first.setdefault(sha256, image_id)) != image_id:
            tie(other, image_id)
    pairs = session.execute(
        select(NearPair.image_a, NearPair.image_b).where(
            NearPair.project_id == project_id, NearPair.answer != "apart"
        )
    )
    for a, b in pairs:
        tie(a, b)
    keys = [root(i) if i in parent else None for i in ids]
    n: dict[int, int] = {}
    for key in keys:
        if key is not None:
            n[key] = n.get(key, 0) + 1
    return [key if key is not None and n[key] > 1 else None for key in keys]


def read_column(session: Session, project_id: int, column: str) -> dict[int, str]:
    """Return the value of each image in a column of the project's metadata.

    Raises
    ------
    InvalidInputError
        There is no such column; the sentence names those that there are.
    """
    wanted = name_key(column)
    names = session.scalars(
        select(ImageMeta.key).where(ImageMeta.project_id == project_id).distinct()
    ).all()
    name = next((name for name in sorted(names) if name_key(name) == wanted), None)
    if name is None:
        known = f"Columns are: {', '.join(sorted(names))}." if names else (
            "This project has no columns yet: bring in a table under Images, or with the command "
            "`metadata`."
        )  # fmt: skip
        raise InvalidInputError(
            f"There is no column “{column}” in the metadata of this project."
            if column
            else "No column was named.",
            "By column, every value of it (a batch, a scanner) is held out in turn.",
            known,
        )
    rows = session.execute(
        select(ImageMeta.image_id, ImageMeta.value).where(
            ImageMeta.project_id == project_id, ImageMeta.key == name
        )
    )
    return dict(rows.all())


def count_unplaced(session: Session, split: DataSplit) -> int:
    """Return how many images in use have no part in a split yet."""
    return session.scalar(_unplaced(split, func.count())) or 0


def _unplaced(
    split: DataSplit, what: ColumnElement[int] | InstrumentedAttribute[int]
) -> Select[int]:
    mine = (SplitMember.image_id == Image.id) & (SplitMember.split_id == split.id)
    return (
        select(what)
        .select_from(Image)
        .outerjoin(SplitMember, mine)
        .where(
            Image.project_id == split.project_id,
            Image.status == "ok",
            SplitMember.image_id.is_(None),
        )
    )


def get_row(session: Session, split_id: int, project_id: int | None = None) -> DataSplit:
    """Return the row of a split; raise NotFoundError when there is none (in that project)."""
    row = session.get(DataSplit, split_id)
    if row is None or project_id not in (None, row.project_id):
        where = " in this project" if project_id is not None else ""
        raise NotFoundError(
            f"There is no split number {split_id}{where}.", "", "List them with `split list`."
        )
    return row


def active_row(session: Session, project_id: int) -> DataSplit | None:
    """Return the row of the split that training follows, or None."""
    return session.scalars(
        select(DataSplit)
        .where(DataSplit.project_id == project_id, DataSplit.active.is_(True))
        .order_by(DataSplit.id.desc())
        .limit(1)
    ).first()


def assign_new(store: Store, project_id: int) -> Placed:
    """Give images that came after the active split a part in it; return how many went where.

    An image goes to its group's side, one that shows the same as a member to that one's side, any
    other to train. The test set grows by what belongs to its groups, never by hand.
    """
    with store.reading() as session:
        split = active_row(session, project_id)
        new = set(session.scalars(_unplaced(split, Image.id)).all()) if split else set()
        if split is None or not new:
            return Placed({}, [])
        rows = read_rows(session, project_id)
        pictures = picture_keys(session, project_id, [r.id for r in rows], [r.sha256 for r in rows])
        split_id, parts = split.id, parts_of(session, split.id)
        whole = split.scheme in (BY_GROUP, BY_COLUMN)
    groups = [r.group if whole or not says_whose(r.group) else None for r in rows]
    placed = _sides(rows, groups, pictures, parts, new)
    write_members(store, split_id, placed)
    counts = {part: sum(p == part for p in placed.values()) for part in PARTS}
    said = []
    if counts[TEST]:
        n = counts[TEST]
        said.append(
            f"{n:,} new image{'s' if n != 1 else ''} joined the locked test set, since "
            f"{'they belong' if n != 1 else 'it belongs'} to a group or show the same as an image "
            "there."
        )
    return Placed(counts, said)


def parts_of(session: Session, split_id: int) -> dict[int, str]:
    """Return the part of each member of a split by image."""
    rows = session.execute(
        select(SplitMember.image_id, SplitMember.part).where(SplitMember.split_id == split_id)
    )
    return dict(rows.all())


def _sides(
    rows: Sequence[Row],
    groups: Sequence[str | None],
    pictures: Sequence[int | None],
    parts: Mapping[int, str],
    new: set[int],
) -> dict[int, str]:
    """Return the part of each new image: that of its group, else of its twin, else train."""
    of_group: dict[str, str] = {}
    of_picture: dict[int, str] = {}
    for row, group, picture in zip(rows, groups, pictures, strict=True):
        if (part := parts.get(row.id)) is not None:
            _keep_strictest(of_group, group, part)
            _keep_strictest(of_picture, picture, part)
    placed = {row.id: TRAIN for row in rows if row.id in new}
    waiting = []
    for place, (row, group) in enumerate(zip(rows, groups, strict=True)):
        if row.id in new and group in of_group:
            placed[row.id] = of_group[group]
        elif row.id in new:
            waiting.append(place)
    # groups that are new as a whole: one twin in the test set takes the whole group there
    units = joined(units_of([groups[k] for k in waiting]), [pictures[k] for k in waiting])
    of_unit: dict[int, str] = {}
    for unit, place in zip(units.tolist(), waiting, strict=True):
        if (part := of_picture.get(pictures[place] or 0)) is not None:
            _keep_strictest(of_unit, unit, part)
    return placed | {
        rows[place].id: of_unit[unit]
        for unit, place in zip(units.tolist(), waiting, strict=True)
        if unit in of_unit
    }


def _keep_strictest(found: dict[K, str], key: K | None, part: str) -> None:
    if key is not None and STRICTEST[part] > STRICTEST.get(found.get(key, ""), -1):
        found[key] = part


def write_members(
    store: Store, split_id: int, parts: Mapping[int, str], pinned: frozenset[int] = frozenset()
) -> None:
    """Store the parts of images in short transactions; those that have one keep it."""
    for some in chunks(sorted(parts), AT_ONCE):
        with store.writing() as session:
            insert_new(
                session,
                SplitMember,
                [
                    {"split_id": split_id, "image_id": i, "part": parts[i], "pinned": i in pinned}
                    for i in some
                ],
                ["split_id", "image_id"],
            )
        time.sleep(PAUSE)
