"""What a lab's tables say of images beside their labels: brought in, listed, shown as filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from cnsapp.domain.metadata import Value, meta_columns, read_values
from cnsapp.errors import InvalidInputError
from cnsapp.services.exclusion import in_turn, new_action, put_into_groups
from cnsapp.services.label_import import find_images
from cnsapp.services.tables import read_csv
from db.models import ImageMeta
from db.queries import chunks
from db.session import Store

MAX_KEYS = 100  # columns of a project: each is a filter, and more is a table put in by mistake
MANY_VALUES = 200  # values offered to choose from
AT_ONCE = 500  # values a transaction: somebody who labels meanwhile waits a few milliseconds


@dataclass(frozen=True)
class MetaReport:
    """What came of a table of metadata."""

    rows: int
    images: int  # images that were given values
    columns: tuple[str, ...]
    grouped: int  # images that were given a group
    unknown_files: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class MetaKey:
    """A column of metadata as the filters show it.

    `low` and `high` are its bounds where every value is a number; `values` its texts otherwise,
    at most 200.
    """

    name: str
    low: float | None
    high: float | None
    values: tuple[str, ...]


def put_values(
    session: Session, project_id: int, values: Mapping[int, Mapping[str, Value]]
) -> None:
    """Store values by image id and name; a later table replaces what an earlier one said."""
    rows = [
        {"image_id": image_id, "key": key, "project_id": project_id, "value": text, "number": n}
        for image_id, of_image in values.items()
        for key, (text, n) in of_image.items()
    ]
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    statement = insert(ImageMeta)
    statement = statement.on_conflict_do_update(
        index_elements=["image_id", "key"],
        set_={"value": statement.excluded.value, "number": statement.excluded.number},
    )
    for part in chunks(rows):
        session.connection().execute(statement, list(part))


def add_metadata(
    store: Store,
    *,
    project_id: int,
    csv: Path,
    group_from: str | None = None,
    who: str = "metadata",
) -> MetaReport:
    """Read a CSV with the columns `file` or `sha256` and any others, which become filters.

    Rows find their images as a table of labels does. Empty cells change nothing.

    Parameters
    ----------
    group_from
        A column that holds the group (patient, slide, animal); it replaces the groups of these
        images. None: a column `group`, where there is one.
    who
        By whom images are put into groups.

    Raises
    ------
    InvalidInputError
        The file cannot be read, lacks a column, or contradicts itself. Nothing is stored then.
    """
    head, rows = read_csv(csv)
    named_by = next((name for name in ("sha256", "file") if name in head), None)
    columns = meta_columns(head)
    group = (group_from or "group").strip().casefold()
    if named_by is None or not (columns or group in head):
        raise InvalidInputError(
            f"{csv.name} has the columns {', '.join(head) or 'none'}.",
            "A column “file” or “sha256” says which image, each further column becomes a filter.",
            "Name the columns in the first line, then try again.",
        )
    if group_from and group not in head:
        raise InvalidInputError(
            f"{csv.name} has no column “{group_from}” to take the group from; it has "
            f"{', '.join(head)}."
        )
    with store.reading() as session:
        _check_room(session, project_id, columns.values())
        found = find_images(session, project_id, named_by, [row[named_by] for row in rows])
    values: dict[int, dict[str, Value]] = {}
    groups: dict[int, str] = {}
    unknown: dict[str, None] = {}
    for row, of_row in zip(rows, read_values(rows, columns), strict=True):
        name = row[named_by]
        if name not in found:
            unknown[name] = None
        for image_id in found.get(name, ()):
            if values.setdefault(image_id, of_row) != of_row:
                raise InvalidInputError(
                    f"{csv.name} has two different rows for “{name}”.",
                    "One of them must be wrong.",
                    "Keep one of the two, then try again. Nothing was stored.",
                )
            if row.get(group):
                groups[image_id] = row[group][:400]
    details = {"action": new_action(), "table": csv.name}
    for part in in_turn(sorted(values), max(1, AT_ONCE // max(2, len(columns)))):
        with store.writing() as session:
            put_values(session, project_id, {image_id: values[image_id] for image_id in part})
            put_into_groups(
                session, project_id=project_id, groups={i: groups[i] for i in part if i in groups},
                who=who, reason=f"Column {group} of {csv.name}.", details=details,
            )  # fmt: skip
    return MetaReport(
        rows=len(rows),
        images=len(values),
        columns=tuple(columns.values()),
        grouped=len(groups),
        unknown_files=tuple(unknown),
    )


def list_names(store: Store, *, project_id: int) -> list[str]:
    """Return the names of the metadata of a project, in milliseconds at any size."""
    with store.reading() as session:
        return _names(session, project_id)


def list_keys(store: Store, *, project_id: int) -> list[MetaKey]:
    """Return the metadata of a project as filters show it."""
    with store.reading() as session:
        return [_key(session, project_id, name) for name in _names(session, project_id)]


def get_values(store: Store, *, image_id: int) -> list[tuple[str, str]]:
    """Return what is known of one image, by name."""
    with store.reading() as session:
        rows = session.execute(
            select(ImageMeta.key, ImageMeta.value)
            .where(ImageMeta.image_id == image_id)
            .order_by(ImageMeta.key)
        )
        return [(row.key, row.value) for row in rows]


def values_of(session: Session, image_ids: Sequence[int]) -> dict[int, dict[str, str]]:
    """Return the values of many images, by image id and name."""
    found: dict[int, dict[str, str]] = {}
    for part in chunks(list(image_ids)):
        for image_id, key, value in session.execute(
            select(ImageMeta.image_id, ImageMeta.key, ImageMeta.value).where(
                ImageMeta.image_id.in_(part)
            )
        ):
            found.setdefault(image_id, {})[key] = value
    return found


def _names(session: Session, project_id: int) -> list[str]:
    names: list[str] = []
    while len(names) < MAX_KEYS:  # one step through the index a name, however many rows each has
        query = select(func.min(ImageMeta.key)).where(ImageMeta.project_id == project_id)
        found = session.scalar(query.where(ImageMeta.key > names[-1]) if names else query)
        if found is None:
            break
        names.append(found)
    return names


def _key(session: Session, project_id: int, name: str) -> MetaKey:
    mine = (ImageMeta.project_id == project_id, ImageMeta.key == name)
    text_only = session.scalar(
        select(ImageMeta.image_id).where(*mine, ImageMeta.number.is_(None)).limit(1)
    )
    values: list[str] = []
    while len(values) < MANY_VALUES:
        query = select(func.min(ImageMeta.value)).where(*mine)
        found = session.scalar(query.where(ImageMeta.value > values[-1]) if values else query)
        if found is None:
            break
        values.append(found)
    if text_only is not None:
        return MetaKey(name, None, None, tuple(values))
    low = session.scalar(select(func.min(ImageMeta.number)).where(*mine))
    high = session.scalar(select(func.max(ImageMeta.number)).where(*mine))
    return MetaKey(name, low, high, tuple(values))


def _check_room(session: Session, project_id: int, names: Sequence[str] | Any) -> None:
    all_names = {*_names(session, project_id), *names}
    if len(all_names) > MAX_KEYS:
        raise InvalidInputError(
            f"The project would have {len(all_names)} columns of metadata; {MAX_KEYS} is the "
            "limit.",
            "Each becomes a filter.",
            "Leave out the columns that nobody filters by.",
        )
