"""Narrow a query of images to those with some metadata, fast at a million rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, exists
from sqlalchemy.orm import InstrumentedAttribute, aliased

from db.models import Image, ImageMeta

Meta = tuple[str, str] | tuple[str, float | None, float | None]


def narrowed(
    query: Select[Any], project_id: int, wanted: tuple[Meta, ...]
) -> tuple[Select[Any], InstrumentedAttribute[int]]:
    """Return the query with these conditions, and the column to page and order it by.

    The first condition leads: an index holds the metadata of one name in the order of the images,
    so that a page is read from there in order and only its images are looked up.
    """
    if not wanted:
        return query, Image.id
    first, *rest = wanted
    lead = aliased(ImageMeta)
    query = query.join(lead, lead.image_id == Image.id).where(
        lead.project_id == project_id, *_conditions(lead, first)
    )
    for condition in rest:
        other = aliased(ImageMeta)
        query = query.where(
            exists().where(other.image_id == lead.image_id, *_conditions(other, condition))
        )
    return query, lead.image_id


def _conditions(row: Any, wanted: Meta) -> list[ColumnElement[bool]]:
    conditions = [row.key == wanted[0]]
    if len(wanted) == 2:
        return [*conditions, row.value == wanted[1]]
    _, low, high = wanted
    if low is not None:
        conditions.append(row.number >= low)
    if high is not None:
        conditions.append(row.number <= high)
    if low is None and high is None:
        conditions.append(row.number.is_not(None))
    return conditions
