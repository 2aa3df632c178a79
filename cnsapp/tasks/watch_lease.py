"""Which worker looks at a watched folder: one at a time, however long its look takes.

The lease stands in the folder's `state` and is taken in one transaction. Its holder renews it while
it looks; when the holder dies, the next worker of the same computer takes it at once, and one of
another computer when it has run out.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cnsapp.imaging.store import own_name
from cnsapp.processes import process_alive
from db.models import WatchedFolder
from db.session import Store

log = logging.getLogger(__name__)

LEASE_SECONDS = 120.0  # more than clocks of two computers differ, less than anybody minds waiting
RENEW_SECONDS = LEASE_SECONDS / 4
SHORTEST = 0.9  # of the time between two looks


@dataclass
class Lease:
    """A folder that this process may look at, as it was when the look began."""

    folder_id: int
    project_id: int
    path: str
    settings: dict[str, Any]
    state: dict[str, Any]
    is_new: bool  # another process looked before: what we remember of the folder is out of date
    lost: threading.Event = field(default_factory=threading.Event)


class Leases:
    """Takes, renews and checks leases for this process.

    Parameters
    ----------
    watch_seconds
        Between two looks at a folder.
    """

    def __init__(self, store: Store, watch_seconds: float, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now
        self._pause = timedelta(seconds=SHORTEST * watch_seconds)
        self._length = timedelta(seconds=max(LEASE_SECONDS, 3 * watch_seconds))

    def take(self, folder_id: int) -> Lease | None:
        """Take the next look at a folder; None when it is too early, or another worker's."""
        now = self._now()
        with self._store.writing() as session:
            row = session.get(WatchedFolder, folder_id, with_for_update=True)
            if row is None or not row.active:
                return None
            if row.looked_at is not None and row.looked_at >= now - self._pause:
                return None
            state = dict(row.state or {})
            held = state.get("lease") or {}
            if held.get("by") != me() and _holds(held, now):
                return None
            is_new = held.get("by") != me()
            row.state = state = {**state, "lease": self._written(now)}
            row.looked_at = now
            return Lease(row.id, row.project_id, row.path, dict(row.settings), state, is_new)

    @contextmanager
    def renewed(self, lease: Lease) -> Iterator[None]:
        """Renew a lease while the block runs; `lease.lost` says when another worker has it."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(RENEW_SECONDS):
                try:
                    if not self._renew(lease.folder_id):
                        lease.lost.set()
                        return
                except SQLAlchemyError:
                    log.warning("the lease of %s is not renewed", lease.path, exc_info=True)

        thread = threading.Thread(target=renew, name="watch-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def mine(self, session: Session, folder_id: int) -> WatchedFolder | None:
        """Return the folder's row, locked, if the lease is still this process's."""
        row = session.get(WatchedFolder, folder_id, with_for_update=True)
        if row is None or ((row.state or {}).get("lease") or {}).get("by") != me():
            return None
        return row

    def _renew(self, folder_id: int) -> bool:
        with self._store.writing() as session:
            row = self.mine(session, folder_id)
            if row is not None:
                row.state = {**row.state, "lease": self._written(self._now())}
            return row is not None

    def _written(self, now: datetime) -> dict[str, str]:
        until = now + self._length
        return {"by": me(), "at": now.isoformat(), "until": until.isoformat()}


def me() -> str:
    """Return the name of this process, as in `own_name`."""
    return _name_of(os.getpid())


@lru_cache(maxsize=8)
def _name_of(pid: int) -> str:
    del pid  # a forked process has a name of its own
    return own_name("")


def _holds(held: dict[str, Any], now: datetime) -> bool:
    """Return whether another process has the lease and may still use it."""
    try:
        host, pid, _ = str(held["by"]).split("-")
        if datetime.fromisoformat(held["until"]) <= now:
            return False
        seen_at = datetime.fromisoformat(held["at"]).timestamp()
    except (KeyError, ValueError):
        return False
    ours, own_pid, _ = me().split("-")
    if host != ours:
        return True
    return pid != own_pid and process_alive(int(pid), seen_at=seen_at)
