"""Large plain TIFF pages as pictures, without ever holding more than a band of their samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.bands import Bands
from cnsapp.imaging.color import spread
from cnsapp.imaging.decoded import Decoded, Reading
from cnsapp.imaging.tiff_colors import (
    PICTURE_CODECS,
    convert,
    depth,
    orientation_of,
    profile_of,
)
from cnsapp.imaging.tiff_pages import in_words
from cnsapp.imaging.tiff_stack import Stack, find_stack, open_tiff

LARGE = 30_000_000  # pixels from which the memory counts
SAMPLES = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3}


@dataclass(frozen=True)
class Plane:
    """One plane of an open stack, and how it is to be shown."""

    path: Path
    stack: Stack
    reading: Reading
    channel: int = 0
    plane: int = 0

    @property
    def page(self) -> Any:
        """Its page, or one like it."""
        return self.stack.place(self.channel, self.plane)[0].keyframe

    @property
    def is_large_and_plain(self) -> bool:
        """Whether it can be shown band by band: each pixel by itself, and upright as it is."""
        page = self.page
        name = getattr(page.photometric, "name", "")
        return (
            page.imagewidth * page.imagelength >= LARGE
            and page.samplesperpixel == SAMPLES.get(name)
            and not page.extrasamples
            and page.axes in ("YX", "YXS", "SYX")
            and page.dtype is not None
            and page.dtype.kind in ("u" if name == "MINISWHITE" else "uif")
            and depth(page) == page.dtype.itemsize * 8
            and int(page.compression) not in PICTURE_CODECS
            and orientation_of(page, []) == 1
            and not (page.samplesperpixel == 1 and profile_of(page))
        )

    def decode(self) -> Decoded:
        """Return the plane as `convert` does: 8-bit samples finished, others still to be read.

        Raises
        ------
        UnreadableImageError
            It is damaged, cut off, or of a compression that cannot be decoded.
        """
        page = self.page
        planar = page.axes == "SYX"
        row = (*page.shape[:1], 1, *page.shape[2:]) if planar else (1, *page.shape[1:])
        decoded = convert(page, np.zeros(row, page.dtype), self.reading.rule)
        size = (page.imagelength, page.imagewidth)
        if page.dtype == np.uint8:
            decoded.samples = self._finished(size, page.samplesperpixel == 1)
        else:
            shape = size if page.samplesperpixel == 1 else (*size, 3)
            decoded.samples = Bands(shape, decoded.samples.dtype, self._again)
        return decoded

    def _finished(self, size: tuple[int, int], gray: bool) -> NDArray[np.uint8]:
        out = np.empty(size if gray else (*size, 3), np.uint8)
        top = 0
        for samples in self._bands(self.stack):
            out[top : top + len(samples)] = samples[..., 0] if gray else samples
            top += len(samples)
        return spread(out) if gray else out

    def _again(self) -> Iterator[NDArray[Any]]:
        try:  # the file may be closed by now
            with open_tiff(self.path) as tiff:
                yield from self._bands(find_stack(tiff, self.reading.limits))
        except UnreadableImageError:
            raise
        except Exception as error:  # codecs raise many kinds
            raise in_words(error) from error

    def _bands(self, stack: Stack) -> Iterator[NDArray[Any]]:
        page = stack.place(self.channel, self.plane)[0].keyframe
        for band in stack.bands(self.channel, self.plane):
            yield convert(page, band, self.reading.rule).samples
