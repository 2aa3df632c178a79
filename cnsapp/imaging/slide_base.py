"""What every whole slide can do, whichever library reads it: a region or a thumbnail as sRGB."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import InvalidInputError

Pixels = NDArray[np.uint8]

MAX_READ = 32_000_000  # pixels of a level held at once; larger areas are read in parts
PLAUSIBLE_UM = (0.02, 20.0)  # micrometres a pixel of a microscope; 72 dpi would be 353
SAME = 1e-6  # two places on a level that are the same but for rounding


@dataclass(frozen=True)
class SlideFacts:
    """What is known of a whole slide before a tile of it is read.

    Parameters
    ----------
    format
        Aperio, Hamamatsu, MIRAX, Leica, Ventana, OME-TIFF, TIFF pyramid, tiled TIFF and the like.
    reader
        The library that reads it: openslide or tifffile.
    width, height
        Of the finest level, in pixels.
    levels
        (width, height) of each level, the finest first.
    um_per_px
        Micrometres a pixel of the finest level, (across, down); None where the file does not say.
    samples
        Kind of the samples: uint8, uint16 and so on.
    channels
        Channels that are no plain colours (fluorescence); 1 for gray and colour slides.
    notes
        What was done to show it, in sentences.
    """

    format: str
    reader: str
    width: int
    height: int
    levels: tuple[tuple[int, int], ...]
    um_per_px: tuple[float, float] | None
    samples: str = "uint8"
    channels: int = 1
    notes: tuple[str, ...] = ()

    @property
    def downsamples(self) -> tuple[float, ...]:
        """How many pixels of the finest level one pixel of each level covers, along a side."""
        return tuple(
            math.sqrt((self.width / w) * (self.height / h)) for w, h in self.levels
        )  # the finest: 1.0

    @property
    def mean_um_per_px(self) -> float | None:
        """One figure for both directions: the square root of a pixel's area in µm²."""
        return None if self.um_per_px is None else math.sqrt(self.um_per_px[0] * self.um_per_px[1])

    def as_json(self) -> dict[str, Any]:
        """Return the facts as they are stored and sent between processes."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> SlideFacts:
        """Return the facts that `as_json` gave."""
        um = stored["um_per_px"]
        return cls(
            format=str(stored["format"]),
            reader=str(stored["reader"]),
            width=int(stored["width"]),
            height=int(stored["height"]),
            levels=tuple((int(w), int(h)) for w, h in stored["levels"]),
            um_per_px=None if um is None else (float(um[0]), float(um[1])),
            samples=str(stored["samples"]),
            channels=int(stored["channels"]),
            notes=tuple(str(note) for note in stored["notes"]),
        )


def plausible_um(x: float | None, y: float | None) -> tuple[float, float] | None:
    """Return micrometres a pixel, or None when a file's figures cannot be a microscope's."""
    low, high = PLAUSIBLE_UM
    if x is None or y is None or not (low <= x <= high and low <= y <= high):
        return None
    return float(x), float(y)


class Slide(ABC):
    """An open slide. Label and macro pictures inside the file are never offered."""

    facts: SlideFacts

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @abstractmethod
    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a rectangle that lies within a level: sRGB, uint8 (height, width, 3)."""

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read_region(self, x: int, y: int, side: int, out_px: int) -> Pixels:
        """Return a square of the slide at a chosen size.

        Pixels come from the coarsest level that is still at least as fine as asked for, so that
        nothing is invented where the slide knows more. Outside the slide it is white.

        Parameters
        ----------
        x, y
            Left and upper edge, in pixels of the finest level.
        side
            Side of the square, in pixels of the finest level.
        out_px
            Side of the result, in pixels. `side == out_px` gives the slide's own pixels.

        Returns
        -------
        ndarray
            uint8 (out_px, out_px, 3), sRGB.

        Raises
        ------
        InvalidInputError
            `side` or `out_px` is not positive.
        """
        if side < 1 or out_px < 1:
            raise InvalidInputError(f"A region of {side} px shown on {out_px} px has no extent.")
        return self._area(float(x), float(y), float(side), float(side), out_px, out_px)

    def thumbnail(self, max_side: int) -> Pixels:
        """Return the whole slide, its long side `max_side` pixels: uint8 (H, W, 3), sRGB.

        Slides smaller than that are returned as they are.
        """
        width, height = thumbnail_size(self.facts.width, self.facts.height, max_side)
        return self._area(0.0, 0.0, self.facts.width, self.facts.height, width, height)

    def _area(
        self, x: float, y: float, width: float, height: float, out_w: int, out_h: int
    ) -> Pixels:
        level = self._level_for(max(width / out_w, height / out_h))
        level_w, level_h = self.facts.levels[level]
        scale_x, scale_y = level_w / self.facts.width, level_h / self.facts.height
        if width * scale_x * height * scale_y > MAX_READ and max(out_w, out_h) > 1:
            return self._in_halves(x, y, width, height, out_w, out_h)
        box = (x * scale_x, y * scale_y, (x + width) * scale_x, (y + height) * scale_y)
        return self._resampled(level, box, out_w, out_h)

    def _in_halves(
        self, x: float, y: float, width: float, height: float, out_w: int, out_h: int
    ) -> Pixels:
        if out_w >= out_h:
            cut = out_w // 2
            part = width * cut / out_w
            left = self._area(x, y, part, height, cut, out_h)
            right = self._area(x + part, y, width - part, height, out_w - cut, out_h)
            return np.concatenate([left, right], axis=1)
        cut = out_h // 2
        part = height * cut / out_h
        upper = self._area(x, y, width, part, out_w, cut)
        lower = self._area(x, y + part, width, height - part, out_w, out_h - cut)
        return np.concatenate([upper, lower], axis=0)

    def _level_for(self, ratio: float) -> int:
        """Return the coarsest level that is at least as fine as `ratio` finest pixels a pixel."""
        found = 0
        for level, downsample in enumerate(self.facts.downsamples):
            if downsample <= ratio * 1.005 and downsample >= self.facts.downsamples[found]:
                found = level
        return found

    def _resampled(
        self, level: int, box: tuple[float, float, float, float], out_w: int, out_h: int
    ) -> Pixels:
        left, upper, right, lower = box
        ratio_x, ratio_y = (right - left) / out_w, (lower - upper) / out_h
        exact = (
            abs(ratio_x - 1) < SAME
            and abs(ratio_y - 1) < SAME
            and abs(left - round(left)) < 1e-3
            and abs(upper - round(upper)) < 1e-3
        )
        if exact:
            return self._padded(level, round(left), round(upper), out_w, out_h)
        # a margin, so that neighbouring tiles are filtered with the same pixels at their seam
        margin_x, margin_y = math.ceil(2 * ratio_x) + 2, math.ceil(2 * ratio_y) + 2
        x0, y0 = math.floor(left) - margin_x, math.floor(upper) - margin_y
        x1, y1 = math.ceil(right) + margin_x, math.ceil(lower) + margin_y
        source = self._padded(level, x0, y0, x1 - x0, y1 - y0)
        image = Image.fromarray(source).resize(
            (out_w, out_h),
            Image.Resampling.BICUBIC,
            box=(left - x0, upper - y0, right - x0, lower - y0),
        )
        return np.asarray(image)

    def _padded(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a rectangle of a level; what lies outside the slide is white."""
        level_w, level_h = self.facts.levels[level]
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + width, level_w), min(y + height, level_h)
        if x1 - x0 == width and y1 - y0 == height:
            return self._read_level(level, x, y, width, height)
        out = np.full((height, width, 3), 255, np.uint8)
        if x1 > x0 and y1 > y0:
            inside = self._read_level(level, x0, y0, x1 - x0, y1 - y0)
            out[y0 - y : y1 - y, x0 - x : x1 - x] = inside
        return out


def thumbnail_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Return (width, height) of a thumbnail whose long side is at most `max_side`.

    Examples
    --------
    >>> thumbnail_size(4000, 1000, 200)
    (200, 50)
    >>> thumbnail_size(100, 50, 200)
    (100, 50)
    """
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
