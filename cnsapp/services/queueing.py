"""What to label next: images with the reason why, leased so that no two people get the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.errors import NotFoundError
from cnsapp.services import leases
from cnsapp.services.images import ImageFilter, ImageItem, items_in_order
from cnsapp.services.label_settings import read_settings
from cnsapp.services.queue_kept import current_order
from cnsapp.services.queue_orders import Order
from cnsapp.services.queue_rules import (
    LOOK_ALIKES,
    RANDOM,
    RANDOM_ACTION,
    SECOND,
    SELF,
    SMART,
    SOURCES,
    STRATEGIES,
    UNLABELLED,
    Wish,
    in_turn,
    open_ids,
)
from db.models import Image, LabelEvent, Project
from db.queries import chunks, read_tally
from db.session import Store

__all__ = [
    "RANDOM_ACTION",
    "SECOND",
    "SELF",
    "STRATEGIES",
    "UNLABELLED",
    "Handed",
    "QueuedImage",
    "Wish",
    "hand_out",
    "look_ahead",
    "next_images",
    "release",
    "shown_again",
]

WAIT = 0.6  # seconds for a better order; then the one that is there is used, and said to be old
MOST_HELD, LEAST_HELD = 100, 5  # images in one person's hands
DRAWN = (SMART, RANDOM, LOOK_ALIKES)


@dataclass(frozen=True)
class QueuedImage(ImageItem):
    """An image that is handed out, and why.

    Attributes
    ----------
    reason
        spread | uncertain | random | look-alike | disagree | model | unsure | skipped | second |
        self, or nothing where it is simply the next one.
    as_source
        What its label is stored as where that is no ordinary one: second | self | adjudication.
    """

    reason: str = field(default="", kw_only=True)
    as_source: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Handed:
    """What somebody was handed.

    Attributes
    ----------
    gone
        Images that they had and that need no label from them any more, or are somebody else's.
    version, is_old
        Of the order: with another one it is worthwhile to have the images ahead chosen again. An
        old one is being made anew just now: ask again in a second.
    note
        What is missing for a better order, in words; empty when nothing is.
    with_others
        Images that wait in other people's queues.
    skipped, unsure
        Images of the project that can be shown again.
    as_of
        The newest label event that the images know of.
    more
        Whether to ask again when these are used up: there was more than a fair share to be had.
    """

    images: list[QueuedImage]
    gone: list[int]
    version: str
    note: str
    with_others: int
    skipped: int
    unsure: int
    as_of: int
    more: bool
    is_old: bool = False


def next_images(
    store: Store,
    *,
    project_id: int,
    annotator: str,
    holder: str,
    strategy: str = SMART,
    n: int = 20,
    class_id: int | None = None,
    seed: int = 0,
    exclude: Iterable[int] = (),
    filter: ImageFilter = UNLABELLED,  # the word that pages and commands use
    lease_seconds: float = leases.LEASE_SECONDS,
) -> list[QueuedImage]:
    """Lease the next images for `holder` (a browser tab, say) and return them; see `hand_out`."""
    wish = Wish(project_id, annotator, strategy, class_id, seed, filter)
    return hand_out(
        store, wish, holder=holder, n=n, exclude=exclude, lease_seconds=lease_seconds
    ).images


def hand_out(
    store: Store,
    wish: Wish,
    *,
    holder: str,
    n: int = 20,
    exclude: Iterable[int] = (),
    keep: Sequence[int] = (),
    give_back: Sequence[int] = (),
    holder_before: str = "",
    share_fairly: bool = False,
    lease_seconds: float = leases.LEASE_SECONDS,
) -> Handed:
    """Renew what somebody has in hand, and lease them `n` more images.

    Parameters
    ----------
    exclude
        Images that are not wanted: they were shown already.
    keep
        Images that `holder` has in hand: their leases are renewed.
    give_back
        Images that `holder` does not need any more; they may be handed out again at once.
    holder_before
        Whose leases become `holder`'s: a page that was loaded again is a new holder.
    share_fairly
        Fewer than `n` where the last images would not suffice for the people who label just now.

    Raises
    ------
    NotFoundError
        There is no such project.
    """
    had = set(keep)
    unwanted = had | set(exclude)
    asked = n
    if share_fairly:
        n = min(n, max(0, _fair_share(store, wish, holder) - len(had)))
    choose, order = _chooser(store, wish, holder, unwanted, n, set(give_back), wait=WAIT)
    with store.writing() as session:
        leases.forget_old(session, project_id=wish.project_id)
        if holder_before:
            leases.hand_over(
                session, project_id=wish.project_id, before=holder_before, holder=holder
            )
        if give_back:
            leases.release(session, project_id=wish.project_id, holder=holder, image_ids=give_back)

        def take(ids: Iterable[int]) -> set[int]:
            still = open_ids(session, wish, ids)
            return leases.take(
                session, project_id=wish.project_id, holder=holder,
                image_ids=sorted(still), seconds=lease_seconds,
            )  # fmt: skip

        kept = take(had) if had else set()
        gone = sorted(had - kept)
        leases.release(session, project_id=wish.project_id, holder=holder, image_ids=gone)
        others = leases.held_by_others(session, project_id=wish.project_id, holder=holder)
        got = _first(choose(session, others), n, take)
        waiting = len(open_ids(session, wish, others))
    more = n < asked or len(got) >= asked > 0
    return _handed(store, wish, got, order, gone, waiting, more)


def _fair_share(store: Store, wish: Wish, holder: str) -> int:
    """Return how many images one of several people may hold, so that the last ones are shared."""
    if not wish.is_plain or wish.strategy not in (*DRAWN, "in-order"):
        return MOST_HELD
    with store.reading() as session:
        people = leases.count_holders(session, project_id=wish.project_id, besides=holder) + 1
        tally = read_tally(session, wish.project_id)
    left = tally.get("images", 0) - sum(
        tally.get(f"state:{state}", 0) for state in ("label", "skip", "unsure")
    )
    # half of it: who comes next finds something too
    return max(LEAST_HELD, min(MOST_HELD, left // (2 * people)))


def look_ahead(store: Store, wish: Wish, *, n: int = 20) -> Handed:
    """Return what would come next, without leasing it."""
    choose, order = _chooser(store, wish, "", set(), n, set(), wait=30.0)
    with store.reading() as session:
        others = leases.held_by_others(session, project_id=wish.project_id, holder="")
        got = _first(choose(session, others), n, lambda ids: open_ids(session, wish, ids))
        waiting = len(open_ids(session, wish, others))
    return _handed(store, wish, got, order, [], waiting, len(got) >= n)


def shown_again(store: Store, wish: Wish, image_ids: Sequence[int]) -> list[QueuedImage]:
    """Return images that somebody had in this queue already, in the order of these ids."""
    if not image_ids:
        return []
    blind = read_settings(store, project_id=wish.project_id).blind
    with store.reading() as session:
        of_project = select(Image.id).where(Image.project_id == wish.project_id)
        ids: list[int] = []
        for part in chunks(image_ids):
            mine = set(session.scalars(of_project.where(Image.id.in_(part))))
            ids += [image_id for image_id in part if image_id in mine]
        items = items_in_order(session, ids)
    return [queued(item, wish, _reason(wish), blind) for item in items]


def release(
    store: Store, *, project_id: int, holder: str, image_ids: Sequence[int] | None = None
) -> int:
    """Give images back, or all that a holder has; return how many those were."""
    with store.writing() as session:
        return leases.release(session, project_id=project_id, holder=holder, image_ids=image_ids)


Choose = Callable[[Session, set[int]], Iterable[tuple[int, str]]]


def _chooser(
    store: Store, wish: Wish, holder: str, unwanted: set[int], n: int, back: set[int], *,
    wait: float,
) -> tuple[Choose, Order | None]:  # fmt: skip
    """Return what names images in the order in which they are wanted, and the drawn order."""
    with store.reading() as session:
        if session.get(Project, wish.project_id) is None:
            raise NotFoundError(f"There is no project number {wish.project_id}.")
        taken = leases.held_by_others(session, project_id=wish.project_id, holder=holder)
    order = None
    if wish.strategy in DRAWN and n:
        shared = replace(wish, annotator="")
        order = current_order(store, shared, used=(taken | unwanted) - back, wait=wait)

    def choose(session: Session, others: set[int]) -> Iterable[tuple[int, str]]:
        if not n:
            return
        not_these = unwanted | others
        for image_id in order.ids if order else ():
            if image_id not in not_these:
                yield image_id, order.reasons[image_id] if order else ""
        if wish.strategy == LOOK_ALIKES:
            return  # nothing further is alike
        said = set(order.ids) if order else set()
        turn = replace(wish, strategy="in-order") if wish.strategy in DRAWN else wish
        reason = _reason(wish)
        for image_id in in_turn(session, turn, n + len(not_these) + len(said)):
            if image_id not in not_these and image_id not in said:
                yield image_id, reason

    return choose, order


def _reason(wish: Wish) -> str:
    return "" if wish.strategy in (*DRAWN, "in-order") else wish.strategy


def _first(
    wanted: Iterable[tuple[int, str]], n: int, take: Callable[[Iterable[int]], set[int]]
) -> list[tuple[int, str]]:
    """Return the first `n` of the wanted images that can be taken; no more than these are."""
    got: list[tuple[int, str]] = []
    part: list[tuple[int, str]] = []

    def flush() -> None:
        taken = take([image_id for image_id, _ in part]) if part else set()
        got.extend(pair for pair in part if pair[0] in taken)
        part.clear()

    for pair in wanted:
        part.append(pair)
        if len(part) == n - len(got):
            flush()
        if len(got) == n:
            return got
    flush()
    return got


_UNORDERED = (
    "The order could not be worked out, so images come as they were added. "
    "The server's log says why."
)


def _handed(
    store: Store,
    wish: Wish,
    got: Sequence[tuple[int, str]],
    order: Order | None,
    gone: list[int],
    with_others: int,
    more: bool,
) -> Handed:
    blind = read_settings(store, project_id=wish.project_id).blind
    with store.reading() as session:
        as_of = session.scalar(select(func.max(LabelEvent.id))) or 0
        items = items_in_order(session, [image_id for image_id, _ in got])
        tally = read_tally(session, wish.project_id)
    reasons = dict(got)
    return Handed(
        images=[queued(item, wish, reasons[item.id], blind) for item in items],
        gone=gone,
        version=order.version if order else "",
        is_old=order is not None and order.is_old,
        note=order.note if order else _UNORDERED if wish.strategy in DRAWN and got else "",
        with_others=with_others,
        skipped=tally.get("state:skip", 0),
        unsure=tally.get("state:unsure", 0),
        as_of=as_of,
        more=more,
    )


def queued(item: ImageItem, wish: Wish, reason: str, blind: bool = False) -> QueuedImage:
    """Return an image as it is handed out: without what might sway who reads it.

    A second reading knows no label, suggestion, tag or note. In a blind project nobody is told why
    an image was chosen, but for the random share, which has to be stored with the label.
    """
    facts = {f.name: getattr(item, f.name) for f in fields(ImageItem)}
    if wish.strategy in (SECOND, SELF):
        facts |= {"state": "none", "class_id": None, "source": None, "disputed": False}
        facts |= {"suggestion": None, "tags": (), "noted": False, "rev": 0}
    if blind:
        facts |= {"suggestion": None, "disputed": False}
        reason = reason if reason in ("random", SECOND, SELF, "unsure", "skipped") else ""
    return QueuedImage(**facts, reason=reason, as_source=SOURCES.get(wish.strategy))
