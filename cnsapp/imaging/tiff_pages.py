"""The samples of one page of a TIFF: whole, some of them, or a band of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.decoded import refusal
from cnsapp.imaging.jpeg_files import declared_size

PLANAR = 2
JPEGS = (6, 7, 33007, 34892)
JPEG_HEAD = 1 << 12  # bytes of a strip or tile that hold its declared size
JPEG_BLOCK = 64  # px by which an honest one may be larger: it is padded to whole blocks
BLOCK = 1 << 24  # bytes of a page read at a time, where its layout allows it


def whole(page: Any) -> NDArray[Any]:
    """Return a page's samples in its own axes.

    Raises
    ------
    UnreadableImageError
        Part of it is missing in the file.
    """
    check_complete(page)
    samples: NDArray[Any] = page.asarray()
    return samples


def check_complete(page: Any) -> None:
    """Raise UnreadableImageError when a page's data reach beyond the end of its file."""
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > page.parent.filehandle.size:  # tifffile may fill in zeros
        raise UnreadableImageError(
            "The file is cut off: only part of the picture is there.",
            "",
            "Copy it again from where it came from.",
        )
    if page.keyframe.compression in JPEGS:
        handle = page.parent.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            handle.seek(offset)
            check_jpeg(handle.read(min(count, JPEG_HEAD)), page.keyframe)


def check_jpeg(head: bytes, frame: Any) -> None:
    """Raise UnreadableImageError when the JPEG of a strip or tile declares more than its page.

    The decoder would make all of it before anybody sees that it does not fit.
    """
    size = declared_size(head)
    if size is None:
        return  # such as tables alone; the decoder says what is wrong
    page = max(frame.imagewidth, frame.tilewidth), max(frame.imagelength, frame.tilelength)
    if any(one > most + JPEG_BLOCK for one, most in zip(size, page, strict=True)):
        raise UnreadableImageError(
            f"The file is damaged: a part of it declares {size[0]:,} × {size[1]:,} pixels, "
            f"the whole picture {frame.imagewidth:,} × {frame.imagelength:,}.",
            "",
            "Copy it again from where it came from.",
        )


def some_samples(page: Any, wanted: Sequence[int]) -> NDArray[Any]:
    """Return (k, H, W) of some of a page's samples, decoding a strip or tile at a time."""
    check_complete(page)
    frame = page.keyframe
    if frame.is_contiguous and frame.is_final:
        return _from_plain(page, wanted)
    out = np.zeros((len(wanted), frame.imagelength, frame.imagewidth), frame.dtype)
    n = math.prod(frame.chunked) // (frame.samplesperpixel if _is_planar(frame) else 1)
    chosen = (
        [s * n + i for s in sorted(set(wanted)) for i in range(n)]
        if _is_planar(frame)
        else list(range(n))
    )
    for segment, sample, y, x in _segments(page, chosen):
        _put(out, segment, wanted, sample if _is_planar(frame) else None, y, x)
    return out


def _segments(page: Any, chosen: Sequence[int]) -> Iterator[tuple[NDArray[Any], int, int, int]]:
    """Yield ((h, w, samples), sample, y, x) of strips or tiles; none where nothing was written."""
    frame, handle = page.keyframe, page.parent.filehandle
    more: dict[str, Any] = {"_fullsize": frame.is_tiled}
    if frame.compression in JPEGS:
        more |= {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
    for index in chosen:
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            continue  # a tile that was never written
        handle.seek(offset)
        segment, (sample, _, y, x, _), _ = frame.decode(handle.read(count), index, **more)
        if segment is not None:
            yield segment[0], sample, y, x


def _is_planar(frame: Any) -> bool:
    return int(frame.planarconfig) == PLANAR and frame.samplesperpixel > 1


def _put(
    out: NDArray[Any],
    segment: NDArray[Any],
    wanted: Sequence[int],
    sample: int | None,
    y: int,
    x: int,
) -> None:
    height, width = min(len(segment), out.shape[1] - y), min(segment.shape[1], out.shape[2] - x)
    for place, number in enumerate(wanted):
        if sample is None or sample == number:
            part = segment[:height, :width, number if sample is None else 0]
            out[place, y : y + height, x : x + width] = part


def _from_plain(page: Any, wanted: Sequence[int]) -> NDArray[Any]:
    """Return samples of an uncompressed page, reading a few rows at a time."""
    frame, handle = page.keyframe, page.parent.filehandle
    height, width, samples = frame.imagelength, frame.imagewidth, frame.samplesperpixel
    dtype = np.dtype(page.parent.byteorder + frame.dtype.char)
    out = np.empty((len(wanted), height, width), frame.dtype)
    start = page.dataoffsets[0]
    if _is_planar(frame):
        for place, number in enumerate(wanted):
            handle.seek(start + number * height * width * dtype.itemsize)
            out[place] = handle.read_array(dtype, height * width).reshape(height, width)
        return out
    rows = max(1, BLOCK // (width * samples * dtype.itemsize))
    for y in range(0, height, rows):
        n = min(rows, height - y)
        handle.seek(start + y * width * samples * dtype.itemsize)
        block = handle.read_array(dtype, n * width * samples).reshape(n, width, samples)
        for place, number in enumerate(wanted):
            out[place, y : y + n] = block[:, :, number]
    return out


def bands_of(page: Any) -> Iterator[NDArray[Any]]:
    """Yield what `whole` gives, cut along Y, in the page's own axes (YX, YXS or SYX)."""
    check_complete(page)
    frame = page.keyframe
    if frame.is_contiguous and frame.is_final:
        yield from plain_bands(page, page.dataoffsets[0])
        return
    height, n_samples = frame.imagelength, frame.samplesperpixel
    step = frame.tilelength if frame.is_tiled else frame.rowsperstrip
    across = -(-frame.imagewidth // frame.tilewidth) if frame.is_tiled else 1
    down = -(-height // step)
    row_bytes = frame.imagewidth * n_samples * frame.dtype.itemsize
    together = max(1, BLOCK // (row_bytes * step))  # rows of strips or tiles a band
    planes = n_samples if _is_planar(frame) else 1
    inside = 1 if _is_planar(frame) else n_samples
    for first in range(0, down, together):
        top, last = first * step, min(first + together, down)
        shape = (planes, min(last * step, height) - top, frame.imagewidth, inside)
        band = np.full(shape, frame.nodata, frame.dtype)
        chosen = [
            (plane * down + row) * across + column
            for plane in range(planes)
            for row in range(first, last)
            for column in range(across)
        ]
        for segment, plane, y, x in _segments(page, chosen):
            part = band[plane if planes > 1 else 0, y - top :, x:]
            part = part[: len(segment), : segment.shape[1]]
            part[:] = segment[: len(part), : part.shape[1]]
        yield _in_axes(band, frame)


def plain_bands(page: Any, start: int) -> Iterator[NDArray[Any]]:
    """Yield the bands of an uncompressed page, or one like it, that begins at a place of a file."""
    frame, handle = page.keyframe, page.parent.filehandle
    height, width = frame.imagelength, frame.imagewidth
    planes = frame.samplesperpixel if _is_planar(frame) else 1
    inside = 1 if _is_planar(frame) else frame.samplesperpixel
    dtype = np.dtype(page.parent.byteorder + frame.dtype.char)
    row_bytes = width * inside * dtype.itemsize
    rows = max(1, BLOCK // (row_bytes * planes))
    for top in range(0, height, rows):
        n = min(rows, height - top)
        band = np.empty((planes, n, width, inside), frame.dtype)
        for plane in range(planes):
            handle.seek(start + (plane * height + top) * row_bytes)
            values = handle.read_array(dtype, n * width * inside)
            band[plane] = values.reshape(n, width, inside)
        yield _in_axes(band, frame)


def _in_axes(band: NDArray[Any], frame: Any) -> NDArray[Any]:
    """Return (planes, h, w, samples) in the axes of a page."""
    if _is_planar(frame):
        return band[..., 0]
    return band[0] if frame.samplesperpixel > 1 else band[0, ..., 0]


def in_words(error: Exception) -> UnreadableImageError:
    """Return a codec's complaint as a reason that a biologist understands."""
    text = str(error)
    if "codec" in text.lower() or "not supported" in text.lower():
        return UnreadableImageError(
            f"The TIFF uses a compression that cannot be decoded here ({text[:120]}).",
            "",
            "Save it as TIFF with LZW compression or none.",
        )
    return refusal(error)
