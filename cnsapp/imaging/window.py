"""From samples of more than 8 bits to 8: by a window that a project fixes once.

A screen and a network see 256 steps. Which sample value becomes black and which becomes white must
not depend on the image at hand: one bright speck would darken the rest of that image only, and the
network would learn the accident. So a project fixes one window per sample type, at its first import
of such files: for unsigned integers from 0 to the top of the smallest usual camera depth (8, 10,
12, 14, 16 bits) that holds the values seen (a 12-bit camera in a 16-bit file is then not black);
for signed integers and floats the range seen over the files (0 to 1 for floats inside it). Without
a project's window, integers up to 16 bits use the full range of their type.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.rule import ReadingRule

DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits of usual detectors and files
ROWS = 512  # rows windowed at a time, so that floats of large images need little memory


def sample_kind(dtype: np.dtype[Any]) -> str:
    """Return the name under which windows of this sample type are kept."""
    return "float" if dtype.kind == "f" else dtype.name


def fit_window(kind: str, low: float, high: float) -> tuple[float, float]:
    """Return the window for files of one kind whose values run from `low` to `high`."""
    if kind.startswith("uint"):
        bits = next((bits for bits in DEPTHS if high < 2**bits), 64)
        return 0.0, float(2**bits - 1)
    if kind == "float" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return float(low), float(high) if high > low else float(low) + 1.0


def finite_range(samples: NDArray[Any]) -> tuple[float, float] | None:
    """Return the smallest and the largest finite value, or None when there is none."""
    ends = [_ends(part) for part in _row_parts(samples)]
    seen = [pair for pair in ends if pair is not None]
    if not seen:
        return None
    return min(low for low, _ in seen), max(high for _, high in seen)


def to_uint8(
    samples: NDArray[Any], rule: ReadingRule, bits: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the samples as 8-bit values through the rule's window, and notes on what was done.

    Parameters
    ----------
    samples
        Any shape; integers or floats.
    rule
        The project's rule.
    bits
        Bits a sample that the file declares: the default window of unsigned integers.

    Raises
    ------
    UnreadableImageError
        No finite value, or a kind without a window and without a safe default.
    """
    kind = sample_kind(samples.dtype)
    ends = finite_range(samples)
    if ends is None:
        raise UnreadableImageError("The image holds no finite value: every sample is NaN.")
    window = rule.window(kind)
    low, high = window or _default(kind, bits, ends)
    whose = "the project's" if window else "the default"
    notes = [f"{kind} samples shown from {low:g} (black) to {high:g} (white), {whose} window."]
    if ends[0] < low or ends[1] > high:
        notes.append(f"Values from {ends[0]:g} to {ends[1]:g} reach outside and were clipped.")
    if samples.dtype == np.uint16:
        return _scale(np.arange(65536, dtype=np.float64), low, high)[samples], notes
    out = np.empty(samples.shape, np.uint8)
    done = 0
    for part in _row_parts(samples):
        out[done : done + len(part)] = _scale(part.astype(np.float64), low, high)
        done += len(part)
    return out, notes


def _scale(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / (high - low))
    return (np.clip(scaled, 0, 255) + 0.5).astype(np.uint8)


def _default(kind: str, bits: int, ends: tuple[float, float]) -> tuple[float, float]:
    if kind == "uint16":
        return 0.0, float(2 ** min(max(bits, 1), 16) - 1)
    if kind in ("int8", "int16"):
        info = np.iinfo(kind)
        return float(info.min), float(info.max)
    if kind == "float" and ends[0] >= 0 and ends[1] <= 1:
        return 0.0, 1.0
    raise UnreadableImageError(
        f"The {kind} values run from {ends[0]:g} to {ends[1]:g}, and the project has no intensity "
        "window for them.",
        "Guessing one for each image would make images incomparable.",
        "Import such files into the project first, or set its window.",
    )


def _ends(part: NDArray[Any]) -> tuple[float, float] | None:
    if part.dtype.kind == "f":
        part = part[np.isfinite(part)]
    return (float(part.min()), float(part.max())) if part.size else None


def _row_parts(samples: NDArray[Any]) -> Iterable[NDArray[Any]]:
    for start in range(0, len(samples), ROWS):
        yield samples[start : start + ROWS]
