"""How fast a job gets ahead, in words: the count, the rate of the last half minute, time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

WINDOW = 30.0  # seconds over which the rate is taken: folders hold small files and large ones


class Pace:
    """Remembers how far a job was over the last half minute.

    Parameters
    ----------
    clock
        Returns seconds, such as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque([(clock(), 0)])

    def line(self, done: float, total: int, what: str) -> str:
        """Return such as "1,200 of 100,000 files, 105 a second, 16 min left"."""
        now = self._clock()
        if now - self._seen[-1][0] >= 0.5:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW:
            self._seen.popleft()
        began, before = self._seen[0]
        words = f"{int(done):,} of {total:,} {what if total == 1 else what + 's'}"
        if now - began < 1.0 or done <= before:
            return words
        rate = (done - before) / (now - began)  # a second
        shown = f"{rate:.0f} a second" if rate >= 2 else f"{60 * rate:.0f} a minute"
        return f"{words}, {shown}, {_left((total - done) / rate)}"


def _left(seconds: float) -> str:
    if seconds < 2:
        return "a moment left"
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"
