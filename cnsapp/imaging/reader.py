"""The one function that reads an image file, for thumbnails, labelling, training and saliency."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import pillow_files, tiff_files
from cnsapp.imaging.color import lay_over_white, to_rgb
from cnsapp.imaging.decoded import Decoded, ImageFacts, quiet, refusal
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.sniff import sniff
from cnsapp.imaging.window import finite_range, sample_kind, to_uint8

__all__ = [
    "ImageFacts",
    "Limits",
    "ReadResult",
    "ReadingRule",
    "SampleRange",
    "WindowMissingError",
    "read_image",
    "read_sample_range",
]

DEFAULT_RULE = ReadingRule()
DEFAULT_LIMITS = Limits()
NEVER_HIGH = ("JPEG", "WEBP", "BMP", "GIF", "AVIF")  # kinds that always decode to 8 bits


@dataclass(frozen=True)
class ReadResult:
    """A picture as every step sees it, and what is known of its file."""

    pixels: NDArray[np.uint8]  # (H, W, 3) sRGB, upright, over white
    facts: ImageFacts


class WindowMissingError(UnreadableImageError):
    """The project has not fixed a window for this kind of samples yet."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(f"The project has no intensity window for {kind} samples.")


@dataclass(frozen=True)
class SampleRange:
    """Kind and smallest and largest value of samples that need a window."""

    kind: str
    low: float
    high: float


def read_image(
    path: Path,
    rule: ReadingRule = DEFAULT_RULE,
    limits: Limits = DEFAULT_LIMITS,
    *,
    strict: bool = False,
) -> ReadResult:
    """Read any supported image file as sRGB pixels.

    The content decides the kind, not the name. The orientation mark is applied, transparency is
    laid over white, CMYK, Lab and colour profiles go through colour management, 1-bit, palette and
    gray become RGB, and samples of more than 8 bits pass through the rule's window. Of several
    pages the first is taken, and a note says so.

    Parameters
    ----------
    path
        The file.
    rule
        The project's reading rule: the windows of 16-bit, signed and float samples.
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
        No supported image, damaged, cut off, beyond the limits; `what` is the reason.
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
            decoded = _decode(Path(path), limits)
            if strict and not decoded.finished:
                _require_window(decoded, rule)
            pixels = _picture(decoded, rule)
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise refusal(error) from error
    height, width = pixels.shape[:2]
    samples = "uint8" if decoded.finished else sample_kind(decoded.samples.dtype)
    facts = ImageFacts(
        format=decoded.format,
        mode=decoded.mode,
        bits=decoded.bits,
        pages=decoded.pages,
        width=width,
        height=height,
        notes=list(dict.fromkeys(decoded.notes)),
        window=None if decoded.finished else rule.window(samples),
        samples=samples,
    )
    return ReadResult(pixels, replace(facts, seen=rule.seen(facts.as_json())))


def read_sample_range(path: Path, limits: Limits = DEFAULT_LIMITS) -> SampleRange | None:
    """Return the range of a file's samples when they need a window, None when they have 8 bits.

    Raises
    ------
    UnreadableImageError
        As `read_image`.
    """
    try:
        with quiet():
            if sniff(Path(path)) in NEVER_HIGH:
                return None
            decoded = _decode(Path(path), limits)
    except Exception as error:
        raise refusal(error) from error
    if decoded.finished:
        return None
    ends = finite_range(decoded.samples)
    return None if ends is None else SampleRange(sample_kind(decoded.samples.dtype), *ends)


def _require_window(decoded: Decoded, rule: ReadingRule) -> None:
    kind = sample_kind(decoded.samples.dtype)
    if rule.window(kind) is None and finite_range(decoded.samples) is not None:
        raise WindowMissingError(kind)


def _decode(path: Path, limits: Limits) -> Decoded:
    kind = sniff(path)
    limits.check_bytes(path.stat().st_size)
    if kind == "TIFF":
        return tiff_files.decode(path, limits)
    return pillow_files.decode(path, kind, limits)


def _picture(decoded: Decoded, rule: ReadingRule) -> NDArray[np.uint8]:
    if decoded.finished:
        return np.ascontiguousarray(decoded.samples)
    shown, notes = to_uint8(decoded.samples, rule, decoded.bits)
    decoded.notes.extend(notes)
    if shown.ndim == 2:
        shown = np.repeat(shown[..., None], 3, axis=2)
    elif decoded.profile:
        image = Image.fromarray(shown)
        image.info["icc_profile"] = decoded.profile
        shown = np.asarray(to_rgb(image, decoded.notes))
    if decoded.alpha is not None:
        shown = lay_over_white(shown, decoded.alpha)
    return np.ascontiguousarray(shown)
