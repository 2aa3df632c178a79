"""Which predictions a filter lets through, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, get_args

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.resampling import Floats, Ints
from cnsapp.errors import InvalidInputError
from cnsapp.services.filtering import FEW, ImageFilter, Span, page_of_ids, streams_of
from cnsapp.services.models import ModelView
from cnsapp.services.review import Part, Truth
from cnsapp.services.review_levels import NOWHERE, ClassKey, Judged, LevelName, judge
from cnsapp.services.review_rows import Bools, review_rows
from db.models import Prediction
from db.session import Store

Show = Literal["all", "wrong", "right", "changed", "elsewhere"]
Order = Literal["confidence", "margin", "entropy", "loss", "image"]
Cursor = tuple[float, int]  # (value it is ordered by, image id)
EVERYTHING = ImageFilter()
DIGITS = 12  # of the value ordered by: what a sum's order leaves behind makes no difference

ORDERS: dict[Order, str] = {
    "confidence": "Most confident first: by the probability of what was predicted",
    "margin": "Least certain first: by the margin, the likeliest class less the second likeliest",
    "entropy": "Least certain first: by the entropy of all probabilities",
    "loss": "Highest loss first: by -ln of the probability of the label",
    "image": "In the order in which the images came in",
}


@dataclass(frozen=True)
class ReviewFilter:
    """Which predictions to look at; the parts are joined by "and". Excluded images never count.

    Parameters
    ----------
    part
        Held-out folds, or the locked test set: whoever shows `test` notes the look first
        (`services.splits.look`).
    truth
        Held against the labels of the training or those of today.
    level
        Classes, or organ systems: then an answer is right when its system is, and probabilities
        are those of systems.
    show
        `wrong` and `right`: the label is one that the model knows, and it is not (is) what was
        predicted. `changed`: the image is labelled otherwise now than at training. `elsewhere`: no
        label, or one that the model does not know; those are in no figure.
    label, predicted
        A row and a column of the matrix: the id of a class or the name of a system; None for all.
    sure
        Probability of what was predicted, (lowest, highest), both included; either may be None.
    fold
        Only images that this fold left out.
    added
        Only images that came in from then on and before then; either may be None.
    images
        As in the grid: group, annotator, tag, columns of metadata, text in the name and more; its
        status does not count.
    """

    part: Part = "fold"
    truth: Truth = "trained"
    level: LevelName = "classes"
    show: Show = "all"
    label: ClassKey | None = None
    predicted: ClassKey | None = None
    sure: tuple[float | None, float | None] = (None, None)
    fold: int | None = None
    added: tuple[datetime | None, datetime | None] = (None, None)
    images: ImageFilter = EVERYTHING


@dataclass(frozen=True)
class Chosen:
    """The predictions that a filter lets through, in an order."""

    judged: Judged
    places: Ints = field(repr=False)  # (M,) rows, in order
    keys: Floats = field(repr=False)  # (N,) what is ordered by, of every prediction, least first

    @property
    def ids(self) -> Ints:
        """The images (M,) in order."""
        return np.asarray(self.judged.rows.image_ids[self.places], np.int64)

    def rank(self, at: Cursor, *, behind: bool) -> int:
        """Return how many images come before a place; `behind`: at it, too."""
        keys, ids = self.keys[self.places], self.ids
        low = int(np.searchsorted(keys, at[0], "left"))
        high = int(np.searchsorted(keys, at[0], "right"))
        return low + int(np.searchsorted(ids[low:high], at[1], "right" if behind else "left"))

    def cursor(self, rank: int) -> Cursor | None:
        """Return the place of an image of the list by its number from 0; None outside."""
        if not 0 <= rank < len(self.places):
            return None
        row = self.places[rank]
        return float(self.keys[row]), int(self.judged.rows.image_ids[row])


def choose(
    session: Session, store: Store, model: ModelView, wanted: ReviewFilter, order: Order = "image"
) -> Chosen:
    """Return the predictions that a filter lets through, in an order.

    Raises
    ------
    InvalidInputError
        There is no such filter or order.
    """
    _check(wanted, order)
    rows = review_rows(session, store, model, wanted.part)
    judged = judge(session, model, rows, wanted.level, wanted.truth)
    there = _let_through(judged, wanted)
    if wanted.images != EVERYTHING:
        among = rows.places_of(_ids_of(session, model, wanted))
        there &= np.isin(np.arange(len(there)), among)
    keys = _keys(judged, order)
    places = np.flatnonzero(there)
    return Chosen(judged, places[np.argsort(keys[places], kind="stable")], keys)


def _check(wanted: ReviewFilter, order: str) -> None:
    if any(moment is not None and moment.tzinfo is None for moment in wanted.added):
        raise InvalidInputError(
            "A time without a zone does not say which images came in then.",
            "It would mean another moment on every machine.",
            "Give it with its zone.",
        )
    for what, value, known in (
        ("order", order, get_args(Order)),
        ("part", wanted.part, get_args(Part)),
        ("choice", wanted.show, get_args(Show)),
    ):
        if value not in known:
            raise InvalidInputError(f"There is no {what} “{value}”: {', '.join(known)}.")


def _let_through(judged: Judged, wanted: ReviewFilter) -> Bools:
    rows, right = judged.rows, judged.label == judged.said
    there = (
        rows.in_use
        & {
            "all": np.ones(len(right), bool),
            "wrong": judged.counts & ~right,
            "right": judged.counts & right,
            "changed": judged.changed,
            "elsewhere": ~judged.counts,
        }[wanted.show]
    )
    for key, places in ((wanted.label, judged.label), (wanted.predicted, judged.said)):
        if key is not None:
            there &= places == _row_of(judged, key)
    low, high = wanted.sure
    since, until = (None if t is None else t.timestamp() for t in wanted.added)
    for bound, let in (
        (low, judged.sure >= (low or 0.0)),
        (high, judged.sure <= (high or 0.0)),
        (since, rows.added >= (since or 0.0)),
        (until, rows.added < (until or 0.0)),
    ):
        if bound is not None:
            there &= let
    if wanted.fold is not None:
        there &= rows.folds == wanted.fold
    return np.asarray(there, bool)


def _row_of(judged: Judged, key: ClassKey) -> int:
    """Return the row of a class or system; one that is not there has no images."""
    keys = judged.level.keys
    if key in keys:
        return keys.index(key)
    row = judged.level.place.get(key) if isinstance(key, int) else None
    return NOWHERE - 1 if row is None else row


def _ids_of(session: Session, model: ModelView, wanted: ReviewFilter) -> Sequence[int]:
    """Return the images of the part that a filter of the grid lets through."""
    images = replace(wanted.images, status="ok")
    few = page_of_ids(session, model.project_id, images, Span(), FEW + 1)
    if len(few) <= FEW:
        return few
    dialect = session.get_bind().dialect.name
    streams = streams_of(model.project_id, images, dialect)
    statement = select(Prediction.image_id).where(
        Prediction.model_id == model.id, Prediction.part == wanted.part
    )
    for stream in streams:
        statement = statement.where(Prediction.image_id.in_(stream.walked(Span())))
    return session.scalars(statement).all()


def _keys(judged: Judged, order: Order) -> Floats:
    """Return (N,) what a list is ordered by, the least first; where nothing is known, last."""
    if order == "confidence":
        values = -judged.sure
    elif order == "margin":
        values = judged.margin
    elif order == "entropy":
        values = -judged.entropy
    elif order == "loss":
        values = -judged.loss
    else:
        values = np.zeros(len(judged.said))
    known = np.where(np.isnan(values), np.inf, np.round(values, DIGITS))
    return np.asarray(known + 0.0, float)  # -0.0 and 0.0 are one key
