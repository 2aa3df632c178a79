"""Streams of images through a network: read ahead, cut into batches, run on every core."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from cnsapp.errors import Cancelled
from cnsapp.ml.device import Device, cpu_threads

T = TypeVar("T")
R = TypeVar("R")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def prefetch(items: Iterable[T], ahead: int = 8) -> Iterator[T]:
    """Read a stream in a second thread, at most `ahead` items in advance; errors come through."""
    lane: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def offer(item: tuple[str, T | BaseException | None]) -> None:
        while not stop.is_set():
            try:
                lane.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                offer(("item", item))
                if stop.is_set():
                    return
            offer(("end", None))
        except BaseException as error:  # handed to the reader's caller below
            offer(("error", error))

    thread = threading.Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = lane.get()
            if kind == "end":
                return
            if isinstance(item, BaseException) and kind == "error":
                raise item
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(timeout=5)


def run_batches(
    work: Callable[[T], R],
    batches: Iterable[T],
    device: Device,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[R]:
    """Yield `work(batch)` for every batch in order, with the batches read in a thread of their own.

    On a CPU each core runs a batch of its own on one torch thread. Several threads on one batch
    wait for the slowest after every layer: with a browser on the same two cores, two threads a
    batch did 18 images a second and two batches at once 55 (EfficientNet-Lite0, 224 pixels).

    Raises
    ------
    Cancelled
        When `cancelled()` says so; it is asked before every batch.
    """
    ahead = prefetch(batches)
    n = cpu_threads() if device.name == "cpu" else 1
    if n == 1:
        for batch in ahead:
            _stop_if(cancelled)
            yield work(batch)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(n, "forward", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for batch in ahead:
                _stop_if(cancelled)
                waiting.append(pool.submit(work, batch))
                if len(waiting) > n:
                    yield waiting.popleft().result()
            while waiting:
                _stop_if(cancelled)
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(n)  # threads started from here on, and this one, get all again


def _stop_if(cancelled: Callable[[], bool] | None) -> None:
    if cancelled is not None and cancelled():
        raise Cancelled
