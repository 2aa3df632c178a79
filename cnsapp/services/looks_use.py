"""Which images of an index of looks are in use, and how they are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import func, select

from cnsapp.services.looks_files import Ints
from db.models import Image
from db.queries import chunks
from db.session import Store

MANY = 5000  # images beyond which one question for all is quicker than many


def in_use(
    store: Store, project_id: int, image_ids: Sequence[int], unlabelled_only: bool = False
) -> set[int]:
    """Return those of these images that are in use in the project."""
    wanted = [Image.project_id == project_id, Image.status == "ok"]
    if unlabelled_only:
        wanted.append(Image.current_state == "none")
    found: set[int] = set()
    with store.reading() as session:
        if len(image_ids) > MANY:
            return set(session.scalars(select(Image.id).where(*wanted))) & set(image_ids)
        for part in chunks(image_ids):
            found.update(session.scalars(select(Image.id).where(*wanted, Image.id.in_(part))))
    return found


def labels_in_use(store: Store, project_id: int) -> tuple[Ints, Any, Ints]:
    """Return ids of the images in use, ascending, whether each was looked at, its class or 0."""
    with store.reading() as session:
        rows = session.execute(
            select(
                Image.id, Image.current_state != "none", func.coalesce(Image.current_class_id, 0)
            )
            .where(Image.project_id == project_id, Image.status == "ok")
            .order_by(Image.id)
        ).all()
    table = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1].astype(bool), table[:, 2]
