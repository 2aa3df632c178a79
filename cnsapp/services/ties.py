"""What decides who is learnt from and scored together, as a short sign: did it change since?"""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.errors import InvalidInputError
from cnsapp.services.models import ModelView
from cnsapp.services.split_rows import active_row, fold, parts_of, read_column
from db.models import Image, NearPair
from db.session import Store


def ties_sign(session: Session, project_id: int, column: str = "") -> str:
    """Return a sign of groups, near-duplicates and parts of the split of the labelled images.

    The same labels with other groups or another split make another model, and another score.

    Parameters
    ----------
    column
        Of the metadata, where folds are cut by it.

    Raises
    ------
    InvalidInputError
        There is no such column.
    """
    rows = session.execute(
        select(Image.id, Image.group_key)
        .where(Image.project_id == project_id, Image.status == "ok", Image.current_state == "label")
        .order_by(Image.id)
    )
    folded: dict[str, str] = {}
    groups = {i: fold(group, folded) for i, group in rows}
    pairs = session.execute(
        select(NearPair.image_a, NearPair.image_b)
        .where(NearPair.project_id == project_id, NearPair.answer != "apart")
        .order_by(NearPair.image_a, NearPair.image_b)
    )
    split = active_row(session, project_id)
    parts = {} if split is None else parts_of(session, split.id)
    values = read_column(session, project_id, column) if column else {}
    said = [
        list(groups.items()),
        [[a, b] for a, b in pairs if a in groups and b in groups],
        0 if split is None else split.id,
        sorted((i, part) for i, part in parts.items() if i in groups),
        sorted((i, value) for i, value in values.items() if i in groups),
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]


def ties_changed(store: Store, *, model: ModelView) -> bool:
    """Say whether a run from a model's record would divide the images otherwise today.

    Of models that noted no sign only the split is known.
    """
    recipe = model.settings.get("recipe") or {}
    column = str(recipe.get("column") or "") if recipe.get("scheme") == "by column" else ""
    kept = model.settings.get("ties")
    with store.reading() as session:
        if kept is None:
            split = active_row(session, model.project_id)
            return model.split_id != (None if split is None else split.id)
        try:
            return bool(kept != ties_sign(session, model.project_id, column))
        except InvalidInputError:  # the column is gone
            return True
