"""Images in another order than the one they were added in: by name, chance, doubt, likeness.

The order added is read from an index at any number of images (`filtering`). The others are worked
out for all images that a filter lets through, and kept until something changes; beyond `SORTABLE`
images that would make people wait, and the answer says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.errors import InvalidInputError
from cnsapp.services.filtering import ImageFilter, Span, page_of_ids
from cnsapp.services.images import ImagePage, items_in_order, list_images
from cnsapp.services.kept import Kept
from cnsapp.services.looks import vectors
from db.models import (
    AnnotatorLabel,
    ClassEvent,
    Image,
    ImageEvent,
    ImageTag,
    LabelEvent,
    Suggestion,
    SuggestionRun,
)
from db.queries import chunks
from db.session import Store

SORTABLE = 200_000
KEPT = 8  # orders, and what they are made of, that are remembered
MANY = 5_000  # images from which values are read for the whole project
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """In which order to list images.

    Attributes
    ----------
    by
        added | newest | name | date | random | uncertain | wrong | disputed | like
    seed
        Of `random`: the same seed is the same order, also of images added since.
    like
        Of `like`: the images whose nearest look-alikes come first.
    """

    by: str = "added"
    seed: int = 0
    like: tuple[int, ...] = ()


ADDED = Order()


@dataclass(frozen=True)
class SortedPage(ImagePage):
    """A page of a sorted list; `note` says why it is in another order than asked, if it is."""

    n: int | None = None  # images in the whole list, where it was sorted
    note: str = ""


def sorted_images(
    store: Store,
    *,
    project_id: int,
    filter: ImageFilter,
    order: Order = ADDED,
    after: int | None = None,
    before: int | None = None,
    limit: int = 60,
) -> SortedPage:
    """Return a page of the images that a filter lets through, behind or before an image.

    An image that has left the list meanwhile (somebody labelled it) still marks its place.

    Raises
    ------
    InvalidInputError
        There is no such order or state of images.
    """
    if order.by not in ORDERS:
        raise InvalidInputError(
            f"There is no order “{order.by}” of images.", "", f"Choose one of: {', '.join(ORDERS)}."
        )
    page: dict[str, Any] = {"after": after, "before": before, "limit": limit}
    if order.by == "added":
        plain = list_images(store, project_id=project_id, filter=filter, **page)
        return SortedPage(plain.items, plain.next_after, plain.prev_before)
    with store.reading() as session:
        cursor = after if after is not None else before
        ids = _in_order(store, session, project_id, filter, order, cursor)
        if ids is None:
            plain = list_images(store, project_id=project_id, filter=filter, **page)
            note = (
                f"More than {SORTABLE:,} images match: they are shown in the order added. "
                "Narrow the filter to sort them."
            )
            return SortedPage(plain.items, plain.next_after, plain.prev_before, note=note)
        start, stop, n = _window(ids, cursor, forwards=before is None, limit=limit)
        shown = [int(i) for i in ids[start:stop] if i != -1]
        return SortedPage(
            items_in_order(session, shown),
            next_after=shown[-1] if shown and stop < len(ids) else None,
            prev_before=shown[0] if shown and start > 0 else None,
            n=n,
        )


def _window(ids: Ids, cursor: int | None, *, forwards: bool, limit: int) -> tuple[int, int, int]:
    """Return from where to where a page goes, and how many images there are."""
    if cursor is None:
        return 0, min(limit, len(ids)), len(ids)
    found = np.flatnonzero(ids == cursor)
    place = int(found[0]) if len(found) else (0 if forwards else len(ids))
    if forwards:
        start = place + 1 if len(found) else 0
        return start, min(start + limit, len(ids)), len(ids)
    return max(0, place - limit), place, len(ids)


_kept: Kept[Ids] = Kept(KEPT)


def _in_order(
    store: Store,
    session: Session,
    project_id: int,
    wanted: ImageFilter,
    order: Order,
    cursor: int | None,
) -> Ids | None:
    """Return the ids in order, with the cursor's in its place; None: too many to sort."""
    sign = (str(store.root), project_id, wanted, order, _state(session, project_id))

    def matching() -> Ids:
        found = page_of_ids(session, project_id, wanted, Span(), SORTABLE + 1)
        return np.array(found, dtype=np.int64)

    ids = _kept.get((*sign[:3], sign[4]), matching)
    if len(ids) > SORTABLE:
        return None
    if cursor is None or np.any(ids == cursor):
        return _kept.get(sign, lambda: _sort(store, session, project_id, ids, order))
    return _sort(store, session, project_id, np.append(ids, cursor), order)


def _state(session: Session, project_id: int) -> tuple[Any, ...]:
    """Return numbers that change whenever a list of images or its order may."""
    newest = (
        select(func.max(LabelEvent.id)).scalar_subquery(),
        select(func.max(ImageEvent.id)).scalar_subquery(),
        select(func.max(Image.id)).where(Image.project_id == project_id).scalar_subquery(),
        select(func.max(SuggestionRun.id)).where(SuggestionRun.seconds >= 0).scalar_subquery(),
        select(func.max(ClassEvent.id)).scalar_subquery(),
        select(func.count()).where(ImageTag.project_id == project_id).scalar_subquery(),
    )
    return tuple(session.execute(select(*newest)).one())


def _sort(store: Store, session: Session, project_id: int, ids: Ids, order: Order) -> Ids:
    if not len(ids):
        return ids
    keys = ORDERS[order.by](_Wish(store, session, project_id, ids, order))
    return ids[np.lexsort((ids, keys))]


@dataclass(frozen=True)
class _Wish:
    """Which images are to be put in which order."""

    store: Store
    session: Session
    project_id: int
    ids: Ids
    order: Order

    def found(self, rows: Any, column: Any) -> dict[int, Any]:
        """Return what a statement of (id, value) says of these images, and perhaps of others."""
        if len(self.ids) > MANY:  # hundreds of short statements take longer than a long one
            of_project = rows.where(column.class_.project_id == self.project_id)
            return dict(self.session.execute(of_project).all())
        found: dict[int, Any] = {}
        for part in chunks(self.ids.tolist()):
            found.update(self.session.execute(rows.where(column.in_(part))).all())
        return found

    def looked_up(self, rows: Any, column: Any) -> NDArray[np.float64]:
        """Return the number a statement of (id, number) has of each image; none: infinite."""
        found = self.found(rows, column)
        return np.array([float(found.get(i, np.inf)) for i in self.ids.tolist()])


def _newest(wish: _Wish) -> NDArray[Any]:
    return -wish.ids


def _by_name(wish: _Wish) -> NDArray[Any]:
    """Return the places of the names, numbers within them by value: field 9 before field 10."""
    names = wish.found(select(Image.id, Image.file_name), Image.id)
    mine = [names.get(i, "") for i in wish.ids.tolist()]
    # labels change nothing here: sorted anew only where the names are others
    sign = (str(wish.store.root), wish.project_id, "names", hash(tuple(mine)))
    return _kept.get(sign, lambda: _places(mine))


def _places(names: Sequence[str]) -> Ids:
    natural = [_natural(name) for name in names]
    places = {name: at for at, name in enumerate(sorted(set(natural)))}
    return np.array([places[name] for name in natural])


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    parts = re.findall(r"\d{1,18}|\D+|\d+", name.casefold())
    return tuple((int(p), "") if p.isdecimal() and p.isascii() else (-1, p) for p in parts)


def _by_date(wish: _Wish) -> NDArray[Any]:
    """Return when each file was last written; files without a date come last."""
    rows = select(Image.id, Image.source_mtime_ns).where(Image.source_mtime_ns.is_not(None))
    return wish.looked_up(rows, Image.id)


def _at_random(wish: _Wish) -> NDArray[Any]:
    """Return a well mixed number of each id and the seed (Steele et al. 2014, SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = wish.ids.astype(np.uint64) + np.uint64(
            (wish.order.seed * 0x9E3779B97F4A7C15 + 1) % 2**64
        )
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _by_doubt(wish: _Wish) -> NDArray[Any]:
    rows = select(Suggestion.image_id, Suggestion.margin)
    return wish.looked_up(rows, Suggestion.image_id)


def _by_loss(wish: _Wish) -> NDArray[Any]:
    """Return how little the model believes the label, the least believed first."""
    rows = select(Suggestion.image_id, -Suggestion.loss).where(Suggestion.loss.is_not(None))
    return wish.looked_up(rows, Suggestion.image_id)


def _by_dispute(wish: _Wish) -> NDArray[Any]:
    """Return how many classes people gave an image, the most first."""
    rows = (
        select(AnnotatorLabel.image_id, -func.count(AnnotatorLabel.class_id.distinct()))
        .where(AnnotatorLabel.state == "label")
        .group_by(AnnotatorLabel.image_id)
    )
    return wish.looked_up(rows, AnnotatorLabel.image_id)


def _by_likeness(wish: _Wish) -> NDArray[Any]:
    """Return the distance of each image from the nearest of the asked for; unknown ones last."""
    known, rows = vectors(wish.store, project_id=wish.project_id)
    ids, keys = wish.ids, np.full(len(wish.ids), np.inf)
    asked = np.flatnonzero(np.isin(known, wish.order.like))
    if not len(asked):
        return keys
    nearest = (rows @ rows[asked].T).max(axis=1)
    place = np.searchsorted(known, ids)
    place[place == len(known)] = 0
    there = known[place] == ids
    keys[there] = -nearest[place[there]]
    return keys


Keying = Callable[[_Wish], NDArray[Any]]


def _as_added(wish: _Wish) -> NDArray[Any]:
    return wish.ids


ORDERS: dict[str, Keying] = {
    "added": _as_added,
    "newest": _newest,
    "name": _by_name,
    "date": _by_date,
    "random": _at_random,
    "uncertain": _by_doubt,
    "wrong": _by_loss,
    "disputed": _by_dispute,
    "like": _by_likeness,
}


def like_ids(text: str | None) -> tuple[int, ...]:
    """Return the images that an address names, as in “12,15”; what is no number is left out."""
    parts: Sequence[str] = (text or "").split(",")
    return tuple(int(p) for p in parts[:50] if p.isascii() and p.isdigit() and len(p) < 16)
