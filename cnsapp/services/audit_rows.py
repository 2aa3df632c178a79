"""What a look through the data reads: the images in use with labels, groups, and what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.resampling import Ints
from cnsapp.domain.together import known_groups, tied_groups, units_of
from cnsapp.services.looks_files import find_index
from cnsapp.services.models import current_id
from cnsapp.services.split_rows import fold, picture_keys
from db.deciding import consensus_rule
from db.models import (
    ClassEvent,
    Image,
    ImageEvent,
    ImageMeta,
    ImageQuality,
    LabelClass,
    LabelEvent,
    NearPair,
)
from db.queries import chunks
from db.session import Store

UNLABELLED = -1


@dataclass(frozen=True)
class AuditRow:
    """One image as it is in the table of images."""

    id: int
    sha256: str
    seen: str
    name: str
    width: int
    height: int
    n_bytes: int
    file_type: str
    changed_at: float | None  # of the file, in seconds since 1970
    added_at: datetime
    slide_id: int | None
    group: str | None


@dataclass(frozen=True)
class AuditRows:
    """The images in use of a project, ascending.

    Attributes
    ----------
    images
        (N) rows.
    ids, labels
        (N,) image id; class id as it counts now, -1 without a label.
    units
        (N,) number of what belongs together: groups joined where they share a picture, and an image
        without a group alone.
    has_groups
        Whether any image has a group that says whose it is.
    class_names
        By id.
    """

    images: list[AuditRow]
    ids: Ints
    labels: Ints
    units: Ints
    has_groups: bool
    class_names: dict[int, str]

    @property
    def labelled(self) -> Ints:
        """Places of the images with a label."""
        return np.flatnonzero(self.labels != UNLABELLED)


def read_audit_rows(store: Store, *, project_id: int) -> AuditRows:
    """Read all images in use of a project."""
    with store.reading() as session:
        columns = (
            Image.id, Image.sha256, Image.seen, Image.file_name, Image.width, Image.height,
            Image.n_bytes, Image.facts["format"].as_string(), Image.source_mtime_ns,
            Image.created_at, Image.slide_id, Image.group_key,
            Image.current_state, Image.current_class_id,
        )  # fmt: skip
        found = session.execute(
            select(*columns)
            .where(Image.project_id == project_id, Image.status == "ok")
            .order_by(Image.id)
        )
        images: list[AuditRow] = []
        labels: list[int] = []
        folded: dict[str, str] = {}
        for row in found.yield_per(5000):
            images.append(_row(row, folded))
            labels.append(row[13] if row[12] == "label" and row[13] else UNLABELLED)
        ids = [image.id for image in images]
        pictures = picture_keys(session, project_id, ids, [image.sha256 for image in images])
        names = session.execute(
            select(LabelClass.id, LabelClass.name).where(LabelClass.project_id == project_id)
        )
        class_names = {row.id: row.name for row in names}
    tied, _ = tied_groups([image.group for image in images], pictures)
    return AuditRows(
        images=images,
        ids=np.array(ids, np.int64),
        labels=np.array(labels, np.int64),
        units=units_of(tied),
        has_groups=known_groups(tied) is not None,
        class_names=class_names,
    )


def _row(row: Any, folded: dict[str, str]) -> AuditRow:
    image_id, sha256, seen, name, width, height, n_bytes, kind, changed_ns, added_at = row[:10]
    return AuditRow(
        id=image_id,
        sha256=sha256,
        seen=seen,
        name=name,
        width=width,
        height=height,
        n_bytes=n_bytes,
        file_type=(kind or PurePosixPath(name).suffix.lstrip(".")).lower(),
        changed_at=None if changed_ns is None else changed_ns / 1e9,
        added_at=added_at,
        slide_id=row[10],
        group=fold(row[11], folded),
    )


def read_metadata(
    session: Session, project_id: int, key: str, image_ids: Sequence[int]
) -> list[tuple[str, float | None] | None]:
    """Return text and number of a column for each image, None where nothing is noted."""
    wanted = set(image_ids)
    found = {
        image_id: (value, number)
        for image_id, value, number in session.execute(
            select(ImageMeta.image_id, ImageMeta.value, ImageMeta.number).where(
                ImageMeta.project_id == project_id, ImageMeta.key == key
            )
        )
        if image_id in wanted
    }
    return [found.get(image_id) for image_id in image_ids]


def read_measures(session: Session, image_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return what was measured of each image's pixels; empty where it was not."""
    found: dict[int, dict[str, Any]] = {}
    for part in chunks(list(image_ids)):
        rows = session.execute(
            select(ImageQuality.image_id, ImageQuality.measures).where(
                ImageQuality.image_id.in_(part)
            )
        )
        found.update({row.image_id: row.measures for row in rows})
    return [found.get(image_id, {}) for image_id in image_ids]


def state_now(store: Store, session: Session, project_id: int) -> dict[str, Any]:
    """Return signs of what a look rests on, by what they stand for: a change of one makes it stale.

    `labels`: the newest label event; `classes`: what was merged, deleted or renamed, and the rule
    that makes one label of several readers'; `images`: which are in use; `marks`: what happened
    to images beside labels (groups, notes); `pairs`: near-duplicates and what was said of them;
    `columns`: the metadata; `model`: the current one; `looks`: the features.
    """
    of_project = Image.project_id == project_id
    images = session.execute(
        select(func.count(), func.max(Image.id), func.sum(Image.id)).where(
            of_project, Image.status == "ok"
        )
    ).one()
    pairs = session.execute(
        select(NearPair.answer, func.count())
        .where(NearPair.project_id == project_id)
        .group_by(NearPair.answer)
        .order_by(NearPair.answer)
    ).all()
    columns = session.execute(
        select(ImageMeta.key, func.count(), func.sum(ImageMeta.number))
        .where(ImageMeta.project_id == project_id)
        .group_by(ImageMeta.key)
        .order_by(ImageMeta.key)
    ).all()
    newest = {
        name: session.scalar(select(func.max(table.id)).where(table.project_id == project_id))
        for name, table in (
            ("labels", LabelEvent), ("marks", ImageEvent), ("classes", ClassEvent),
        )
    }  # fmt: skip
    index = find_index(store, project_id=project_id)
    return {
        **newest,
        "looks": None if index is None else index.version,
        "classes": _sign([newest["classes"], consensus_rule(session, project_id)]),
        "images": _sign(images),
        "pairs": _sign(pairs),
        "columns": _sign(columns),
        "model": current_id(session, project_id),
    }


def _sign(rows: Any) -> str:
    return hashlib.sha256(repr([*rows]).encode()).hexdigest()[:16]
