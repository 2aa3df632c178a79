"""The predictions of a model as arrays, in the classes of today."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from cnsapp.domain.names import name_key
from cnsapp.domain.resampling import Floats, Ints
from cnsapp.domain.together import known_groups, tied_groups
from cnsapp.services.models import ModelView
from cnsapp.services.split_rows import picture_keys
from db.models import Image, Prediction


@dataclass(frozen=True)
class Rows:
    """Predictions whose label and answer are classes of the model, one a row.

    Attributes
    ----------
    image_ids, folds
        (N,) image, and the fold that left it out (-1: none noted).
    true, said
        (N,) places of label and answer among the model's outputs of today.
    probabilities
        (N, outputs): of merged classes together; a row of NaN where they are not there.
    groups, spelled
        Of each image (None: without), folded so that P07 and p07 are one; and as they are written.
    together
        What is resampled together: groups, joined where they share a picture, as in training; None
        of all where no image has a group.
    n_elsewhere
        Predictions that are left out: another class, or no label now.
    """

    image_ids: Ints
    folds: Ints
    true: Ints
    said: Ints
    probabilities: Floats
    groups: list[str | None]
    spelled: dict[str, str]
    together: list[str | None]
    n_elsewhere: int


def read_rows(session: Session, model: ModelView, part: str, truth: str) -> Rows:
    """Read a model's predictions of a part (`fold` or `test`), held against these labels."""
    label: Any = Prediction.label_class_id if truth == "trained" else Image.current_class_id
    found = session.execute(
        select(
            Prediction.image_id,
            Prediction.fold,
            label,
            Prediction.class_id,
            Image.group_key,
            Image.current_state,
            cast(Prediction.probabilities, Text),
            Image.sha256,
        )
        .join(Image, Image.id == Prediction.image_id)
        .where(Prediction.model_id == model.id, Prediction.part == part)
        .order_by(Prediction.image_id)
    ).all()
    place = _places(model)
    kept = [
        row
        for row in found
        if row[2] in place and row[3] in place and (truth == "trained" or row[5] == "label")
    ]
    folded = {group: name_key(group) for group in {row[4] for row in kept} if group}
    groups = [folded.get(row[4]) for row in kept]
    return Rows(
        image_ids=np.array([row[0] for row in kept], dtype=np.int64),
        folds=np.array([-1 if row[1] is None else row[1] for row in kept], dtype=np.int64),
        true=np.array([place[row[2]] for row in kept], dtype=np.int64),
        said=np.array([place[row[3]] for row in kept], dtype=np.int64),
        probabilities=_probabilities([row[6] for row in kept], model),
        groups=groups,
        spelled={key: group for group, key in folded.items()},
        together=_together(session, model, groups, [(row[0], row[7]) for row in kept]),
        n_elsewhere=len(found) - len(kept),
    )


def _together(
    session: Session,
    model: ModelView,
    groups: list[str | None],
    images: Sequence[tuple[int, str]],
) -> list[str | None]:
    ids, shas = [i for i, _ in images], [sha for _, sha in images]
    tied, _ = tied_groups(groups, picture_keys(session, model.project_id, ids, shas))
    return known_groups(tied) or [None] * len(groups)


def _places(model: ModelView) -> dict[int | None, int]:
    """Return which output of today each class counts as."""
    found: dict[int | None, int] = {}
    for k, output in enumerate(model.outputs):
        found[output.class_id] = k
        found.update({model.class_ids[place]: k for place in output.places})
    return found


def _probabilities(texts: Sequence[str | None], model: ModelView) -> Floats:
    """Return the probabilities (N, outputs); of merged classes the sum."""
    n, k = len(texts), len(model.class_ids)
    table = probability_table(texts, k)
    found = np.full((n, len(model.outputs)), np.nan)
    for column, output in enumerate(model.outputs):
        found[:, column] = table[:, list(output.places)].sum(1)
    return found


def probability_table(texts: Sequence[str | None], k: int) -> Floats:
    """Return a table (N, k) of lists in JSON, read in one go; NaN where a list is no such list."""
    try:
        table = np.array(json.loads(f"[{','.join(text or 'null' for text in texts)}]"), float)
        if table.shape == (len(texts), k):
            return _checked(table)
    except (ValueError, TypeError):
        pass
    table = np.full((len(texts), k), np.nan)
    for i, text in enumerate(texts):
        try:
            row = np.array(json.loads(text or "null"), float)
        except (ValueError, TypeError):
            continue
        if row.shape == (k,):
            table[i] = row
    return _checked(table)


def _checked(table: Floats) -> Floats:
    good = np.isfinite(table).all(1) & (table >= 0).all(1) & (table <= 1 + 1e-6).all(1)
    table[~good] = np.nan
    return table
