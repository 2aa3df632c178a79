"""A model's predictions in memory, beside what their images are called now.

Lists, figures and places in a list are read from these arrays, so that any filter in any order
takes milliseconds at 100,000 predictions. What a model said never changes and is read once; of the
images only those that something happened to are read again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, Text, cast, func, select
from sqlalchemy.orm import Session

from cnsapp.domain.resampling import Floats, Ints
from cnsapp.domain.together import tied_groups
from cnsapp.services.evaluation_rows import probability_table
from cnsapp.services.kept import Kept
from cnsapp.services.models import ModelView
from cnsapp.services.settling import NOTE
from cnsapp.services.split_rows import fold, picture_keys
from db.models import ClassEvent, Image, ImageEvent, LabelEvent, NearPair, Prediction, Project
from db.queries import chunks
from db.session import Store

MOST_KEPT = 4  # models and parts; 100,000 predictions of 12 classes are about 20 MB
MANY = 5000  # touched images beyond which all are read again
NOBODY = 0  # instead of a class: none

Key = tuple[str, int, str, str]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Marker:
    """How far the events were read; anything newer makes the rows stale."""

    label_event: int
    image_event: int
    class_event: int
    settings: str  # the label rule, and whether images are being decided anew


@dataclass(frozen=True)
class ReviewRows:
    """The predictions of a model in one part, by image.

    Attributes
    ----------
    prediction_ids, image_ids
        (N,) with the images ascending.
    said, then
        (N,) class that was predicted, and the label at training (0: none), as they were stored.
    folds
        (N,) fold that left the image out; -1: none noted.
    sure
        (N,) probability of the class that was predicted.
    probabilities
        (N, K) in the order of `Model.class_ids`; a row of NaN where they are not there.
    in_use
        (N,) not excluded, missing or changed.
    now, events
        (N,) class of today's label (0: none), and the event that decided the image's state.
    added
        (N,) when the image came in, in seconds since 1970.
    groups
        (N,) group as it is written, or None.
    """

    marker: Marker
    prediction_ids: Ints
    image_ids: Ints
    said: Ints
    then: Ints
    folds: Ints
    sure: Floats
    probabilities: Floats
    in_use: Bools
    now: Ints
    events: Ints
    added: Floats
    groups: NDArray[np.object_]

    def places_of(self, image_ids: Any) -> Ints:
        """Return where these images are; those without a prediction are left out."""
        asked = np.asarray(image_ids, np.int64)
        if not len(self.image_ids):
            return np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(self.image_ids, asked), len(self.image_ids) - 1)
        return np.asarray(at[self.image_ids[at] == asked], np.int64)


_rows: Kept[ReviewRows] = Kept(MOST_KEPT)
_together: Kept[list[str | None]] = Kept(MOST_KEPT)


def review_rows(session: Session, store: Store, model: ModelView, part: str) -> ReviewRows:
    """Return a model's predictions of a part (`fold` or `test`), their images as they are now."""
    key = (str(store.root), model.id, model.sha256, part)
    kept = _rows.look(key)
    marker = _marker(session, model.project_id)  # before the rows: what comes later is read again
    if kept is not None and kept.marker == marker:
        return kept
    made = _followed(session, model, kept, marker) if kept is not None else None
    if made is None:
        made = _read(session, model, part, marker, kept)
    _rows.put(key, made)
    return made


def resampled_together(
    session: Session, store: Store, model: ModelView, part: str, rows: ReviewRows
) -> list[str | None]:
    """Return (N,) what is resampled together: groups, joined where they share a picture."""
    pairs = count_pairs(session, model.project_id)  # they are found without an event
    key = (str(store.root), model.id, model.sha256, part, rows.marker.image_event, pairs)
    kept = _together.look(key)
    if kept is not None and len(kept) == len(rows.image_ids):
        return kept
    named = session.execute(_of_part(model, part, Image.id, Image.sha256))
    shas: dict[int, str] = dict(named.all())
    ids = rows.image_ids.tolist()
    pictures = picture_keys(session, model.project_id, ids, [shas[i] for i in ids])
    folded: dict[str, str] = {}
    made, _ = tied_groups([fold(group, folded) for group in rows.groups.tolist()], pictures)
    _together.put(key, made)
    return made


def count_pairs(session: Session, project_id: int) -> int:
    """Return how many near-duplicate pairs a project has that nobody set apart."""
    mine = (NearPair.project_id == project_id) & (NearPair.answer != "apart")
    return session.scalar(select(func.count()).where(mine)) or 0


def _marker(session: Session, project_id: int) -> Marker:
    newest = session.scalar(select(func.max(LabelEvent.id))) or 0
    of_images, of_classes = (
        session.scalar(select(func.max(table.id)).where(table.project_id == project_id)) or 0
        for table in (ImageEvent, ClassEvent)
    )
    settings = session.scalar(select(Project.settings).where(Project.id == project_id)) or {}
    sign = json.dumps([settings.get("label_rule"), settings.get(NOTE)], sort_keys=True)
    return Marker(newest, of_images, of_classes, sign)


def _of_part(model: ModelView, part: str, *columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .join(Prediction, Prediction.image_id == Image.id)
        .where(Prediction.model_id == model.id, Prediction.part == part)
        .order_by(Prediction.image_id)  # the order of an index: nothing is sorted
    )


_STATE = (
    Image.status,
    Image.current_state,
    Image.current_class_id,
    Image.current_event_id,
    Image.group_key,
)


def _read(
    session: Session, model: ModelView, part: str, marker: Marker, kept: ReviewRows | None
) -> ReviewRows:
    """Read what the model said, unless it is known, and the state of every image."""
    images = session.execute(_of_part(model, part, Image.id, *_STATE, Image.created_at)).all()
    ids = np.array([row[0] for row in images], np.int64)
    said = kept if kept is not None else _answers(session, model, part, marker)
    return replace(
        said,
        marker=marker,
        **_states([row[1:6] for row in images]),
        added=np.array([row[6].timestamp() for row in images], float),
        image_ids=ids,
    )


def _answers(session: Session, model: ModelView, part: str, marker: Marker) -> ReviewRows:
    found = session.execute(
        select(
            Prediction.id,
            Prediction.image_id,
            Prediction.class_id,
            func.coalesce(Prediction.label_class_id, NOBODY),
            func.coalesce(Prediction.fold, -1),
            Prediction.probability,
            cast(Prediction.probabilities, Text),
        )
        .where(Prediction.model_id == model.id, Prediction.part == part)
        .order_by(Prediction.image_id)
    ).all()
    whole = np.array([tuple(row[:5]) for row in found], np.int64).reshape(-1, 5)
    return ReviewRows(
        marker=marker,
        prediction_ids=whole[:, 0],
        image_ids=whole[:, 1],
        said=whole[:, 2],
        then=whole[:, 3],
        folds=whole[:, 4],
        sure=np.array([row[5] for row in found], float),
        probabilities=probability_table([row[6] for row in found], len(model.class_ids)),
        **_states([("", "none", None, None, None)] * len(found)),
        added=np.zeros(len(found)),
    )


def _states(rows: Sequence[Any]) -> dict[str, Any]:
    groups = np.empty(len(rows), object)
    groups[:] = [row[4] for row in rows]
    return {
        "in_use": np.array([row[0] == "ok" for row in rows], bool),
        "now": np.array([(row[2] or 0) if row[1] == "label" else NOBODY for row in rows], np.int64),
        "events": np.array([row[3] or 0 for row in rows], np.int64),
        "groups": groups,
    }


def _followed(
    session: Session, model: ModelView, kept: ReviewRows, marker: Marker
) -> ReviewRows | None:
    """Return the rows with the images read again that something happened to; None: too many."""
    then = kept.marker
    if (then.class_event, then.settings) != (marker.class_event, marker.settings):
        return None
    touched: set[int] = set()
    for table, after in ((LabelEvent, then.label_event), (ImageEvent, then.image_event)):
        happened = select(table.image_id).where(
            table.id > after, table.project_id == model.project_id
        )
        touched.update(session.scalars(happened.distinct().limit(MANY + 1)))
    if len(touched) > MANY:
        return None
    places = kept.places_of(sorted(touched))
    arrays = {name: getattr(kept, name).copy() for name in ("in_use", "now", "events", "groups")}
    for part in chunks(places.tolist()):
        ids = kept.image_ids[part].tolist()
        states = dict.fromkeys(ids)
        for row in session.execute(select(Image.id, *_STATE).where(Image.id.in_(ids))):
            states[row[0]] = row[1:]
        for name, values in _states([states[i] for i in ids]).items():
            arrays[name][part] = values
    return replace(kept, marker=marker, **arrays)
