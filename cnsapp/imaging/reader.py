"""The one function that reads an image file, for thumbnails, labelling, training and saliency."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.imaging import pillow_files, tiff_files
from cnsapp.imaging.bands import row_parts
from cnsapp.imaging.channels import range_of_chosen
from cnsapp.imaging.color import as_one_block, lay_over, spread, to_rgb
from cnsapp.imaging.decoded import Decoded, ImageFacts, Reading, quiet, refusal
from cnsapp.imaging.limits import LimitError, Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.sniff import sniff
from cnsapp.imaging.window import (
    SampleRange,
    WindowMissingError,
    measure,
    sample_kind,
    to_uint8,
)

__all__ = [
    "ImageFacts",
    "Limits",
    "ReadResult",
    "ReadingRule",
    "SampleRange",
    "WindowMissingError",
    "check_header",
    "read_image",
    "read_sample_range",
]

DEFAULT_RULE = ReadingRule()
DEFAULT_LIMITS = Limits()
NEVER_HIGH = ("JPEG", "WEBP", "BMP", "GIF", "AVIF")  # kinds that always decode to 8 bits


@dataclass(frozen=True)
class ReadResult:
    """A picture as every step sees it, and what is known of its file."""

    pixels: NDArray[np.uint8]  # (H, W, 3) sRGB, upright
    facts: ImageFacts


def read_image(
    path: Path,
    rule: ReadingRule = DEFAULT_RULE,
    limits: Limits = DEFAULT_LIMITS,
    *,
    strict: bool = False,
) -> ReadResult:
    """Read any supported image file as sRGB pixels.

    The content decides the kind, not the name. The orientation mark is applied, transparency is
    laid over the rule's background, CMYK, Lab and colour profiles go through colour management,
    1-bit, palette and gray become RGB, and samples of more than 8 bits pass through the rule's
    window. Of several pages, planes or frames the rule's is taken or the maximum over them, of
    several channels the rule's in their colours, else the first in gray; of several times the
    first. Notes say so.

    Parameters
    ----------
    path
        The file.
    rule
        The project's reading rule.
    limits
        Bounds that are checked from the header, before anything is decoded.
    strict
        Do not fall back on a default window where the rule names none.

    Returns
    -------
    ReadResult
        `pixels`, uint8 (H, W, 3), 0 to 255; `facts` with the notes on what was done.

    Raises
    ------
    UnreadableImageError
        No supported image, damaged, cut off, beyond the limits, or without the page or the
        channels that the rule shows; `what` is the reason.
    WindowMissingError
        Only if `strict`: the samples need a window and the rule has none for their kind.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "gray.png"
    ...     Image.new("L", (4, 2), 128).save(file)
    ...     read_image(file).pixels.shape
    (2, 4, 3)
    """
    try:
        with quiet():
            decoded = _decode(Path(path), Reading(rule, limits, strict))
            samples = decoded.kind or sample_kind(decoded.samples.dtype)
            pixels = _picture(decoded, rule, strict)
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise refusal(error) from error
    height, width = pixels.shape[:2]
    facts = ImageFacts(
        format=decoded.format,
        mode=decoded.mode,
        bits=decoded.bits,
        pages=decoded.pages,
        width=width,
        height=height,
        notes=list(dict.fromkeys(decoded.notes)),
        window=None if samples == "uint8" else rule.window(samples),
        samples=samples,
        channels=decoded.channels,
        alpha=decoded.transparent,
        um_per_px=decoded.um_per_px,
    )
    return ReadResult(pixels, replace(facts, seen=rule.seen(facts.as_json())))


def read_sample_range(
    path: Path, limits: Limits = DEFAULT_LIMITS, rule: ReadingRule = DEFAULT_RULE
) -> SampleRange | None:
    """Return the range of what the rule shows of a file, where it needs the project's window.

    None: it has 8 bits, its channels have windows of their own, or no finite value.

    Raises
    ------
    UnreadableImageError
        As `read_image`.
    """
    path = Path(path)
    try:
        with quiet():
            kind = sniff(path)
            if kind in NEVER_HIGH:
                return None
            if kind == "TIFF" and rule.channels:
                has_channels, found = range_of_chosen(path, limits, rule)
                if has_channels:
                    return found
            decoded = _decode(path, Reading(rule, limits))
            return None if decoded.finished else measure([decoded.samples])
    except Exception as error:
        raise refusal(error) from error


def check_header(path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Refuse what a file's header declares too large; whatever else is wrong shows on reading it.

    Raises
    ------
    UnreadableImageError
        No supported image, or beyond the limits.
    """
    kind = sniff(path)
    limits.check_bytes(path.stat().st_size)
    try:
        with quiet(), ExitStack() as opened:
            if kind == "TIFF":
                opened.enter_context(tiff_files.opened_stack(path, limits))
            else:
                opened.enter_context(pillow_files.open_header(path, kind, limits))
    except LimitError:
        raise
    except Exception:  # damaged, or for another decoder: reading says which
        return


def _decode(path: Path, reading: Reading) -> Decoded:
    kind = sniff(path)
    reading.limits.check_bytes(path.stat().st_size)
    if kind == "TIFF":
        return tiff_files.decode(path, reading)
    return pillow_files.decode(path, kind, reading)


def _picture(decoded: Decoded, rule: ReadingRule, strict: bool) -> NDArray[np.uint8]:
    if decoded.finished:
        return as_one_block(decoded.samples)
    shown, notes = to_uint8(decoded.samples, rule, decoded.bits, strict)
    decoded.samples = shown  # so that the memory of the others is free
    decoded.notes.extend(notes)
    if shown.ndim == 2:
        shown = spread(shown)
    elif decoded.profile:
        for part in row_parts(shown):
            image = Image.fromarray(part)
            image.info["icc_profile"] = decoded.profile
            part[:] = np.asarray(to_rgb(image, decoded.notes))
    if decoded.alpha is not None:
        shown = lay_over(shown, decoded.alpha, rule.background)
    return as_one_block(shown)
