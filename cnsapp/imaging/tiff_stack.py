"""Which planes a TIFF holds (channels, z, times, pages), and how to read one without the rest."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.decoded import brightest
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.tiff_meta import ChannelMeta, describe
from cnsapp.imaging.tiff_pages import bands_of, plain_bands, some_samples, whole

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says, our notes say in words

# kinds of tifffile's series whose metadata say what the pages are
DESCRIBED = ("shaped", "lsm", "mmstack", "ome", "imagej", "ndtiff", "fluoview", "stk", "qpi",
             "scanimage", "nih")  # fmt: skip
SUBFILE_TYPE, SUB_IFDS = 254, 330
SMALLER_COPY_OR_MASK = 1 | 4
MAX_TAGS = 4096
GRAYS = (0, 1)  # photometric: white is zero, black is zero


@dataclass
class Stack:
    """The planes of a TIFF that is open.

    Parameters
    ----------
    tiff
        The open file.
    page
        Its first page: all planes of a described stack are like it.
    pages
        Numbers of the pages that are pictures of their own: no smaller copies, no masks.
    lead
        (axis, size) of the planes by the file's metadata, slowest first; () where it has none.
    samples
        Channels that lie within a page: 1 for gray and for colours.
    images
        Pictures in the file beside the stack.
    meta
        Names, colours and pixel size.
    """

    tiff: Any
    page: Any
    pages: list[int]
    lead: tuple[tuple[str, int], ...] = ()
    samples: int = 1
    images: int = 1
    meta: ChannelMeta = field(default_factory=ChannelMeta)

    @property
    def is_plain(self) -> bool:
        """Whether each page is a picture by itself."""
        return not self.lead and self.samples == 1

    @property
    def channels(self) -> int:
        """Number of channels that are no colours."""
        return self._size("C") * self.samples

    @property
    def times(self) -> int:
        """Number of times."""
        return self._size("T")

    @property
    def plane_axis(self) -> str:
        """The axis that `planes` counts: z, or one that only the file's writer knows."""
        others = [axis for axis, size in self.lead if axis not in "CTZ" and size > 1]
        return "Z" if self._size("Z") > 1 or not others else others[0]

    @property
    def planes(self) -> int:
        """Number of z planes or pages."""
        return self._size(self.plane_axis) if self.lead else len(self.pages)

    def _size(self, axis: str) -> int:
        return dict(self.lead).get(axis, 1)

    def raw(self, channel: int, plane: int) -> NDArray[Any]:
        """Return a page as it is stored, in the axes of `page`, at the first time."""
        page, start = self.place(channel, plane)
        if start is None:
            return whole(page)
        dtype = np.dtype(self.tiff.byteorder + page.dtype.char)
        handle = self.tiff.filehandle
        handle.seek(start)
        samples: NDArray[Any] = handle.read_array(dtype, math.prod(page.shape))
        return samples.reshape(page.shape)

    def bands(self, channel: int, plane: int) -> Iterator[NDArray[Any]]:
        """Yield what `raw` returns, a band of rows at a time."""
        page, start = self.place(channel, plane)
        yield from bands_of(page) if start is None else plain_bands(page, start)

    def place(self, channel: int, plane: int) -> tuple[Any, int | None]:
        """Return the page of a plane; and where it is not listed, one like it and its place."""
        if not self.lead:
            return self.tiff.pages[self.pages[plane]], None
        number = self._number(channel // self.samples, plane)
        found = self._found(number)
        if found is not None:
            return found, None
        return self.page, self.page.dataoffsets[0] + number * self.page.nbytes  # by ImageJ

    def grays(
        self, channels: Sequence[int], planes: Sequence[int]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (channel, samples) of the maximum over planes, reading a plane at a time.

        The samples are (H, W), as stored: not upright, not inverted.
        """
        if self.samples == 1 or self._size("C") > 1:
            for channel in channels:
                yield channel, self._largest([channel], planes)[0]
            return
        largest = self._largest(channels, planes)
        yield from zip(channels, largest, strict=True)

    def _largest(self, channels: Sequence[int], planes: Sequence[int]) -> NDArray[Any]:
        largest: NDArray[Any] | None = None
        for plane in planes:
            found = self._samples(channels, plane)
            if largest is None:
                largest = found
            elif found.shape == largest.shape:  # pages of another size are no part of it
                largest = brightest(largest, found)
        assert largest is not None  # there is at least one plane
        return largest

    def _samples(self, channels: Sequence[int], plane: int) -> NDArray[Any]:
        """Return (k, H, W) of channels that lie in one page."""
        if self.samples == 1:
            return self.raw(channels[0], plane)[None]
        page = self.place(channels[0], plane)[0]
        if page.keyframe.samplesperpixel < self.page.samplesperpixel:
            raise UnreadableImageError(
                "A later page of the file has fewer channels than the first."
            )
        return some_samples(page, [channel % self.samples for channel in channels])

    def _found(self, number: int) -> Any:
        """Return the page that holds a plane, or None where planes follow each other unlisted."""
        series = self.tiff.series[0]
        if number and len(self.tiff.pages) < len_of(self.lead):
            return None
        page = series[number] if number < len(series) else None
        if page is None:
            raise UnreadableImageError(
                "A plane of the stack is missing: it lies in another file.",
                "",
                "Save the whole stack as one file.",
            )
        return page

    def _number(self, channel: int, plane: int) -> int:
        at = {"C": channel, self.plane_axis: plane}
        number = 0
        for axis, size in self.lead:
            number = number * size + at.get(axis, 0)
        return number


def len_of(lead: Sequence[tuple[str, int]]) -> int:
    """Return the number of planes of a stack."""
    return math.prod(size for _, size in lead)


def find_stack(tiff: Any, limits: Limits) -> Stack:
    """Return what planes an open TIFF holds, after checking what it declares.

    Raises
    ------
    UnreadableImageError
        It declares more pixels, values or pages than the limits allow.
    """
    page = tiff.pages.first
    check_page(page, limits)
    stack = Stack(tiff, page, list_pages(tiff, limits), samples=_channel_samples(page))
    kind = next((kind for kind in DESCRIBED if getattr(tiff, f"is_{kind}", False)), None)
    if kind is not None:
        try:
            _describe(stack)
        except Exception:  # metadata that nobody can follow: the pages are still there
            stack.lead = ()
    limits.check_frames(len_of(stack.lead) * stack.samples)
    stack.meta = describe(tiff, page, stack.channels)
    return stack


def check_page(page: Any, limits: Limits) -> None:
    """Refuse a page that declares too much; errors as `find_stack`."""
    limits.check_size(page.imagewidth, page.imagelength)
    limits.check_values(page.imagewidth, page.imagelength, page.samplesperpixel * page.imagedepth)
    if page.is_tiled:  # a tile may be declared larger than its image
        inside = page.samplesperpixel * page.tiledepth
        limits.check_values(page.tilewidth, page.tilelength, inside)


def list_pages(tiff: Any, limits: Limits) -> list[int]:
    """Return the numbers of the pages that are no smaller copies or masks of another.

    Only the directories are looked at, each once, and no more than the limits allow.
    """
    handle = tiff.filehandle
    order: Literal["little", "big"] = "little" if tiff.byteorder == "<" else "big"
    big = tiff.is_bigtiff
    wide, entry, counts = (8, 20, 8) if big else (4, 12, 2)
    size = handle.size

    def number(at: int, n: int) -> int:
        handle.seek(at)
        return int.from_bytes(handle.read(n), order)

    pages: list[int] = []
    seen: set[int] = set()
    at = number(8 if big else 4, wide)
    while 0 < at < size and at not in seen:
        n_tags = number(at, counts)
        if not 0 < n_tags <= MAX_TAGS:
            break
        kind = _subfile_type(handle, at + counts, min(n_tags, 3), entry, order)
        if not seen or not kind & SMALLER_COPY_OR_MASK:
            pages.append(len(seen))
        seen.add(at)
        limits.check_frames(len(seen))
        at = number(at + counts + n_tags * entry, wide)
    return pages or [0]


def _subfile_type(handle: Any, at: int, n_tags: int, entry: int, order: Any) -> int:
    handle.seek(at)
    block = handle.read(n_tags * entry)  # tags are sorted, and this is the lowest
    for start in range(0, len(block) - entry + 1, entry):
        if int.from_bytes(block[start : start + 2], order) == SUBFILE_TYPE:
            short = int.from_bytes(block[start + 2 : start + 4], order) == 3
            value = start + entry - (4 if entry == 12 else 8)
            return int.from_bytes(block[value : value + (2 if short else 4)], order)
    return 0


def _channel_samples(page: Any) -> int:
    """Return how many values of a pixel are channels: 1 for gray, colours and palettes."""
    if page.samplesperpixel < 2 or int(page.photometric) not in GRAYS:
        return 1
    extra = [int(value) for value in page.extrasamples]
    opacities = sum(1 for value in extra if value in (1, 2))
    return max(1, int(page.samplesperpixel) - opacities)


def _describe(stack: Stack) -> None:
    """Take the axes of the planes from the file's metadata, where they agree with its pages."""
    series = stack.tiff.series[0]
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    lead = [(a, n) for a, n in zip(axes, shape, strict=True) if a not in "YXS"]
    n_pages = math.prod(shape) // math.prod(stack.page.shape)
    if stack.samples > 1 and len_of(lead) == n_pages * stack.samples:
        lead = [(axis, n) for axis, n in lead if (axis, n) != ("C", stack.samples)]
    if len_of(lead) != n_pages or n_pages == 1 or len({axis for axis, _ in lead}) != len(lead):
        stack.images = max(1, len(stack.pages)) if n_pages == 1 else 1
        return
    last = stack.page.dataoffsets[0] + n_pages * stack.page.nbytes
    if len(stack.tiff.pages) < n_pages and (
        not stack.page.is_final or last > stack.tiff.filehandle.size
    ):
        return  # neither listed nor one after another
    stack.lead = tuple(lead)


def open_tiff(path: Any) -> Any:
    """Return tifffile's view of a file, of this file alone: its metadata may name others."""
    return tifffile.TiffFile(path, _multifile=False)
