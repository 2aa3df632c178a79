"""Whole slides: which files are some, and one way to read them all.

A slide is a picture of a whole section, too large to be one image: it is stored at several sizes
(a pyramid) or at least in tiles. Scanner formats are read by openslide, other pyramids by
tifffile. Reading decodes untrusted files in native code: outside of tests it is done in a process
of its own (`cnsapp.imaging.slide_process`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.decoded import quiet, refusal
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.slide_base import PLAUSIBLE_UM, Slide, SlideFacts, thumbnail_size
from cnsapp.imaging.slides_openslide import GENERIC, OpenSlideSlide, vendor_of
from cnsapp.imaging.slides_tiff import TiffSlide, is_pyramid
from cnsapp.imaging.sniff import find_kind, read_head

__all__ = [
    "PLAUSIBLE_UM",
    "Slide",
    "SlideFacts",
    "is_slide",
    "open_slide",
    "sidecar_folder",
    "thumbnail_size",
]

LARGE_SIDE = 8_000  # px: a tiled TIFF beyond this is a slide, also with one level only
PYRAMID_SIDE = 1_024  # px: a smaller pyramid is an ordinary image that was saved as one
MAX_SLIDE_PIXELS = 100_000_000_000  # 316,000 px square: no scanner makes more
DEFAULT_RULE = ReadingRule()
DEFAULT_LIMITS = Limits()


def is_slide(path: Path) -> bool:
    """Return whether a file is a whole slide, by its content; only headers are read.

    A TIFF is one when a scanner wrote it (Aperio, Hamamatsu, Leica, Ventana, Philips), when it is
    a pyramid with more than 1,024 px on a side, or when it is tiled with more than 8,000. Maps
    (GeoTIFF) are none. A MIRAX slide is its .mrxs file beside the folder of the same name.
    What cannot be read is no slide here: the import says why.
    """
    try:
        if sidecar_folder(path) is not None:
            return True
        if find_kind(read_head(path)) != "TIFF":
            return False
        with quiet(), tifffile.TiffFile(path) as tiff:
            return _is_slide_tiff(tiff)
    except Exception:  # whatever is wrong with it, the reader of images says it in words
        return False


def sidecar_folder(path: Path) -> Path | None:
    """Return the folder that holds the data of a MIRAX slide, or None when it is no such slide."""
    folder = path.with_suffix("")
    if path.suffix.casefold() != ".mrxs" or not (folder / "Slidedat.ini").is_file():
        return None
    return folder


def _is_slide_tiff(tiff: tifffile.TiffFile) -> bool:
    first: Any = tiff.pages.first
    if first.is_geotiff or first.imagewidth < 1 or first.imagelength < 1:
        return False
    if first.is_svs or first.is_ndpi or first.is_scn or first.is_bif or first.is_philips:
        return True
    side = max(first.imagewidth, first.imagelength)
    if first.is_tiled and side > LARGE_SIDE:
        return True
    return side > PYRAMID_SIDE and is_pyramid(tiff)


def open_slide(
    path: Path, limits: Limits = DEFAULT_LIMITS, rule: ReadingRule = DEFAULT_RULE
) -> Slide:
    """Open a whole slide; close it after use (it is a context manager).

    Parameters
    ----------
    path
        The file; of a MIRAX slide the .mrxs file.
    limits
        `max_pixels` bounds the pieces that are decoded at once, not the slide.
    rule
        The project's reading rule, for samples of more than 8 bits and for channels.

    Returns
    -------
    Slide
        `facts` (size, levels, micrometres), `read_region` and `thumbnail`.

    Raises
    ------
    UnreadableImageError
        No slide, damaged, or incomplete; `what` is the reason.
    """
    path = Path(path)
    with quiet():
        slide = _open(path, limits, rule)
    n_pixels = slide.facts.width * slide.facts.height
    if not 0 < n_pixels <= MAX_SLIDE_PIXELS:
        slide.close()
        raise UnreadableImageError(
            f"The slide declares {slide.facts.width:,} × {slide.facts.height:,} pixels, more than "
            f"any scanner makes ({MAX_SLIDE_PIXELS:,}).",
            "It was not read: damaged or hostile files fill the memory that way.",
        )
    return slide


def _open(path: Path, limits: Limits, rule: ReadingRule) -> Slide:
    is_tiff = find_kind(read_head(path)) == "TIFF"
    vendor = None if is_tiff and _is_for_tifffile(path) else vendor_of(path)
    if vendor is None and not is_tiff:
        raise UnreadableImageError(
            "The file is no whole slide of a known kind.",
            "",
            "Supported are .svs, .ndpi, .mrxs, .scn, .bif, pyramidal TIFF and OME-TIFF.",
        )
    if vendor is None:
        return TiffSlide(path, limits, rule)
    try:
        return OpenSlideSlide(path, vendor)
    except UnreadableImageError as error:
        if not is_tiff:
            raise
        try:
            return TiffSlide(path, limits, rule)
        except UnreadableImageError:
            raise error from None


def _is_for_tifffile(path: Path) -> bool:
    """Return whether openslide would miss levels, channels or depth of this TIFF."""
    try:
        with tifffile.TiffFile(path) as tiff:
            first: Any = tiff.pages.first
            if first.is_svs or first.is_ndpi or first.is_scn or first.is_bif or first.is_philips:
                return False
            return bool(
                tiff.is_ome
                or first.subifds
                or first.dtype != "uint8"
                or first.photometric.name not in ("RGB", "YCBCR")
                or (vendor_of(path) == GENERIC and not is_pyramid(tiff))
            )
    except UnreadableImageError:
        raise
    except Exception as error:  # a damaged directory
        raise refusal(error) from error
