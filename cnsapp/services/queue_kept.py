"""The orders of the queue, kept and made anew behind the requests.

An order says what to hand out, never what is still to be done: that is asked of the database each
time. So an order that is a second old costs nothing but that second, and the next image never waits
for the next order.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, func, select

from cnsapp.services import queue_orders
from cnsapp.services.label_settings import read_settings
from cnsapp.services.queue_orders import SIZE, Basis, Order, basis_of, is_fresh
from cnsapp.services.queue_rules import Wish
from db.models import Image
from db.session import Store

FEW = 40  # with fewer left, the next order is made
KEPT_ORDERS = 32

log = logging.getLogger(__name__)


class Orders:
    """The orders of an installation, the ones used last; each is made by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Wish, Order] = OrderedDict()
        self._making: dict[Wish, threading.Event] = {}

    def kept(self, wish: Wish) -> Order | None:
        """Return the order that is there, however old."""
        with self._lock:
            if wish in self._kept:
                self._kept.move_to_end(wish)
            return self._kept.get(wish)

    def make(self, store: Store, wish: Wish, size: int) -> threading.Event:
        """Have a new order made behind the caller; the event is set when it is there."""
        with self._lock:
            if wish in self._making:
                return self._making[wish]
            done = self._making[wish] = threading.Event()
        work = threading.Thread(
            target=self._make, args=(store, wish, size, done), name="queue", daemon=True
        )
        work.start()
        return done

    def _make(self, store: Store, wish: Wish, size: int, done: threading.Event) -> None:
        try:
            order = queue_orders.make_order(store, wish, size)
            with self._lock:
                self._kept[wish] = order
                self._kept.move_to_end(wish)
                while len(self._kept) > KEPT_ORDERS:
                    self._kept.popitem(last=False)
        except Exception:
            log.exception("an order of images could not be made")
        finally:
            with self._lock:
                self._making.pop(wish, None)
            done.set()


_orders: WeakKeyDictionary[Engine, Orders] = WeakKeyDictionary()


def orders_of(store: Store) -> Orders:
    """Return the orders kept for an installation."""
    return _orders.setdefault(store.engine, Orders())


def current_order(
    store: Store, wish: Wish, *, used: Sequence[int] | set[int], wait: float
) -> Order | None:
    """Return the best order there is within `wait` seconds; a better one may be in the making.

    Parameters
    ----------
    wish
        Without the annotator: an order serves all people.
    used
        Images of it that cannot be handed out: somebody holds them, or has them behind them.

    Returns
    -------
    One that says that it is old, empty perhaps, where a better one takes longer; None when it
    cannot be made: then the caller hands out what it likes.
    """
    orders = orders_of(store)
    order = orders.kept(wish)
    if order is None or not _good(store, order, wish, set(used)):
        in_time = orders.make(store, wish, SIZE + len(used)).wait(wait)
        order = orders.kept(wish)
        if not in_time:
            nothing = Order([], {}, Basis("", 0, None, 0.0, 0), 0)
            order = replace(order or nothing, is_old=True)
    return order


def _good(store: Store, order: Order, wish: Wish, used: set[int]) -> bool:
    settings = read_settings(store, project_id=wish.project_id)
    with store.reading() as session:
        if not is_fresh(order, session, wish, basis_of(session, store, wish, settings)):
            return False
        left = [i for i in order.ids if i not in used]
        if wish.filter.state != "unlabelled":  # labelled or not, it is to be looked at
            return len(left) >= FEW or len(order.ids) < SIZE
        of_order = select(func.count()).where(
            Image.id.in_(left), Image.current_state.in_(("none", "waiting", "undecided"))
        )
        n_left = session.scalar(of_order) or 0
    return n_left >= FEW or len(order.ids) < SIZE
