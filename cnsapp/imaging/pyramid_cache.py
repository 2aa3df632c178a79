"""How much room the tiles of large pictures take: those unused the longest make place for new ones.

Only whole pyramids are removed, and never one that was made or looked at in the last minutes. What
is still being made lies under another name and is not seen here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cnsapp.imaging.pyramid import ABOUT, drop_pyramid

ENDING = ".tiles"
FRESH = 600.0  # seconds since somebody looked: the browser may ask for more tiles of it
ROOM = 0.9  # of the limit is left filled, so that not every new picture removes one
TOUCHED = 60.0  # seconds: a use is noted no more often


class TileCache:
    """The pyramids below a `thumbs` folder, for the one process that makes them. Thread-safe."""

    def __init__(self, thumbs: Path) -> None:
        self._thumbs = thumbs
        self._sizes: dict[Path, int] | None = None  # bytes; read from the disk at the first need
        self._lock = threading.Lock()

    def add(self, folder: Path, max_bytes: int) -> int:
        """Note a pyramid that was just made, make room for it, and return how many went.

        Parameters
        ----------
        max_bytes
            What all pyramids together may take; 0: as much as there is.
        """
        if not max_bytes:
            return 0
        with self._lock:
            if self._sizes is None:
                self._sizes = {one: _size(one) for one in _pyramids(self._thumbs)}
            self._sizes[folder] = _size(folder)
            return self._make_room(self._sizes, max_bytes)

    def _make_room(self, sizes: dict[Path, int], max_bytes: int) -> int:
        total = sum(sizes.values())
        if total <= max_bytes:
            return 0
        dropped, now = 0, time.time()
        for used, folder in sorted((_last_use(one), one) for one in sizes):
            if total <= ROOM * max_bytes or now - used < FRESH:
                break  # all that follow were looked at later
            drop_pyramid(folder)
            total -= sizes.pop(folder)
            dropped += 1
        return dropped


def note_use(folder: Path) -> None:
    """Remember that somebody looks at a pyramid; costs nothing to speak of."""
    about = folder / ABOUT
    try:
        if time.time() - about.stat().st_mtime > TOUCHED:
            os.utime(about)
    except OSError:
        return  # it is gone, or its disk may not be written: then it counts as not looked at


def _last_use(folder: Path) -> float:
    try:
        return (folder / ABOUT).stat().st_mtime
    except OSError:
        return 0.0


def _pyramids(thumbs: Path) -> Iterator[Path]:
    with os.scandir(thumbs) as places:
        below = [place.path for place in places if len(place.name) == 2 and place.is_dir()]
    for place in below:
        with os.scandir(place) as entries:
            yield from (Path(one.path) for one in entries if one.name.endswith(ENDING))


def _size(folder: Path) -> int:
    total = 0
    for one in folder.rglob("*.*"):
        try:
            total += one.stat().st_size
        except OSError:
            continue  # it went meanwhile
    return total
