"""Whole slides in a process of their own: what it does there, and how it is asked from here.

The pixels of tiles come back raw, so that nothing a hostile file made is decoded again on this
side; encoding them is this side's work.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.decoded import refusal
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.slide_base import Pixels, Slide, SlideFacts, thumbnail_size
from cnsapp.imaging.sniff import find_kind
from cnsapp.imaging.window import SampleRange

# TIFF tags that only slides and other tiled files have
TILE_WIDTH, SUB_IFDS, NDPI, IMAGE_WIDTH = 322, 330, 65420, 256
MAX_TAGS = 4096


def may_be_slide(path: Path) -> bool:
    """Return whether a file is worth the question whether it is a slide; safe and quick.

    It looks at the names of the tags of a TIFF's first page, and decodes nothing.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(16)
            if path.suffix.casefold() == ".mrxs":
                return path.with_suffix("").is_dir()
            return find_kind(head) == "TIFF" and bool(
                {TILE_WIDTH, SUB_IFDS, NDPI} & _tags(handle, head)
            )
    except (OSError, struct.error):
        return False


def _tags(handle: Any, head: bytes) -> set[int]:
    """Return the tags of the first page of a TIFF or BigTIFF."""
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    offset = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]
    handle.seek(offset)
    n = struct.unpack(order + ("Q" if big else "H"), handle.read(8 if big else 2))[0]
    entry = 20 if big else 12
    data = handle.read(min(n, MAX_TAGS) * entry)
    return {
        struct.unpack(order + "H", data[at : at + 2])[0] for at in range(0, len(data) - 1, entry)
    }


# asked from the app ------------------------------------------------------------------------------


def is_slide(path: Path, limits: Limits) -> bool:
    """Return what `cnsapp.imaging.slides.is_slide` says, asked of another process if need be."""
    from cnsapp.imaging.isolated import readers  # it imports this module in the other process

    if not may_be_slide(path):
        return False
    try:
        answer = readers().call("slide", path, limits=limits, what="is_slide")
    except UnreadableImageError:
        return False  # a file that crashes the look at its header is no slide; its reader says why
    return bool(answer.facts["is_slide"])


def look_at(
    path: Path, rule: ReadingRule, limits: Limits, max_side: int
) -> tuple[SlideFacts, Pixels]:
    """Return the facts of a slide and its thumbnail, uint8 (H, W, 3), read in another process.

    Raises
    ------
    UnreadableImageError
        It cannot be read, or reading it crashed, took too long or too much memory.
    WindowMissingError
        The project has no window for its samples yet: see `sample_range`.
    """
    from cnsapp.imaging.isolated import readers

    answer = readers().call("slide", path, rule=rule, limits=limits, what="look", max_side=max_side)
    facts = SlideFacts.from_json(answer.facts)
    width, height = thumbnail_size(facts.width, facts.height, max_side)
    return facts, _checked(answer.array, (height, width, 3))


def sample_range(path: Path, rule: ReadingRule, limits: Limits) -> SampleRange | None:
    """Return the range of the slide's samples on a coarse level; errors as `look_at`."""
    from cnsapp.imaging.isolated import readers

    facts = readers().call("slide", path, rule=rule, limits=limits, what="range").facts
    return SampleRange(**facts) if facts else None


def cut(
    path: Path,
    rule: ReadingRule,
    limits: Limits,
    places: Sequence[tuple[int, int, int]],
    out_px: int,
) -> Pixels:
    """Return tiles of a slide, uint8 (N, out_px, out_px, 3), cut in another process.

    `places` are (x, y, side) in pixels of the finest level; errors as `look_at`.
    """
    from cnsapp.imaging.isolated import readers

    answer = readers().call(
        "slide", path, rule=rule, limits=limits, what="cut", places=places, out_px=out_px
    )
    return _checked(answer.array, (len(places), out_px, out_px, 3))


def _checked(array: NDArray[Any] | None, shape: tuple[int, ...]) -> Pixels:
    if array is None or array.dtype != np.uint8 or array.shape != shape:
        raise UnreadableImageError("The slide's reader answered with something else than asked.")
    return array


# in the other process ----------------------------------------------------------------------------

_open: dict[tuple[Any, ...], Slide] = {}  # the slide of the last request, not opened anew each time


def answer(
    path: Path, rule: ReadingRule, limits: Limits, what: str, **options: Any
) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Do is_slide, look, range or cut. Return plain facts, and pixels where there are any."""
    from cnsapp.imaging import slides

    if what == "is_slide":
        return {"is_slide": slides.is_slide(path)}, None
    slide = _opened(path, rule, limits)
    try:
        if what == "look":
            return slide.facts.as_json(), slide.thumbnail(int(options["max_side"]))
        if what == "range":
            found = getattr(slide, "sample_range", lambda: None)()
            return ({} if found is None else vars(found)), None
        out = int(options["out_px"])
        tiles = [slide.read_region(int(x), int(y), int(s), out) for x, y, s in options["places"]]
        return {}, np.stack(tiles)
    except Exception as error:
        _close()  # a slide that failed once cannot be trusted to go on
        raise refusal(error) from error


def _opened(path: Path, rule: ReadingRule, limits: Limits) -> Slide:
    from cnsapp.imaging.slides import open_slide

    try:
        facts = path.stat()
    except OSError as error:
        raise UnreadableImageError(
            f"The slide cannot be read: {error.strerror or error}.",
            "",
            "Check that it is where it was, and that you may read it.",
        ) from error
    key = (str(path), facts.st_mtime_ns, facts.st_size, rule, limits)
    if key not in _open:
        _close()
        _open[key] = open_slide(path, limits, rule)
    return _open[key]


def _close() -> None:
    while _open:
        _open.popitem()[1].close()
