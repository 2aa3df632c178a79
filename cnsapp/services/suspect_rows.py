"""A model's held-out answers as they are ranked, and what was decided about them since.

The ranking belongs to the model: answers and the labels that it was trained on. It is computed once
and stays as it is while people work down the list, so that nothing moves under their hands. What
they decided lies over it and is read anew after each label.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from cnsapp.domain.label_errors import Suspects, find_suspects
from cnsapp.domain.resampling import Floats, Ints, unit_numbers
from cnsapp.services.evaluation_rows import read_rows
from cnsapp.services.kept import Kept
from cnsapp.services.looks_files import LooksIndex, find_index
from cnsapp.services.models import ModelView
from db.deciding import consensus_rule
from db.models import ClassEvent, Image, ImageEvent, LabelEvent, Prediction
from db.session import Store

MOST_KEPT = 3  # rankings in memory, the latest ones: of 100,000 images 50 MB each
OUT_OF_USE = ("excluded", "missing", "changed")
UNSEEN = ("import", "bulk")  # sources of labels that say the same again without a look at the image
OPEN, CONFIRMED, CORRECTED, ASIDE = "", "confirmed", "corrected", "set aside"
kept: Kept[Any] = Kept(3 * MOST_KEPT)  # a ranking, and what was made of it


@dataclass(frozen=True)
class Ranked:
    """The held-out images of a model, in the order of their ids.

    Attributes
    ----------
    key
        What it was made from: another one means another ranking.
    image_ids, folds, given
        (N,) image, the fold that left it out (-1: none noted), place of its label at the training
        among the model's outputs.
    probabilities
        (N, outputs); what a deleted class got is shared out among the others.
    rows
        (N, d) unit rows of looks, NaN where there are none; None without an index.
    suspects
        The ranking.
    """

    key: tuple[Hashable, ...]
    image_ids: Ints
    folds: Ints
    given: Ints
    probabilities: Floats
    rows: NDArray[np.float32] | None
    suspects: Suspects

    def place_of(self, image_id: int) -> int | None:
        """Return the row of an image, or None."""
        at = int(np.searchsorted(self.image_ids, image_id))
        there = at < len(self.image_ids) and int(self.image_ids[at]) == image_id
        return at if there else None


@dataclass(frozen=True)
class Standing:
    """What became of the ranked images since the training.

    `decisions` holds rows that somebody looked at: `confirmed` (the label is what it was),
    `corrected` (another class), `set aside` (no class now: unsure, skipped, taken back, or waiting
    for others). `labels` is the class id that these rows carry today, None without a class. `gone`
    are rows out of use.
    """

    key: tuple[Hashable, ...]
    decisions: dict[int, str]
    labels: dict[int, int | None]
    gone: NDArray[np.bool_]


def ranked(store: Store, model: ModelView) -> Ranked:
    """Return a model's ranking; computed once, kept for as long as classes and looks stay."""
    index = find_index(store, project_id=model.project_id)
    outputs = tuple((output.class_id, output.places, output.deleted) for output in model.outputs)
    version = index.version if index is not None else ""
    key = (str(store.root), model.id, model.sha256, outputs, version)
    made: Ranked = kept.get(("ranked", *key), lambda: _ranked(store, model, index, key))
    return made


def standing(store: Store, model: ModelView, found: Ranked) -> Standing:
    """Return what was decided about the ranked images, as the database says now."""
    with store.reading() as session:
        newest = session.scalar(select(func.max(LabelEvent.id)))
        of_classes, of_images = (
            session.scalar(select(func.max(table.id)).where(table.project_id == model.project_id))
            for table in (ClassEvent, ImageEvent)
        )
        rules = (of_classes, consensus_rule(session, model.project_id))
        key = (*found.key, newest, of_images, *rules)
        made: Standing = kept.get(
            ("standing", *key), lambda: _standing(session, model, found, key, rules)
        )
    return made


def _ranked(
    store: Store, model: ModelView, index: LooksIndex | None, key: tuple[Hashable, ...]
) -> Ranked:
    with store.reading() as session:
        rows = read_rows(session, model, "fold", "trained")
    p = _without_deleted(rows.probabilities, rows.true, model)
    looks = None if index is None else _looks(index, rows.image_ids)
    units = unit_numbers(rows.together, len(p)) if any(rows.together) else None
    return Ranked(
        key=key,
        image_ids=rows.image_ids,
        folds=rows.folds,
        given=rows.true,
        probabilities=p,
        rows=looks,
        suspects=find_suspects(p, rows.true, looks, rows.folds, units, seed=model.seed),
    )


def _without_deleted(probabilities: Floats, given: Ints, model: ModelView) -> Floats:
    """Share out what deleted classes got, and say nothing of images that were labelled so.

    A row that a deleted class got whole says nothing either.
    """
    gone = np.array([output.deleted for output in model.outputs], bool)
    if not gone.any():
        return probabilities
    left = np.where(gone, 0.0, probabilities)
    total = left.sum(1, keepdims=True)
    known = (total[:, 0] > 1e-9) & ~gone[given]
    return np.asarray(np.where(known[:, None], left / np.maximum(total, 1e-9), np.nan), np.float64)


def _looks(index: LooksIndex, image_ids: Ints) -> NDArray[np.float32] | None:
    """Return the unit rows of these images, NaN where the index has none; None if it has none."""
    if not len(index.ids) or not len(image_ids):
        return None
    at = np.minimum(np.searchsorted(index.ids, image_ids), len(index.ids) - 1)
    there = np.asarray(index.ids[at] == image_ids)
    if not there.any():
        return None
    rows = np.full((len(image_ids), index.rows.shape[1]), np.nan, np.float32)
    rows[there] = index.rows[at[there]]
    return rows


def _standing(
    session: Session,
    model: ModelView,
    found: Ranked,
    key: tuple[Hashable, ...],
    rules: tuple[Hashable, ...],
) -> Standing:
    """Return the standing: what other rules and classes changed, and over it what people did.

    The first is asked of all images, but only where rules or classes changed.
    """
    differs = or_(
        Image.current_state != "label", Image.current_class_id != Prediction.label_class_id
    )
    touched = Image.id.in_(
        select(LabelEvent.image_id).where(
            LabelEvent.id > int(model.settings.get("last_event_id", 0)),
            LabelEvent.project_id == model.project_id,
        )
    )
    by_rule = kept.get(
        ("by rule", *found.key, *rules), lambda: _changed(session, model, found, differs)
    )
    changed = {**by_rule, **_changed(session, model, found, touched)}
    decided = {row: what for row, what in changed.items() if what is not None}
    gone = np.zeros(len(found.image_ids), bool)
    out = select(Image.id).where(Image.project_id == model.project_id, Image.status.in_(OUT_OF_USE))
    gone[np.isin(found.image_ids, np.array(session.scalars(out).all(), np.int64))] = True
    return Standing(
        key,
        decisions={row: what for row, (what, _) in decided.items() if what != OPEN},
        labels={row: class_id for row, (_, class_id) in decided.items()},
        gone=gone,
    )


def _changed(
    session: Session, model: ModelView, found: Ranked, which: ColumnElement[bool]
) -> dict[int, tuple[str, int | None] | None]:
    """Return decision and class of today by row; None where all is as at the training."""
    statement = (
        select(
            Image.id, Image.current_state, Image.current_class_id, Image.current_event_id,
            Image.current_source, Prediction.event_id,
        )
        .join(Prediction, Prediction.image_id == Image.id)
        .where(Prediction.model_id == model.id, which)
    )  # fmt: skip
    changed: dict[int, tuple[str, int | None] | None] = {}
    for image_id, state, class_id, event_id, source, before in session.execute(statement):
        row = found.place_of(image_id)
        if row is None:
            continue
        was = model.outputs[int(found.given[row])].class_id
        if state != "label" or class_id is None:
            changed[row] = (ASIDE, None)
        elif class_id != was:
            changed[row] = (CORRECTED, class_id)
        elif event_id is not None and event_id <= (before or 0):
            changed[row] = None  # what was decided is taken back: that label counts again
        else:
            changed[row] = (OPEN if source in UNSEEN else CONFIRMED, class_id)
    return changed
