"""The orders that are drawn: smart, random, look-alikes; a few hundred images, the best first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain import queue
from cnsapp.errors import NotFoundError
from cnsapp.services import looks
from cnsapp.services.label_settings import LabelSettings, read_settings
from cnsapp.services.queue_rules import LOOK_ALIKES, RANDOM, Wish, filtered_ids
from db.models import Image, LabelClass, LabelEvent, Suggestion, SuggestionRun
from db.queries import read_tally
from db.session import Store

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

SIZE = 120  # images of an order beside those that people hold: some minutes of labelling
MOST_RANKED = 100_000  # images that an order chooses from; of more, so many by chance
MOST_CENTRES = 5_000  # labelled images that "spread" keeps away from
MOST_ANCHORS = 500  # images of a class whose look-alikes are wanted


@dataclass(frozen=True)
class Basis:
    """What an order follows from; another basis is another order."""

    phase: str  # spread | uncertain | another strategy's name
    run: int  # the newest suggestions
    looks: Any  # the array of the ids in the index of looks: another one is another index
    share: float
    batch: int


@dataclass(frozen=True)
class Order:
    """Images in the order in which they are handed out, each with its reason."""

    ids: list[int]
    reasons: dict[int, str]
    basis: Basis
    newest_event: int  # the newest label event of any project when it was made
    note: str = ""  # what is missing for a better one
    is_old: bool = False  # a better one is in the making

    @property
    def version(self) -> str:
        """Another one after a change that makes it worthwhile to ask again."""
        return f"{self.basis.phase}-{self.basis.run}-{self.newest_event}"


# --- when an order is out of date --------------------------------------------------------------


def basis_of(session: Session, store: Store, wish: Wish, settings: LabelSettings) -> Basis:
    """Return what an order would follow from now."""
    run = session.scalar(
        select(func.max(SuggestionRun.id)).where(
            SuggestionRun.project_id == wish.project_id, SuggestionRun.seconds >= 0
        )
    )
    phase = wish.strategy
    if phase not in (RANDOM, LOOK_ALIKES):
        phase = _phase(session, wish.project_id) if run else "spread"
    ids, _ = vectors_of(store, wish.project_id)
    batch = max(20, -(-settings.suggest_every // 10) * 10)  # tens: a tenth of it is a whole number
    return Basis(phase, run or 0, ids, settings.random_share, min(batch, SIZE))


def _phase(session: Session, project_id: int) -> str:
    tally = read_tally(session, project_id)
    classes = session.scalars(
        select(LabelClass.id).where(LabelClass.project_id == project_id, LabelClass.active)
    )
    return queue.start_strategy(tally.get(f"class:{class_id}", 0) for class_id in classes)


def is_fresh(order: Order, session: Session, wish: Wish, basis: Basis) -> bool:
    """Whether an order would come out the same, as far as it matters.

    The order itself being labelled changes nothing: k-centre goes on where it is. Labels from
    elsewhere (a lasso, an import) do.
    """
    old = order.basis
    if old.looks is not basis.looks or (old.phase, old.share) != (basis.phase, basis.share):
        return False
    if basis.phase == "uncertain":
        return old.run == basis.run
    if basis.phase == RANDOM:
        return True
    events = LabelEvent.project_id == wish.project_id, LabelEvent.id > order.newest_event
    elsewhere = select(LabelEvent.image_id).where(*events).distinct().limit(len(order.ids) + 1)
    return order.reasons.keys() >= set(session.scalars(elsewhere))


def vectors_of(store: Store, project_id: int) -> tuple[Ints | None, Floats | None]:
    """Return ids (N,), ascending, and rows (N, D) of the index of looks; None without one."""
    try:
        return looks.vectors(store, project_id=project_id)
    except NotFoundError:
        return None, None


# --- making one --------------------------------------------------------------------------------


def make_order(store: Store, wish: Wish, size: int) -> Order:
    """Return a new order of `size` images; takes up to a second, more with 100,000 images."""
    settings = read_settings(store, project_id=wish.project_id)
    with store.reading() as session:
        newest = session.scalar(select(func.max(LabelEvent.id))) or 0
        basis = basis_of(session, store, wish, settings)
        todo = np.array(filtered_ids(session, wish), np.int64)
        todo = _some(todo, MOST_RANKED, wish.seed)
        looked = _looked_at(session, wish) if basis.phase == "spread" else _NONE
        anchors = _anchors(session, wish) if basis.phase == LOOK_ALIKES else _NONE
        doubts = _margins(session, wish) if basis.phase == "uncertain" else (_NONE, _NONE)
    known, rows = vectors_of(store, wish.project_id)
    if known is None or rows is None or not len(known):
        known, rows, note = _NONE, np.zeros((0, 1), np.float32), _UNSORTED
    else:
        note = ""
    ranking = _Ranking(todo, known, rows, size, wish.seed)
    if basis.phase == RANDOM:
        pairs, note = ranking.by_chance("random" if wish.is_plain else ""), ""
    elif basis.phase == LOOK_ALIKES:
        pairs = ranking.like(anchors) if len(anchors) and not note else []
        note = note or ("" if len(anchors) else _NO_ANCHORS)
    elif basis.phase == "uncertain":
        pairs = ranking.doubted(doubts[0], doubts[1], basis)
        note = note and "The images are not sorted by looks yet: only their margins count."
    else:
        pairs = ranking.spread(looked) if not note else ranking.by_chance("")
    return Order([i for i, _ in pairs], dict(pairs), basis, newest, note)


_NONE: Ints = np.zeros(0, np.int64)
_UNSORTED = "The images are not sorted by looks yet: they come in random order."
_NO_ANCHORS = "No image has this class yet. Label one, then its look-alikes can be found."


class _Ranking:
    """The images to choose from (`todo`, ascending) with their rows in the index of looks."""

    def __init__(self, todo: Ints, known: Ints, rows: Floats, size: int, seed: int) -> None:
        self.todo, self.known, self.rows, self.size, self.seed = todo, known, rows, size, seed
        self.has = np.isin(todo, known)

    def at(self, ids: Ints) -> Ints:
        """Return where images that are in the index stand there."""
        return np.searchsorted(self.known, ids)

    def by_chance(self, reason: str) -> list[tuple[int, str]]:
        """Return images in a seeded order that does not change when others are labelled."""
        order = np.argsort(_scattered(self.todo, self.seed), kind="stable")[: self.size]
        return [(int(i), reason) for i in self.todo[order]]

    def spread(self, looked: Ints) -> list[tuple[int, str]]:
        """Return images that cover the set, away from those that were looked at."""
        looked = _some(looked[np.isin(looked, self.known)], MOST_CENTRES, self.seed)
        mine = np.union1d(self.todo[self.has], looked)
        x = np.asarray(self.rows[self.at(mine)], np.float32)
        picks = mine[queue.spread_order(x, np.searchsorted(mine, looked), self.size)]
        return [(int(i), "spread") for i in picks] + self._not_sorted(self.size - len(picks))

    def like(self, anchors: Ints) -> list[tuple[int, str]]:
        """Return the images most like those of a class."""
        anchors = anchors[np.isin(anchors, self.known)]
        if not len(anchors):
            return []
        mine = np.union1d(self.todo[self.has], anchors)
        x = np.asarray(self.rows[self.at(mine)], np.float32)
        done = np.flatnonzero(~np.isin(mine, self.todo))
        found, _ = queue.lookalikes(
            x, np.searchsorted(mine, anchors).tolist(), done.tolist(), self.size
        )
        return [(int(i), "look-alike") for i in mine[found]]

    def doubted(self, ids: Ints, margin: Any, basis: Basis) -> list[tuple[int, str]]:
        """Return images that the model doubts, unlike each other, and a share drawn evenly.

        In batches of what is labelled between two runs: each begins with what is doubted most.
        An image without suggestion is in the draw for the share alone.
        """
        margins = np.ones(len(self.todo))
        _, here, there = np.intersect1d(self.todo, ids, return_indices=True)
        margins[here] = np.asarray(margin, np.float64)[there]
        x = np.zeros((len(self.todo), self.rows.shape[1]), np.float32)
        x[self.has] = self.rows[self.at(self.todo[self.has])]
        left = np.arange(len(self.todo))
        found: list[tuple[int, str]] = []
        for part in range(-(-self.size // basis.batch)):
            picks = queue.uncertain_diverse(
                margins[left], x[left], basis.batch, random_share=basis.share,
                seed=int(_scattered(np.array([basis.run * 1000 + part]), self.seed)[0]),
            )  # fmt: skip
            found += [(int(self.todo[left[i]]), reason) for i, reason in picks]
            left = np.delete(left, [i for i, _ in picks])
        return found

    def _not_sorted(self, n: int) -> list[tuple[int, str]]:
        """Return images that came after the index was made."""
        rest = self.todo[~self.has]
        order = np.argsort(_scattered(rest, self.seed), kind="stable")[: max(0, n)]
        return [(int(i), "") for i in rest[order]]


def _scattered(ids: Ints, seed: int) -> NDArray[np.uint64]:
    """Return a number for each id that looks random: the same id and seed give the same one.

    References
    ----------
    Steele, Lea and Flood, Fast splittable pseudorandom number generators (SplitMix64), 2014.
    """
    step = 0x9E3779B97F4A7C15
    start = (seed * 0xD1342543DE82EF95 + step) % 2**64
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) * np.uint64(step) + np.uint64(start)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def _some(ids: Ints, most: int, seed: int) -> Ints:
    """Return at most so many of the ids, ascending, drawn evenly where there are more."""
    if len(ids) <= most:
        return ids
    return np.sort(ids[np.argsort(_scattered(ids, seed + 1), kind="stable")[:most]])


def _looked_at(session: Session, wish: Wish) -> Ints:
    ids = select(Image.id).where(
        Image.project_id == wish.project_id,
        Image.status == "ok",
        Image.current_state.in_(("label", "skip", "unsure", "waiting", "undecided")),
    )
    return np.array(sorted(session.scalars(ids)), np.int64)


def _anchors(session: Session, wish: Wish) -> Ints:
    ids = select(Image.id).where(
        Image.project_id == wish.project_id,
        Image.status == "ok",
        Image.current_state == "label",
        Image.current_class_id == wish.class_id,
    )
    return _some(np.array(sorted(session.scalars(ids)), np.int64), MOST_ANCHORS, wish.seed)


def _margins(session: Session, wish: Wish) -> tuple[Ints, Any]:
    rows = session.execute(
        select(Suggestion.image_id, Suggestion.margin).where(
            Suggestion.project_id == wish.project_id
        )
    ).all()
    ids = np.array([row[0] for row in rows], np.int64)
    return ids, np.array([row[1] for row in rows], np.float64)
