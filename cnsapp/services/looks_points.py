"""The map of a project's images: a place and a colour for each, and what an outline holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.errors import InvalidInputError
from cnsapp.services.looks_files import Ints, LooksIndex, get_index
from cnsapp.services.models import current_id
from db.models import Image, LabelClass, Prediction, Suggestion
from db.session import Store

COLORED_BY = ("class", "model", "annotator", "group")
MOST_POINTS = 100_000
MOST_KEYS, MOST_CLASSES = 9, 60  # lines of a legend; further values share one
SIDE = 65_535  # the longer side of the map, in steps
NOTHING = {
    "class": "No class", "model": "No opinion yet", "annotator": "Nobody yet", "group": "No group",
}  # fmt: skip


@dataclass(frozen=True)
class MapKey:
    """A line of the legend. `color` is a class's own; None where none is fixed."""

    name: str
    color: str | None
    n: int
    is_rest: bool = False  # many values that share a line


@dataclass(frozen=True)
class MapPoints:
    """The points of a map. `codes[i]` says which of `keys` point i belongs to; key 0 is "none".

    `places` are (N, 2) whole numbers from 0 to `SIDE`, y downwards, one scale for both.
    """

    version: str
    image_ids: Ints
    places: NDArray[np.uint16]
    codes: NDArray[np.uint8]
    keys: list[MapKey]
    n_left_out: int  # beyond `MOST_POINTS`

    def inside(self, outline: Sequence[Sequence[float]]) -> list[int]:
        """Return the images within a closed outline [(x, y), ...] given in steps of the map."""
        corners = np.asarray(outline, float).reshape(-1, 2)
        near = ((self.places >= corners.min(axis=0)) & (self.places <= corners.max(axis=0))).all(1)
        x, y = self.places[near].astype(float).T
        within = np.zeros(len(x), bool)
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if y1 != y2:  # how often a line to the right crosses the outline, as in lookmap.js
                slope = (x2 - x1) / (y2 - y1)
                within ^= ((y1 > y) != (y2 > y)) & (x < slope * (y - y1) + x1)
        return [int(i) for i in self.image_ids[near][within]]


def map_points(store: Store, *, project_id: int, color_by: str = "class") -> MapPoints:
    """Return the map of the images in use.

    Parameters
    ----------
    color_by
        class, model (the newest suggestions, else the current model's predictions), annotator or
        group.

    Raises
    ------
    NotFoundError
        No index was made yet.
    InvalidInputError
        There is no such colouring.
    """
    if color_by not in COLORED_BY:
        raise InvalidInputError(
            f"A map cannot be coloured by “{color_by}”.", "", f"Use: {', '.join(COLORED_BY)}."
        )
    index = get_index(store, project_id=project_id)
    with store.reading() as session:
        rows = session.execute(_statement(session, project_id, color_by)).all()
        classes = _classes(session, project_id) if color_by in ("class", "model") else {}
    ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    at = index.rows_of(ids)
    values: list[Any] = [row[1] for row in rows]
    if len(at) < len(ids):
        known = np.isin(ids, index.ids)
        values = [value for value, is_known in zip(values, known.tolist(), strict=True) if is_known]
    some = _some(len(at))
    codes, keys = _coded(values if some is None else [values[i] for i in some], classes, color_by)
    places = _steps(index)[at]
    if some is not None:
        at, places = at[some], places[some]
    return MapPoints(
        index.version, np.asarray(index.ids[at]), places, codes, keys, len(values) - len(at)
    )


def _some(n: int) -> Ints | None:
    if n <= MOST_POINTS:
        return None
    return np.sort(np.random.default_rng(0).choice(n, MOST_POINTS, replace=False))


def _steps(index: LooksIndex) -> NDArray[np.uint16]:
    """Return all places in whole steps. One far point must not squeeze the others together."""
    places = np.asarray(index.places, np.float64)
    if not len(places):
        return np.zeros((0, 2), np.uint16)
    low, high = np.percentile(places, [0.1, 99.9], axis=0)
    places = np.clip(places, low - 0.1 * (high - low), high + 0.1 * (high - low))
    low, high = places.min(axis=0), places.max(axis=0)
    scale = SIDE / max(float((high - low).max()), 1e-9)
    steps = (places - low) * scale
    steps += (SIDE - (high - low) * scale) / 2  # the shorter side in the middle
    return np.asarray(steps.round().clip(0, SIDE), np.uint16)


def _statement(session: Session, project_id: int, color_by: str) -> Any:
    mine = [Image.project_id == project_id, Image.status == "ok"]
    if color_by == "annotator":
        return select(Image.id, Image.current_annotator).where(*mine).order_by(Image.id)
    if color_by == "group":
        return select(Image.id, Image.group_key).where(*mine).order_by(Image.id)
    if color_by == "class":
        return select(Image.id, Image.current_class_id).where(*mine).order_by(Image.id)
    suggested = select(Suggestion.image_id).where(Suggestion.project_id == project_id).limit(1)
    if session.scalar(suggested) is not None:
        said: Any = Suggestion
        only = Suggestion.image_id == Image.id
    else:
        model_id = current_id(session, project_id)
        said, only = (
            Prediction,
            (Prediction.image_id == Image.id)
            & (Prediction.model_id == model_id)
            & (Prediction.part == "fold"),  # the map is for choosing: the test set stays out
        )
    return select(Image.id, said.class_id).outerjoin(said, only).where(*mine).order_by(Image.id)


def _classes(session: Session, project_id: int) -> dict[Any, tuple[str, str | None]]:
    rows = session.execute(
        select(LabelClass.id, LabelClass.name, LabelClass.color)
        .where(LabelClass.project_id == project_id)
        .order_by(LabelClass.position, LabelClass.id)
    )
    return {class_id: (name, color) for class_id, name, color in rows}


def _coded(
    values: Sequence[Any], classes: dict[Any, tuple[str, str | None]], color_by: str
) -> tuple[NDArray[np.uint8], list[MapKey]]:
    """Number the values: 0 for none, then the classes in their order or the commonest ones."""
    counts: dict[Any, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    nothing = counts.pop(None, 0)
    order = [c for c in classes if c in counts] if classes else []
    order += sorted((v for v in counts if v not in classes), key=lambda v: (-counts[v], str(v)))
    most = MOST_CLASSES if classes else MOST_KEYS
    shown, rest = order[:most], order[most:]
    keys = [MapKey(NOTHING[color_by], None, nothing)]
    keys += [MapKey(*classes.get(v, (str(v), None)), counts[v]) for v in shown]
    if rest:
        keys.append(MapKey(f"{len(rest):,} others", None, sum(counts[v] for v in rest), True))
    number = {v: i + 1 for i, v in enumerate(shown)} | dict.fromkeys(rest, len(shown) + 1)
    number[None] = 0
    return np.fromiter((number[v] for v in values), np.uint8, len(values)), keys
