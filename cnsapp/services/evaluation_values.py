"""What images can be sliced by: group, annotator, size, fold, or a column of the lab's table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.slices import size_class
from cnsapp.services.evaluation_rows import Rows
from cnsapp.services.models import ModelView
from db.models import Image, ImageMeta, Prediction

MOST_NUMBERS = 12  # distinct numbers of a column that are told apart; more are cut into quarters
OWN = {
    "group": "Group",
    "annotator": "Who labelled it",
    "source": "How it was labelled",
    "size": "Image size",
    "fold": "Fold",
}


@dataclass(frozen=True)
class Column:
    """A column that figures can be looked at by."""

    name: str
    title: str
    of_table: bool = False  # of a table of the lab


def list_columns(session: Session, project_id: int) -> list[Column]:
    """Return the columns that there are; `group` only where any image has one."""
    keys = session.scalars(
        select(ImageMeta.key).where(ImageMeta.project_id == project_id).distinct()
    )
    grouped = session.scalar(
        select(Image.id)
        .where(Image.project_id == project_id, Image.group_key.is_not(None))
        .limit(1)
    )
    own = [Column(name, title) for name, title in OWN.items() if name != "group" or grouped]
    return own + [Column(key, key, True) for key in sorted(keys) if key not in OWN]


def read_values(session: Session, model: ModelView, column: Column, rows: Rows) -> list[str | None]:
    """Return the value of each image of `rows`, or None where nothing is noted."""
    if column.name == "group":
        return [None if group is None else rows.spelled[group] for group in rows.groups]
    if column.name == "fold":
        return [None if fold < 0 else str(fold + 1) for fold in rows.folds.tolist()]
    mine = Prediction.model_id == model.id
    if column.of_table:
        found: dict[int, tuple[str, float | None]] = {
            image_id: (value, number)
            for image_id, value, number in session.execute(
                select(ImageMeta.image_id, ImageMeta.value, ImageMeta.number)
                .join(Prediction, Prediction.image_id == ImageMeta.image_id)
                .where(mine, ImageMeta.project_id == model.project_id, ImageMeta.key == column.name)
            )
        }
        return _told_apart([found.get(i) for i in rows.image_ids.tolist()])
    wanted: dict[str, tuple[Any, ...]] = {
        "annotator": (Image.current_annotator,),
        "source": (Image.current_source,),
        "size": (Image.width, Image.height),
    }
    of_image = {
        row[0]: row[1:]
        for row in session.execute(
            select(Image.id, *wanted[column.name])
            .join(Prediction, Prediction.image_id == Image.id)
            .where(mine)
        )
    }
    there = [of_image.get(i) for i in rows.image_ids.tolist()]
    if column.name == "size":
        return [None if row is None else size_class(row[0], row[1]) for row in there]
    return [None if row is None or row[0] is None else str(row[0]) for row in there]


def _told_apart(found: list[tuple[str, float | None] | None]) -> list[str | None]:
    """Return the texts; of a column of many numbers the quarter that each lies in."""
    numbers = [entry[1] for entry in found if entry is not None]
    distinct = {number for number in numbers if number is not None}
    if None in numbers or len(distinct) <= MOST_NUMBERS:
        return [None if entry is None else entry[0] for entry in found]
    sorted_ones = np.sort(np.array(numbers, float))
    cuts = np.unique(np.quantile(sorted_ones, [0, 0.25, 0.5, 0.75, 1], method="nearest"))
    names = [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
    return [
        None
        if entry is None
        else names[int(np.searchsorted(cuts[1:-1], float(entry[1] or 0.0), side="right"))]
        for entry in found
    ]
