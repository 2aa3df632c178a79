"""Read files a few ahead of their turn, in the order they were given."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from cnsapp.services.import_work import LARGE

T = TypeVar("T")
R = TypeVar("R")

THREADS = max(2, min(4, os.cpu_count() or 1))  # as many as there are reading processes
AHEAD = 4 * THREADS  # pictures that wait, at the size the network takes


def read_ahead(
    read: Callable[[T], R], items: Iterable[T], path_of: Callable[[T], Path]
) -> Iterator[tuple[T, Future[R]]]:
    """Yield each item with what `read` made of it, in order; `result()` raises what it raised.

    Several items are read at once, each by a reading process of its own; large files take turns,
    for the memory. So `read` returns something small, not the whole picture.
    """
    large = threading.Lock()

    def work(item: T) -> R:
        with large if _is_large(path_of(item)) else nullcontext():
            return read(item)

    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(THREADS, "read-ahead") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size >= LARGE
    except OSError:  # reading it will say why
        return False
