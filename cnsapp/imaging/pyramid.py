"""A large picture as small tiles at every scale, so that a screen loads only what it shows.

Level 0 is the picture itself; every further level halves it, until one tile holds it. A pixel of
level k is the mean of the 2^k x 2^k pixels below it, so the levels lie exactly over each other.
Tiles are a cache: they may be deleted at any time and are then made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import read_image
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.store import is_abandoned, own_name

TILE = 512  # px: a side of a tile
QUALITY = 90
PART = ".tiles-"  # .tiles-<host>-<pid>-<random> in thumbs/: a folder of tiles not complete yet
ROWS = 1024  # rows halved at a time, so that a large picture is never copied whole
ABOUT = "pyramid.json"


@dataclass(frozen=True)
class Pyramid:
    """The shape of a pyramid.

    Parameters
    ----------
    width, height
        Of level 0, in pixels.
    """

    width: int
    height: int

    @property
    def levels(self) -> int:
        """Number of levels; the last one fits into a single tile.

        Examples
        --------
        >>> [Pyramid(side, 10).levels for side in (1, 512, 513, 1024, 1025, 10_000)]
        [1, 1, 2, 2, 3, 6]
        """
        level = 0
        while max(self.size(level)) > TILE:
            level += 1
        return level + 1

    def size(self, level: int) -> tuple[int, int]:
        """Return (width, height) of a level in its own pixels."""
        scale = 1 << level
        return -(-self.width // scale), -(-self.height // scale)

    def tiles(self, level: int) -> tuple[int, int]:
        """Return (columns, rows) of tiles of a level."""
        width, height = self.size(level)
        return -(-width // TILE), -(-height // TILE)

    def has(self, level: int, x: int, y: int) -> bool:
        """Return whether there is a tile in column x and row y of a level."""
        if not 0 <= level < self.levels:
            return False
        columns, rows = self.tiles(level)
        return 0 <= x < columns and 0 <= y < rows


def tile_path(folder: Path, level: int, x: int, y: int) -> Path:
    """Return where a tile lies in the folder of its pyramid."""
    return folder / str(level) / f"{x}_{y}.jpg"


def find_pyramid(folder: Path) -> Pyramid | None:
    """Return the pyramid in a folder, or None when there is none that can be used."""
    try:
        return Pyramid(**json.loads((folder / ABOUT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def make_pyramid(
    path: Path, rule: ReadingRule, limits: Limits, folder: Path, *, gray: bool = False
) -> dict[str, int]:
    """Cut a picture into tiles at every scale; the folder appears whole or not at all.

    Parameters
    ----------
    path, rule, limits
        As for `read_image`.
    folder
        Where the tiles go, below a folder of the store and two letters; the latter is made. A
        pyramid that is there already stays.
    gray
        Keep one channel only: of a rule that shows a single channel in white.

    Returns
    -------
    dict
        `width` and `height`, as of a `Pyramid`: plain data, since a process of its own sends it.

    Raises
    ------
    UnreadableImageError
        As `read_image`; nothing is left behind.
    OSError
        The folder cannot be written; nothing is left behind.
    """
    pixels = read_image(path, rule, limits).pixels
    shape = Pyramid(width=pixels.shape[1], height=pixels.shape[0])
    part = folder.parent.parent / own_name(PART)
    try:
        part.mkdir()
        for level, picture in enumerate(_levels(pixels[..., 0] if gray else pixels, shape)):
            _cut(picture, part / str(level))
        (part / ABOUT).write_text(json.dumps(asdict(shape)), encoding="utf-8")
        _settle(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return asdict(shape)


def drop_pyramid(folder: Path) -> None:
    """Delete the tiles of a folder; it is gone at once for everyone who looks."""
    gone = folder.parent.parent / own_name(PART)
    try:
        os.replace(folder, gone)
    except OSError:
        return  # it is not there, or another one deletes it
    shutil.rmtree(gone, ignore_errors=True)


def clean_half_made(thumbs: Path) -> int:
    """Remove the folders that a process left behind when it was killed; return how many."""
    left = [part for part in thumbs.glob(f"{PART}*") if is_abandoned(part, PART)]
    for part in left:
        shutil.rmtree(part, ignore_errors=True)
    return len(left)


def _settle(part: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(part, folder)
    except OSError:
        if find_pyramid(folder) is not None:
            return  # another process was quicker; its tiles are the same
        drop_pyramid(folder)  # a remainder without its description
        os.replace(part, folder)


def _levels(pixels: NDArray[np.uint8], shape: Pyramid) -> Iterator[NDArray[np.uint8]]:
    for level in range(shape.levels):
        if level:
            pixels = _halved(pixels)
        yield pixels


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = -(-pixels.shape[0] // 2), -(-pixels.shape[1] // 2)
    out = np.empty((height, width, *pixels.shape[2:]), np.uint8)
    for start in range(0, len(pixels), ROWS):
        half = np.asarray(_picture(pixels[start : start + ROWS]).reduce(2))
        out[start // 2 : start // 2 + len(half)] = half
    return out


def _cut(pixels: NDArray[np.uint8], folder: Path) -> None:
    folder.mkdir()
    for top in range(0, pixels.shape[0], TILE):
        for left in range(0, pixels.shape[1], TILE):
            tile = _picture(pixels[top : top + TILE, left : left + TILE])
            name = f"{left // TILE}_{top // TILE}.jpg"
            tile.save(folder / name, "JPEG", quality=QUALITY, subsampling=0)


def _picture(pixels: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels))
