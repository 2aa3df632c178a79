"""The images behind a cell or a filter: in an order, a page at a time, and what stands beside one.

Pages go on by key, not by number: a place in a list is (value it is ordered by, image). Labels that
change meanwhile move no other image.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from math import inf

import numpy as np
from sqlalchemy.orm import Session

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.images import MAX_PAGE, ImageItem, items_in_order
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.review import Part, ReviewItem
from cnsapp.services.review_filter import Chosen, Cursor, Order, ReviewFilter, choose
from cnsapp.services.review_levels import ClassKey
from cnsapp.services.review_rows import review_rows
from db.session import Store

END: Cursor = (inf, 2**62)  # behind every image: the way back from an empty page
PAUSE = 30 * 60.0  # seconds without an image that divide one batch from the next


@dataclass(frozen=True)
class Listed(ReviewItem):
    """An image of a list. `confidence` and all below are those of the level.

    Attributes
    ----------
    at
        Its place in the list.
    label, said
        Its row and column, as keys; None where its label (or answer) is none that the model knows.
    right
        Whether they are the same; None where the image is in no figure.
    margin, entropy, loss
        As in `ORDERS`; None where the probabilities, or the label, are not there.
    """

    at: Cursor
    label: ClassKey | None
    said: ClassKey | None
    right: bool | None
    margin: float | None
    entropy: float | None
    loss: float | None


@dataclass(frozen=True)
class ReviewPage:
    """A page of a list.

    Attributes
    ----------
    n, first
        Images in the whole list, and the number (from 1) of the first of this page; 0 when empty.
    after, before
        What leads to the next and the previous page; None at the ends.
    """

    items: list[Listed]
    n: int
    first: int
    after: Cursor | None
    before: Cursor | None


@dataclass(frozen=True)
class Step:
    """The images beside one in a list: places whose second half is the image's id.

    `number` counts from 1; None when the image is not in the list (any more): then the two are
    those between which it would be.
    """

    previous: Cursor | None
    next: Cursor | None
    number: int | None
    n: int


@dataclass(frozen=True)
class Batch:
    """Images that came in together: `ReviewFilter(added=(first, until))` lets them through."""

    first: datetime
    until: datetime
    n: int


def list_batches(store: Store, *, model_id: int, part: Part = "fold") -> list[Batch]:
    """Return when the images of a part came in, the newest batch first; a pause divides them."""
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        rows = review_rows(session, store, model, part)
    added = np.sort(rows.added[rows.in_use])
    if not len(added):
        return []
    runs = np.split(added, np.flatnonzero(np.diff(added) > PAUSE) + 1)
    return [
        Batch(
            datetime.fromtimestamp(float(run[0]), UTC),
            datetime.fromtimestamp(float(run[-1]), UTC) + timedelta(microseconds=1),
            len(run),
        )
        for run in reversed(runs)
    ]


def list_review(
    store: Store,
    *,
    model_id: int,
    wanted: ReviewFilter,
    order: Order = "confidence",
    after: Cursor | None = None,
    before: Cursor | None = None,
    limit: int = 50,
) -> ReviewPage:
    """Return the images of a list behind a place or before one; equals stand by their id.

    Raises
    ------
    InvalidInputError
        There is no such filter or order, or `limit` is not from 1 to 1000.
    NotFoundError
        There is no such model.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInputError(f"A page of {limit} images: 1 to {MAX_PAGE} are possible.")
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        found = choose(session, store, model, wanted, order)
        n = len(found.places)
        if before is not None and after is None:
            end = found.rank(before, behind=False)
            start = max(0, end - limit)
        else:
            start = 0 if after is None else found.rank(after, behind=True)
            end = min(n, start + limit)
        items = _items(session, found, model, start, end)
    return ReviewPage(
        items=items,
        n=n,
        first=start + 1 if start < end else 0,
        after=found.cursor(end - 1) if 0 < end < n else None,
        before=found.cursor(start) or END if start > 0 else None,
    )


def step(
    store: Store,
    *,
    model_id: int,
    wanted: ReviewFilter,
    image_id: int,
    order: Order = "confidence",
    at: Cursor | None = None,
) -> Step:
    """Return the images before and behind one in a list, so that one key goes on.

    Parameters
    ----------
    at
        Where the image was in the list when it was opened. With it the way goes on from there also
        when a new label has moved the image, or taken it out of the list.

    Raises
    ------
    InvalidInputError
        There is no such filter or order.
    NotFoundError
        There is no such model, or it has not judged this image and `at` is not given.
    """
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        found = choose(session, store, model, wanted, order)
    rows = found.judged.rows.places_of([image_id])
    if at is None and not len(rows):
        raise NotFoundError(
            f"The model “{model.name}” has no prediction of image {image_id} in this part.",
            "It has no place in the list.",
            "Open it from the list, or look at all its facts.",
        )
    here = (float(found.keys[rows[0]]), image_id) if at is None else at
    low, high = found.rank(here, behind=False), found.rank(here, behind=True)
    mine = np.flatnonzero(found.ids == image_id)
    return Step(
        previous=found.cursor(low - 1),
        next=found.cursor(high),
        number=int(mine[0]) + 1 if len(mine) else None,
        n=len(found.places),
    )


def _items(session: Session, found: Chosen, model: ModelView, start: int, end: int) -> list[Listed]:
    at, keys = found.places[start:end], found.judged.level.keys
    page = found.judged.only(at)
    counts, loss, margin, entropy = page.counts, page.loss, page.margin, page.entropy
    ids = page.rows.image_ids.tolist()
    by_id = {item.id: item for item in items_in_order(session, ids)}
    counts_as = {model.class_ids[k]: o.class_id for o in model.outputs for k in o.places}

    def today(class_id: int) -> int:
        return counts_as.get(class_id, class_id)

    return [
        Listed(
            **{f.name: getattr(by_id[image_id], f.name) for f in fields(ImageItem)},
            prediction_id=int(page.rows.prediction_ids[k]),
            predicted_class_id=today(int(page.rows.said[k])),
            confidence=float(page.sure[k]),
            label_then=today(int(page.rows.then[k])) or None,
            label_now=today(int(page.rows.now[k])) or None,
            changed=bool(page.changed[k]),
            fold=int(page.rows.folds[k]) if page.rows.folds[k] >= 0 else None,
            at=(float(found.keys[at[k]]), image_id),
            label=keys[page.label[k]] if page.label[k] >= 0 else None,
            said=keys[page.said[k]] if page.said[k] >= 0 else None,
            right=bool(page.label[k] == page.said[k]) if counts[k] else None,
            margin=_known(margin[k]),
            entropy=_known(entropy[k]),
            loss=_known(loss[k]),
        )
        for k, image_id in enumerate(ids)
        if image_id in by_id
    ]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
