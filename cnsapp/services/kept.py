"""What was worked out and may be asked for again: the last few answers of a kind, by their key."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The answers used last, for all threads. The key must name all that an answer depends on."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the answer of this key, or make it; others are answered meanwhile."""
        found = self.look(key)
        if found is None:
            found = make()  # outside the lock
            self.put(key, found)
        return found

    def look(self, key: Hashable) -> T | None:
        """Return the answer of this key, if it is kept."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def put(self, key: Hashable, answer: T) -> None:
        """Keep an answer; the one that was not used for longest goes when there are too many."""
        with self._lock:
            self._answers[key] = answer
            self._answers.move_to_end(key)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._answers.clear()
