"""How far the people of a project agree: who read what with whom, kappas, the images they part on.

What counts as an opinion stands in `opinions`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from sqlalchemy import Select, select
from sqlalchemy.orm import aliased

from cnsapp.domain.agreement import (
    N_RESAMPLES,
    Figure,
    cohen_kappa,
    fleiss_kappa,
    pair_confusion,
    per_class_agreement,
    percent_agreement,
)
from cnsapp.errors import InvalidInputError
from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.opinions import Labels, both, kept, meant_now, opinions
from db.deciding import class_meanings, is_void
from db.models import Image, LabelEvent, Reading
from db.session import Store

FEWEST = 20  # common images below which a figure would say more about chance than about people


@dataclass(frozen=True)
class PairFigures:
    """Two people, and how far they agree on the `n` images that both read."""

    first: str
    second: str
    n: int
    kappa: Figure
    percent: Figure


@dataclass(frozen=True)
class Agreement:
    """How far everybody agrees; pairs with no common image are left out.

    `fleiss` is of all people together, `per_class` the same for "this class or another".
    """

    people: tuple[str, ...]
    n_images: int
    pairs: tuple[PairFigures, ...]
    fleiss: Figure
    per_class: dict[int, Figure]


@dataclass(frozen=True)
class PairDetail:
    """Two people in detail: the classes they used, and how often each met each."""

    figures: PairFigures
    class_ids: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]  # row: class by the first, column: class by the second
    per_class: dict[int, Figure]


@dataclass(frozen=True)
class Again:
    """Images that were read again: by the same person, or by another one.

    `unsure` of the second readings named no class; they are not among the `n`.
    """

    first: str
    second: str
    n: int
    unsure: int
    percent: Figure
    kappa: Figure


@dataclass(frozen=True)
class Parted:
    """An image that two people read, and what each called it."""

    item: ImageItem
    first: int
    second: int


def agreement(store: Store, *, project_id: int, only_second: bool = False) -> Agreement:
    """Return how far the people of a project agree.

    Parameters
    ----------
    only_second
        Only images with a second reading, which is blind: a label that was given with another
        one in sight, such as a correction, is no independent opinion.
    """

    def made() -> Agreement:
        read = opinions(store, project_id, only_second)
        pairs = []
        for i, j in combinations(range(len(read.people)), 2):
            a, b, groups, _ = both(read, i, j)
            if a:
                pairs.append(_pair(read.people[i], read.people[j], a, b, groups))
        classes = [int(c) for c in np.unique(read.said) if c]
        counts = np.stack([(read.said == c).sum(1) for c in classes], axis=1) if classes else None
        return Agreement(
            people=tuple(read.people),
            n_images=len(read.image_ids),
            pairs=tuple(pairs),
            fleiss=_fleiss(counts, read.groups),
            per_class={c: _fleiss(counts, read.groups, k) for k, c in enumerate(classes)},
        )

    return kept(store, project_id, ("all", only_second), made)


def pair(
    store: Store, *, project_id: int, first: str, second: str, only_second: bool = False
) -> PairDetail:
    """Return how two people agree, class by class, and how they confuse classes.

    Raises
    ------
    InvalidInputError
        They are the same person, or have no image in common.
    """

    def made() -> PairDetail:
        a, b, groups, _ = _two(store, project_id, first, second, only_second)
        classes = tuple(sorted({*a, *b}))
        found: dict[Hashable, Figure] = (
            per_class_agreement(a, b, classes, groups=groups)
            if len(a) >= FEWEST
            else {c: _too_few(len(a)) for c in classes}
        )
        counts = pair_confusion(a, b, classes)
        return PairDetail(
            figures=_pair(first, second, a, b, groups),
            class_ids=classes,
            counts=tuple(tuple(int(n) for n in row) for row in counts),
            per_class={c: found[c] for c in classes},
        )

    return kept(store, project_id, ("pair", first, second, only_second), made)


def parted(
    store: Store, *, project_id: int, first: str, second: str,
    first_class: int | None = None, second_class: int | None = None,
    only_second: bool = False, apart: bool = False, offset: int = 0, limit: int = 200,
) -> tuple[list[Parted], int]:  # fmt: skip
    """Return images of a cell of two people's confusion, by id, and how many the cell has.

    Parameters
    ----------
    first_class, second_class
        What each called them; None: anything. `apart`: only where they differ.
    """
    a, b, _, ids = _two(store, project_id, first, second, only_second)
    mine, theirs = np.array(a), np.array(b)
    wanted = np.ones(len(ids), bool)
    if first_class is not None:
        wanted &= mine == first_class
    if second_class is not None:
        wanted &= theirs == second_class
    if apart:
        wanted &= mine != theirs
    found = np.flatnonzero(wanted)
    part = found[offset : offset + limit]
    said = {int(ids[k]): (int(mine[k]), int(theirs[k])) for k in part}
    with store.reading() as session:
        items = items_in_order(session, list(said))
    return [Parted(item, *said[item.id]) for item in items], len(found)


def read_again(store: Store, *, project_id: int, kind: str = "self") -> list[Again]:
    """Return how readings again compare with the first ones, by who read first and who again.

    kind `self`: how far people agree with themselves; `second`: with the one whose image they read.
    """
    if kind not in ("self", "second"):
        raise InvalidInputError(f"There are no readings “{kind}”: second or self.")

    def made() -> list[Again]:
        found: dict[tuple[str, str], list[tuple[int | None, int | None, str | None]]] = {}
        with store.reading() as session:
            meanings = class_meanings(session, project_id)
            for who, again, was, now, group in session.execute(_readings(project_id, kind)):
                pairs = found.setdefault((who, again), [])
                pairs.append((meant_now(was, meanings), meant_now(now, meanings), group))
        return [_again(*people, rows) for people, rows in sorted(found.items())]

    return kept(store, project_id, ("again", kind), made)


def _readings(project_id: int, kind: str) -> Select[str, str, int | None, int | None, str | None]:
    first, again = aliased(LabelEvent), aliased(LabelEvent)
    void = select(LabelEvent.id).where(LabelEvent.id == first.id, is_void()).exists()
    return (
        select(first.annotator, again.annotator, first.class_id, again.class_id, Image.group_key)
        .select_from(Reading)
        .join(first, first.id == Reading.first_event)
        .join(again, again.id == Reading.done_event)
        .join(Image, Image.id == Reading.image_id)
        .where(
            Reading.project_id == project_id,
            Reading.kind == kind,
            first.kind == "label",
            Image.status == "ok",
            ~void,
        )
        .order_by(Reading.id)
    )


def _again(
    first: str, second: str, rows: Sequence[tuple[int | None, int | None, str | None]]
) -> Again:
    known = [row for row in rows if row[0] is not None]
    both = [row for row in known if row[1] is not None]
    a, b = [row[0] for row in both], [row[1] for row in both]
    figures = _pair(first, second, a, b, [row[2] for row in both])
    return Again(
        first, second, len(both), len(known) - len(both), figures.percent, figures.kappa
    )  # fmt: skip


def _pair(
    first: str, second: str, a: Sequence[int | None], b: Sequence[int | None],
    groups: Sequence[str | None],
) -> PairFigures:  # fmt: skip
    n = len(a)
    if n < FEWEST:
        return PairFigures(first, second, n, _too_few(n), _too_few(n))
    return PairFigures(
        first, second, n,
        kappa=cohen_kappa(a, b, groups=groups),
        percent=percent_agreement(a, b, groups=groups),
    )  # fmt: skip


def _fleiss(counts: Labels | None, groups: Sequence[str | None], column: int | None = None) -> Any:
    """Return Fleiss's kappa of all classes, or of one against the others."""
    n = 0 if counts is None else len(counts)
    if counts is None or n < FEWEST:
        return _too_few(n)
    if column is not None:
        one = counts[:, column]
        counts = np.stack([one, counts.sum(1) - one], axis=1)
    return fleiss_kappa(counts, groups=groups, n_resamples=N_RESAMPLES)


def _too_few(n: int) -> Figure:
    images = "No image was" if n == 0 else f"Only {n} image{'s were' if n > 1 else ' was'}"
    return Figure(None, f"{images} read by both; a figure needs {FEWEST}.", n)


def _two(
    store: Store, project_id: int, first: str, second: str, only_second: bool
) -> tuple[list[int], list[int], list[str | None], Labels]:
    if first == second:
        raise InvalidInputError("Choose two different people.")
    read = opinions(store, project_id, only_second)
    if first not in read.people or second not in read.people:
        raise InvalidInputError(
            f"{first} and {second} have read no image in common.", "", "Ask for second readings."
        )
    return both(read, read.people.index(first), read.people.index(second))
