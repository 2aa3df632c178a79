"""What the decoders hand over, and how their complaints read to a user."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import FIRST, MAX, ReadingRule

CUT_OFF = ("truncat", "end of file", "eof", "not enough", "incomplete", "expected to read")


@dataclass(frozen=True)
class ImageFacts:
    """What is known about a file; `width` and `height` are of the upright picture.

    Parameters
    ----------
    format
        JPEG, PNG, TIFF, WEBP, BMP, GIF, JPEG2000 or AVIF.
    mode
        Colour model as found, such as RGB, CMYK, LAB, gray, palette.
    bits
        Bits a sample in the file.
    pages
        Number of pages, z planes or frames; channels and times are not counted.
    notes
        What was done to show the picture, in sentences.
    window
        The project's (black, white) for samples of more than 8 bits; None where none was needed.
    samples
        Kind of the samples: uint8, uint16, uint32, int8, int16, int32 or float.
    channels
        Number of channels that are no plain colours (fluorescence); 1 for gray and colour files.
    alpha
        Whether the file has transparency.
    um_per_px
        Micrometres a pixel, where the file says so.
    seen
        How the project's rule touched the file: `ReadingRule.seen` of these facts.
    """

    format: str
    mode: str
    bits: int
    pages: int
    width: int
    height: int
    notes: list[str] = field(default_factory=list)
    window: tuple[float, float] | None = None
    samples: str = "uint8"
    channels: int = 1
    alpha: bool = False
    um_per_px: float | None = None
    seen: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the facts as they are stored with an image."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """What is asked of a decoder.

    Parameters
    ----------
    rule
        The project's reading rule.
    limits
        Bounds that are checked from the header.
    strict
        A default window will not do.
    """

    rule: ReadingRule
    limits: Limits
    strict: bool = False


@dataclass
class Decoded:
    """Samples as the file has them, upright: 8-bit ones are finished RGB, others need a window."""

    samples: Any  # (H, W) or (H, W, 3), or `Bands` of one page; uint8 only as finished (H, W, 3)
    format: str
    mode: str
    bits: int
    pages: int
    notes: list[str]
    alpha: NDArray[np.float32] | None = None  # (H, W), 0 to 1, only beside unfinished samples
    profile: bytes | None = None  # colour profile of unfinished RGB samples
    kind: str = ""  # kind of the file's samples, whatever the rule; "": that of `samples`
    channels: int = 1
    transparent: bool = False  # the file has transparency, whatever the rule makes of it
    um_per_px: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the samples are the picture itself."""
        return bool(self.samples.dtype == np.uint8)


_lock = threading.Lock()
_guards: list[Any] = []
_inside = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the decoders' warnings from the user, in any number of threads at once.

    `warnings.catch_warnings` alone would leave wrong filters behind when threads overlap, so the
    first thread in sets the filter and the last one out takes it back.
    """
    global _inside
    with _lock:
        if _inside == 0:
            guard = warnings.catch_warnings()
            guard.__enter__()
            _guards.append(guard)
            warnings.filterwarnings("ignore", module=r"(PIL|tifffile|imagecodecs)(\.|$)")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _guards.pop().__exit__(None, None, None)


def refusal(error: BaseException) -> UnreadableImageError:
    """Return a decoder's complaint as a reason that a biologist understands."""
    if isinstance(error, UnreadableImageError):
        return error
    text = str(error)
    low = text.lower()
    if isinstance(error, MemoryError):
        return UnreadableImageError(
            "The image is too large for this computer's memory.", "", "Cut it into tiles."
        )
    if any(word in low for word in CUT_OFF):
        return UnreadableImageError(
            "The file is cut off: only part of the picture is there.",
            "",
            "Copy it again from where it came from.",
        )
    detail = f" ({text.splitlines()[0][:120]})" if text else ""
    return UnreadableImageError(
        f"The file is damaged or of a kind that cannot be decoded{detail}.",
        "",
        "Copy it again from where it came from, or save it as PNG or plain TIFF.",
    )


def wanted_pages(rule: ReadingRule, pages: int) -> range:
    """Return which of a file's pages (from 0) the rule shows.

    Raises
    ------
    UnreadableImageError
        The file has several pages, but not the one that the project shows.
    """
    if pages <= 1 or rule.page == FIRST:
        return range(1)
    if rule.page == MAX:
        return range(pages)
    number = int(rule.page)
    if number > pages:
        raise UnreadableImageError(
            f"The project shows page {number}, but the file has {pages} pages.",
            "Another page in its place would not be comparable.",
            "Choose another page in the project's reading rule, or leave the file out.",
        )
    return range(number - 1, number)


def pages_note(rule: ReadingRule, pages: int, what: str = "pages") -> list[str]:
    """Return the note on which of several pages are shown; none for a single one."""
    if pages <= 1:
        return []
    shown = {FIRST: "the first", MAX: "the maximum over them"}.get(rule.page, f"no. {rule.page}")
    return [f"The file holds {pages} {what}; {shown} is shown."]


def brightest(samples: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Return the larger of both at each place; NaN counts as nothing."""
    greater = np.fmax if samples.dtype.kind == "f" else np.maximum
    if samples.flags.writeable and samples.base is None:
        return greater(samples, other, out=samples)  # type: ignore[no-any-return]
    return greater(samples, other)  # type: ignore[no-any-return]


def projected(pages: Iterable[Decoded]) -> Decoded:
    """Return the maximum over decoded pages, taken one by one; others of size are left out."""
    left_out = 0
    result: Decoded | None = None
    for page in pages:
        if result is None:
            result = page
        elif page.samples.shape == result.samples.shape and (
            page.samples.dtype == result.samples.dtype
        ):
            result.samples = brightest(result.samples, page.samples)
            if result.alpha is not None and page.alpha is not None:
                result.alpha = np.maximum(result.alpha, page.alpha)
        else:
            left_out += 1
    if result is None:
        raise UnreadableImageError("The file holds no picture.")
    if left_out:
        result.notes.append(f"{left_out} pages of another size or kind were left out.")
    return result
