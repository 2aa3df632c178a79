"""Pyramids that openslide cannot read: OME-TIFF, SubIFDs, deep samples; read by tifffile."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.color import lay_over, to_rgb
from cnsapp.imaging.decoded import refusal
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.mixing import mix
from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.slide_base import Pixels, Slide, SlideFacts, plausible_um
from cnsapp.imaging.tiff_pages import JPEG_HEAD, JPEGS, check_jpeg
from cnsapp.imaging.window import SampleRange, measure, sample_kind, to_uint8

UM_OF_UNIT = {2: 25_400.0, 3: 10_000.0}  # ResolutionUnit: inch, centimetre
UM_OF_NAME = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
PLAIN = ("RGB", "YCBCR", "MINISBLACK", "MINISWHITE")
COLORS = ("RGB", "YCBCR")
SEPARATE = 2  # PlanarConfiguration: each sample in tiles of its own
GLANCE, GLANCE_SIDE = 8_000_000, 4096  # pixels of the level, and of its sides, that are measured


class TiffSlide(Slide):
    """A tiled TIFF or a pyramid of them, decoded tile by tile.

    Raises
    ------
    UnreadableImageError
        Its axes, colours or tile sizes are not those of a picture that can be shown.
    """

    def __init__(self, path: Path, limits: Limits, rule: ReadingRule) -> None:
        self._rule = rule
        try:
            self._tiff = tifffile.TiffFile(path)
        except Exception as error:  # tifffile raises many kinds on damaged files
            raise refusal(error) from error
        try:
            self._prepare(limits)
        except Exception as error:
            self._tiff.close()
            raise refusal(error) from error

    def _prepare(self, limits: Limits) -> None:
        series = self._tiff.series[0]
        levels = [level for level in series.levels if _is_same_picture(series, level)]
        key: Any = levels[0].keyframe
        if key.photometric.name not in PLAIN:
            raise UnreadableImageError(
                f"The slide has {key.photometric.name} colours, which cannot be cut into tiles.",
                "",
                "Export it as RGB.",
            )
        sizes = [(int(level.keyframe.imagewidth), int(level.keyframe.imagelength))
                 for level in levels]  # fmt: skip
        for level, (width, _) in zip(levels, sizes, strict=True):
            _check_segments(level.keyframe, width, limits)
            _check_complete(level, self._tiff.filehandle.size)
        self._levels: list[Any] = levels
        self._n_channels = 1 if _is_colour(key) else _n_channels(series)
        bits = int(np.max(key.bitspersample))
        self._bits = bits
        notes = []
        if self._n_channels > 1 and not self._chosen():
            notes.append(f"The slide has {self._n_channels} channels; the first is shown.")
        profile = getattr(key, "iccprofile", None)
        self._profile = bytes(profile) if profile else None
        self.facts = SlideFacts(
            format=_format_of(self._tiff, len(levels)),
            reader="tifffile",
            width=sizes[0][0],
            height=sizes[0][1],
            levels=tuple(sizes),
            um_per_px=_um_per_px(self._tiff, key),
            samples=sample_kind(key.dtype),
            channels=self._n_channels,
            notes=tuple(notes),
        )

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def _chosen(self) -> list[Channel]:
        """Return the channels that the project shows in colours; none: the first, in gray."""
        if self._n_channels < 2:
            return []
        return [channel for channel in self._rule.channels if channel.index < self._n_channels]

    def sample_range(self) -> SampleRange | None:
        """Return the range of the samples of the level that a glance shows; None without any."""
        level = next(
            (i for i, (w, h) in enumerate(self.facts.levels) if w * h <= GLANCE),
            len(self.facts.levels) - 1,
        )
        width, height = (min(side, GLANCE_SIDE) for side in self.facts.levels[level])
        shown = [channel.index for channel in self._chosen()] or [0]
        try:
            return measure(
                self._samples(level, index, 0, 0, width, height)[..., 0] for index in shown
            )
        except Exception as error:
            raise refusal(error) from error

    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        try:
            return self._shown(level, x, y, width, height)
        except Exception as error:  # codecs raise many kinds
            raise refusal(error) from error

    def _shown(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        chosen = self._chosen()
        if chosen:
            planes = (
                (channel, self._samples(level, channel.index, x, y, width, height)[..., 0])
                for channel in chosen
            )
            return mix(planes, self._rule, self._bits, [], strict=True)
        samples = self._samples(level, 0, x, y, width, height)  # (H, W, S)
        key: Any = self._levels[level].keyframe
        if key.photometric.name == "MINISWHITE":
            samples = np.iinfo(samples.dtype).max - samples
        n_colour = 3 if key.photometric.name in COLORS and samples.shape[2] >= 3 else 1
        colour = samples[..., :n_colour]
        shown = (
            colour
            if colour.dtype == np.uint8
            else to_uint8(colour, self._rule, self._bits, strict=True)[0]
        )  # fmt: skip
        if n_colour == 1:
            shown = np.repeat(shown, 3, axis=2)
        shown = np.ascontiguousarray(shown)
        if self._profile and n_colour == 3:
            image = Image.fromarray(shown)
            image.info["icc_profile"] = self._profile
            shown = np.asarray(to_rgb(image, []))
        if _has_alpha(key, samples.shape[2], n_colour):
            top = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
            alpha = samples[..., n_colour].astype(np.float32) / np.float32(top)
            opacity = np.clip(alpha, 0, 1).astype(np.float32)
            return lay_over(shown, opacity, self._rule.background)
        return shown

    def _samples(
        self, level: int, channel: int, x: int, y: int, width: int, height: int
    ) -> NDArray[Any]:
        """Return the raw samples of a rectangle of a level: (height, width, samples)."""
        series = self._levels[level]
        key: Any = series.keyframe
        page = series.pages[channel] if self._n_channels > 1 else series.pages[0]
        page = key if page is None else page
        step_w = key.tilewidth if key.is_tiled else key.imagewidth
        step_h = key.tilelength if key.is_tiled else key.rowsperstrip
        across = math.ceil(key.imagewidth / step_w)
        down = math.ceil(key.imagelength / step_h)
        planes = key.samplesperpixel if int(key.planarconfig) == SEPARATE else 1
        empty = 0 if key.photometric.name == "MINISBLACK" and self._n_channels > 1 else _white(key)
        out = np.full((height, width, key.samplesperpixel), empty, key.dtype)
        wanted = [
            plane * across * down + row * across + column
            for plane in range(planes)
            for row in range(y // step_h, (y + height - 1) // step_h + 1)
            for column in range(x // step_w, (x + width - 1) // step_w + 1)
        ]
        offsets = [page.dataoffsets[i] for i in wanted]
        counts = [page.databytecounts[i] for i in wanted]
        for data, index in self._tiff.filehandle.read_segments(offsets, counts, wanted):
            if not isinstance(data, bytes):
                continue  # a tile that the scanner left out
            if key.compression in JPEGS:
                check_jpeg(data[:JPEG_HEAD], key)
            segment, at, _ = key.decode(data, index, jpegtables=page.jpegtables)
            if segment is not None:
                _paste(out, segment[0], at, x, y, planes > 1)
        return out


def _paste(
    out: NDArray[Any],
    segment: NDArray[Any],  # (length, width, samples)
    at: tuple[int, int, int, int, int],  # (plane, depth, y, x, sample)
    x: int,
    y: int,
    separate: bool,
) -> None:
    top, left = at[2] - y, at[3] - x
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + segment.shape[0], out.shape[0]), min(left + segment.shape[1], out.shape[1])
    if y1 <= y0 or x1 <= x0:
        return
    part = segment[y0 - top : y1 - top, x0 - left : x1 - left]
    if separate:
        out[y0:y1, x0:x1, at[0]] = part[..., 0]
    else:
        out[y0:y1, x0:x1] = part


def _is_colour(key: Any) -> bool:
    return key.photometric.name in COLORS and key.samplesperpixel >= 3


def _n_channels(series: Any) -> int:
    """Return how many pages of the finest level are its channels or planes."""
    return max(1, len(series.pages))


def _is_same_picture(series: Any, level: Any) -> bool:
    """Return whether a level shows the whole picture, and is no label or part of it."""
    first, key = series.keyframe, level.keyframe
    ratio_x, ratio_y = first.imagewidth / key.imagewidth, first.imagelength / key.imagelength
    return bool(
        abs(ratio_x - ratio_y) <= 0.1 * max(ratio_x, ratio_y)
        and key.dtype == first.dtype
        and key.samplesperpixel == first.samplesperpixel
    )


def _check_segments(key: Any, width: int, limits: Limits) -> None:
    n = key.tilewidth * key.tilelength if key.is_tiled else width * key.rowsperstrip
    if n > min(limits.max_pixels, 100_000_000):
        raise UnreadableImageError(
            f"The slide is stored in pieces of {n:,} pixels: each would fill the memory.",
            "",
            "Save it as a tiled TIFF, with tiles of 256 or 512 px.",
        )


def _check_complete(level: Any, n_bytes: int) -> None:
    for page in level.pages:
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
        if page is not None and max(ends, default=0) > n_bytes:
            raise UnreadableImageError(
                "The file is cut off: only part of the slide is there.",
                "",
                "Copy it again from where it came from.",
            )


def _has_alpha(key: Any, n_samples: int, n_colour: int) -> bool:
    extra = [int(value) for value in key.extrasamples]
    return n_samples > n_colour and bool(extra) and extra[0] in (1, 2)


def _white(key: Any) -> Any:
    if key.photometric.name == "MINISWHITE":
        return 0
    return np.iinfo(key.dtype).max if key.dtype.kind in "ui" else 1


def _format_of(tiff: tifffile.TiffFile, n_levels: int) -> str:
    if tiff.is_ome:
        return "OME-TIFF"
    return "TIFF pyramid" if n_levels > 1 else "tiled TIFF"


def _um_per_px(tiff: tifffile.TiffFile, key: Any) -> tuple[float, float] | None:
    if tiff.is_ome and tiff.ome_metadata:
        found = _ome_um(tiff.ome_metadata)
        if found is not None:
            return found
    description = str(key.description or "")
    if description.startswith("Aperio"):
        for part in description.split("|"):
            name, _, value = part.partition("=")
            if name.strip().upper() == "MPP":
                return plausible_um(*(2 * [_float(value)]))
    unit = key.tags.get("ResolutionUnit")
    factor = UM_OF_UNIT.get(int(unit.value) if unit is not None else 0)
    if factor is None:
        return None
    values = [_ratio(key.tags.get(name)) for name in ("XResolution", "YResolution")]
    if any(value is None or value <= 0 for value in values):
        return None
    return plausible_um(*(factor / value for value in values if value is not None))


def _ome_um(text: str) -> tuple[float, float] | None:
    try:
        metadata = tifffile.xml2dict(text)["OME"]["Image"]
        pixels = (metadata[0] if isinstance(metadata, list) else metadata)["Pixels"]
    except Exception:  # metadata that somebody wrote by hand
        return None
    values = []
    for side in ("X", "Y"):
        size = _float(pixels.get(f"PhysicalSize{side}"))
        unit = UM_OF_NAME.get(str(pixels.get(f"PhysicalSize{side}Unit", "µm")))
        if size is None or unit is None:
            return None
        values.append(size * unit)
    return plausible_um(*values)


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _ratio(tag: Any) -> float | None:
    if tag is None:
        return None
    try:
        over, under = tag.value
        return float(over) / float(under)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def is_pyramid(tiff: tifffile.TiffFile) -> bool:
    """Return whether a TIFF holds its picture at several sizes, in SubIFDs or as tiled pages."""
    first: Any = tiff.pages.first
    if first.subifds:
        return len(tiff.series[0].levels) > 1
    if not first.is_tiled:
        return False
    sizes = [(first.imagewidth, first.imagelength)]
    for page in tiff.pages[1:12]:
        found: Any = page
        if not getattr(found, "is_tiled", False):
            continue
        sizes.append((found.imagewidth, found.imagelength))
    for (w0, h0), (w1, h1) in pairwise(sizes):
        if w1 and h1 and w1 * 1.3 <= w0 and abs(w0 / w1 - h0 / h1) < 0.1 * w0 / w1:
            return True
    return False
