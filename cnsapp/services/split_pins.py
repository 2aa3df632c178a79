"""Pins: images that stay in their part of a split, also when a new one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cnsapp.domain.names import name_key
from cnsapp.domain.parts import PARTS, TEST
from cnsapp.domain.splits import BY_COLUMN, BY_GROUP
from cnsapp.domain.together import joined, joined_if_sound, says_whose, units_of
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.looks import find_image
from cnsapp.services.split_rows import get_row, parts_of, picture_keys, read_column, read_rows
from db.models import DataSplit, Image, SplitMember
from db.queries import chunks
from db.session import Store


@dataclass(frozen=True)
class PinChange:
    """How many images were pinned, and how many changed sides with them."""

    n_pinned: int
    n_moved: int


def pin_images(
    store: Store, *, split_id: int, image_ids: Sequence[int], part: str | None = None
) -> PinChange:
    """Have images, and what belongs to them, stay in their part when a new split is made.

    With `part` they are moved first, with their group and near-duplicates: between train and
    validation only.

    Raises
    ------
    InvalidInputError
        An image would enter or leave the locked test set, or has no part in this split.
    """
    if part is not None and part not in PARTS:
        raise InvalidInputError(f"There is no part “{part}”.", "", f"Use {', '.join(PARTS)}.")
    with store.writing() as session:
        split = get_row(session, split_id)
        parts = parts_of(session, split_id)
        _check_members(session, image_ids, parts)
        moved: list[int] = []
        if part is not None:
            _refuse_test(session, image_ids, parts, part)
            tied = _tied(session, split, image_ids)
            moved = [i for i in tied if parts.get(i) not in (None, TEST, part)]
        for some in chunks(moved):
            session.execute(_members(split_id, some).values(part=part))
        for some in chunks(sorted(set(image_ids))):
            session.execute(_members(split_id, some).values(pinned=True))
    return PinChange(len(set(image_ids)), len(moved))


def unpin_images(store: Store, *, split_id: int, image_ids: Sequence[int]) -> int:
    """Remove pins; the images stay where they are in this split. Return how many were pinned."""
    n = 0
    with store.writing() as session:
        get_row(session, split_id)
        for some in chunks(sorted(set(image_ids))):
            pinned = SplitMember.pinned.is_(True)
            done = session.execute(
                _members(split_id, some)
                .where(pinned)
                .values(pinned=False)
                .returning(SplitMember.image_id)
            )
            n += len(done.all())
    return n


def list_pinned(
    store: Store, *, split_id: int, limit: int = 200
) -> list[tuple[int, str, str | None, str]]:
    """Return the pinned images of a split: number, name, group, part."""
    with store.reading() as session:
        rows = session.execute(
            select(Image.id, Image.file_name, Image.group_key, SplitMember.part)
            .join(SplitMember, SplitMember.image_id == Image.id)
            .where(SplitMember.split_id == split_id, SplitMember.pinned.is_(True))
            .order_by(Image.id)
            .limit(limit)
        )
        return [(i, name, group, part) for i, name, group, part in rows]


def find_members(
    store: Store, *, project_id: int, names: Sequence[str], as_groups: bool = False
) -> list[int]:
    """Return the images that are called so: by name or number, or all of these groups.

    Raises
    ------
    NotFoundError
        A name is that of no image or group of the project.
    """
    found: list[int] = []
    if not as_groups:
        for name in names:
            image_id = find_image(store, project_id=project_id, name=name)
            if image_id is None:
                raise NotFoundError(
                    f"“{name}” is no image of this project.", "", "Name an image by its file name."
                )
            found.append(image_id)
        return found
    with store.reading() as session:
        rows = read_rows(session, project_id)
    for name in names:
        same = [row.id for row in rows if row.group == name_key(name)]
        if not same:
            raise NotFoundError(
                f"“{name}” is no group of this project.", "", "Name a group as the images show it."
            )
        found += same
    return found


def _members(split_id: int, image_ids: Sequence[int]) -> Any:
    return update(SplitMember).where(
        SplitMember.split_id == split_id, SplitMember.image_id.in_(image_ids)
    )


def _check_members(session: Session, image_ids: Sequence[int], parts: Mapping[int, str]) -> None:
    outside = next((i for i in image_ids if i not in parts), None)
    if outside is not None:
        name = session.scalar(select(Image.file_name).where(Image.id == outside))
        raise InvalidInputError(
            f"{name or f'Image {outside}'} has no part in this split.",
            "It is excluded, or came after the split.",
            "New images get their part at the next training.",
        )


def _refuse_test(
    session: Session, image_ids: Sequence[int], parts: Mapping[int, str], part: str
) -> None:
    caught = next((i for i in image_ids if (parts[i] == TEST) != (part == TEST)), None)
    if caught is None:
        return
    name = session.scalar(select(Image.file_name).where(Image.id == caught))
    raise InvalidInputError(
        f"{name} cannot {'enter' if part == TEST else 'leave'} the test set: it was locked when "
        "the split was made.",
        "A test set that is chosen by hand, or after a look at its images, proves nothing.",
        "Make a new split; looks at test images that both share keep counting.",
    )


def _tied(session: Session, split: DataSplit, image_ids: Sequence[int]) -> list[int]:
    """Return the images that go where these go: their groups and near-duplicates."""
    rows = read_rows(session, split.project_id)
    whole = split.scheme in (BY_GROUP, BY_COLUMN)
    groups = [r.group if whole or not says_whose(r.group) else None for r in rows]
    units = units_of(groups)
    if split.scheme == BY_COLUMN:
        values = read_column(session, split.project_id, str(split.settings.get("column", "")))
        units = joined(units, [values.get(row.id) for row in rows])
    keys = picture_keys(session, split.project_id, [r.id for r in rows], [r.sha256 for r in rows])
    units, _ = joined_if_sound(units, keys)
    wanted = set(image_ids)
    chosen = {u for u, row in zip(units.tolist(), rows, strict=True) if row.id in wanted}
    return [row.id for u, row in zip(units.tolist(), rows, strict=True) if u in chosen]
