"""What changed from one model to another, image by image; of labels: `services.label_changes`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from cnsapp.domain.compare import Pair
from cnsapp.domain.resampling import Interval
from cnsapp.errors import InvalidInputError
from cnsapp.services.comparing import Comparison, Judged, compare_models
from cnsapp.services.comparing_words import Part, in_words
from cnsapp.services.images import MAX_PAGE, items_in_order
from cnsapp.services.models import ModelView, list_models
from db.models import Prediction
from db.session import Store

FEWEST_CLASSES = 2  # in common, to compare two models
Outcome = Literal["fixed", "broken", "still_wrong", "both_right"]
Cursor = tuple[float, int]  # (value it is ordered by, image id)


@dataclass(frozen=True)
class OutcomeCounts:
    """Images by what became of them from the older model to the newer; one class, or all."""

    class_id: int | None
    name: str
    color: str
    n: int
    fixed: int
    broken: int
    still_wrong: int
    both_right: int


@dataclass(frozen=True)
class TwoModels:
    """Two models on the images that both judged without having learnt from them.

    Attributes
    ----------
    comparison, pair
        As `services.comparing` finds them, on the labels of today; the older model is the first.
    all, by_class
        Counts, of all images and by the class of their label.
    gain, interval
        Balanced accuracy of the newer model less that of the older, -1 to 1, with its 95 % paired
        interval; None where nothing can be said.
    said
        That in one sentence; "no difference" is said as such.
    """

    comparison: Comparison = field(repr=False)
    pair: Pair
    all: OutcomeCounts
    by_class: list[OutcomeCounts]
    gain: float | None
    interval: Interval | None
    said: str


@dataclass(frozen=True)
class OutcomePage:
    """Images of one outcome, those first of which the wrong model was surest.

    Of those that both got right, those of which the newer one was least sure come first. `after`
    leads to the next page; None at the end.
    """

    items: list[Judged]
    n: int
    after: Cursor | None


def comparable_models(store: Store, *, model: ModelView, part: Part = "fold") -> list[ModelView]:
    """Return the models that one can be compared with, the one made just before it first.

    They judged images in this part and share two classes with it. Those made before come first, the
    newest of them first; whether they judged any of the same images is not looked up here.
    """
    others = [m for m in list_models(store, project_id=model.project_id) if m.id != model.id]
    known = _class_ids(model)
    found = [m for m in others if len(known & _class_ids(m)) >= FEWEST_CLASSES]
    with store.reading() as session:
        judged = {
            m.id
            for m in [model, *found]
            if session.scalar(
                select(Prediction.id)
                .where(Prediction.model_id == m.id, Prediction.part == part)
                .limit(1)
            )
        }
    if model.id not in judged:
        return []
    found = [m for m in found if m.id in judged]
    return sorted(found, key=lambda m: (m.id > model.id, abs(m.id - model.id)))


def _class_ids(model: ModelView) -> set[int]:
    return {output.class_id for output in model.outputs if not output.deleted}


def two_models(
    store: Store,
    *,
    older: int,
    newer: int,
    part: Part = "fold",
    project_id: int | None = None,
    who: str = "",
) -> TwoModels:
    """Compare two models image by image: what the newer one fixed, broke and still gets wrong.

    A comparison on the locked test set is a look at it, and counted.

    Raises
    ------
    InvalidInputError
        It is one model, models of several projects, no image in common, or fewer than two classes
        in common.
    NotFoundError
        There is no such model.
    """
    found = compare_models(
        store, model_ids=[older, newer], part=part, project_id=project_id, who=who
    )
    pair, outcomes = found.pair(0, 1), _outcomes(found)
    by_class = [
        _counted(outcomes[found.true == k], c.class_id, c.name, c.color)
        for k, c in enumerate(found.classes)
    ]
    return TwoModels(
        comparison=found,
        pair=pair,
        all=_counted(outcomes, None, "All classes", ""),
        by_class=by_class,
        gain=None if pair.difference is None else -pair.difference + 0.0,
        interval=None if pair.interval is None else (-pair.interval[1], -pair.interval[0]),
        said=in_words(found, pair),
    )


def outcome_images(
    store: Store,
    found: TwoModels,
    *,
    outcome: Outcome,
    class_id: int | None = None,
    after: Cursor | None = None,
    limit: int = 50,
) -> OutcomePage:
    """Return images of one outcome, of all classes or with one label; equals stand by their id.

    Raises
    ------
    InvalidInputError
        There is no such outcome, or `limit` is not from 1 to 1000.
    """
    if outcome not in get_args(Outcome):
        known = ", ".join(get_args(Outcome))
        raise InvalidInputError(f"There is no outcome “{outcome}”: {known}.")
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInputError(f"A page of {limit} images: 1 to {MAX_PAGE} are possible.")
    comparison = found.comparison
    labels = np.array([c.class_id for c in comparison.classes], np.int64)[comparison.true]
    there = _outcomes(comparison) == outcome
    if class_id is not None:
        there &= labels == class_id
    keys, ids = _surest_first(comparison, outcome), comparison.image_ids
    rows = np.flatnonzero(there)
    rows = rows[np.lexsort((ids[rows], keys[rows]))]
    n = len(rows)
    if after is not None:
        behind = (keys[rows] > after[0]) | ((keys[rows] == after[0]) & (ids[rows] > after[1]))
        rows = rows[behind]
    page = rows[:limit]
    with store.reading() as session:
        by_id = {item.id: item for item in items_in_order(session, ids[page].tolist())}
    said, sure = comparison.answers, comparison.sure
    return OutcomePage(
        items=[
            Judged(
                by_id[int(ids[k])], int(labels[k]), int(said[0, k]), float(sure[0, k]),
                int(said[1, k]), float(sure[1, k]),
            )
            for k in page
            if int(ids[k]) in by_id
        ],
        n=n,
        after=(float(keys[page[-1]]), int(ids[page[-1]])) if len(rows) > limit else None,
    )  # fmt: skip


def _outcomes(found: Comparison) -> NDArray[np.str_]:
    """Return (N,) the outcome of each image."""
    labels = np.array([c.class_id for c in found.classes], np.int64)[found.true]
    then, now = found.answers[0] == labels, found.answers[1] == labels
    return np.where(
        then, np.where(now, "both_right", "broken"), np.where(now, "fixed", "still_wrong")
    )


def _surest_first(found: Comparison, outcome: Outcome) -> NDArray[np.float64]:
    """Return (N,) what images of an outcome are ordered by, the least first."""
    older, newer = (found.sure[k].astype(float) for k in (0, 1))
    orders: dict[Outcome, NDArray[np.float64]] = {
        "fixed": -older,
        "broken": -newer,
        "still_wrong": -np.maximum(older, newer),
        "both_right": newer,
    }
    return orders[outcome]


def _counted(
    outcomes: NDArray[np.str_], class_id: int | None, name: str, color: str
) -> OutcomeCounts:
    counts = [int((outcomes == outcome).sum()) for outcome in get_args(Outcome)]
    return OutcomeCounts(class_id, name, color, len(outcomes), *counts)
