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

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.bands import Samples, row_parts
from cnsapp.imaging.rule import ReadingRule

DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits of usual detectors and files
SAMPLED = 1_000_000  # values that percentiles are taken from
LOW_SHARE, HIGH_SHARE = 0.1, 99.9  # percentiles that become black and white


class WindowMissingError(UnreadableImageError):
    """The project has not fixed a window for this kind of samples yet."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(f"The project has no intensity window for {kind} samples.")


@dataclass(frozen=True)
class SampleRange:
    """What samples hold: smallest and largest finite value, and the 0.1 and 99.9 percentiles."""

    kind: str
    low: float
    high: float
    p_low: float
    p_high: float


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


def finite_range(samples: Samples) -> tuple[float, float] | None:
    """Return the smallest and the largest finite value, or None when there is none."""
    return _joined(map(_ends, row_parts(samples)))


def measure(parts: Iterable[Samples]) -> SampleRange | None:
    """Return the range over arrays of one kind, taken one by one; None without a finite value."""
    kind, ends, sampled = "", [], []
    for samples in parts:
        kind = kind or sample_kind(samples.dtype)
        step = math.ceil(math.sqrt(max(1, samples.size / SAMPLED)))
        top = 0
        for rows in row_parts(samples):  # every step-th row and column of the whole
            ends.append(_ends(rows))
            some = rows[-top % step :: step, ::step]
            sampled.append(some[np.isfinite(some)].ravel())
            top += len(rows)
    found = _joined(ends)
    if found is None:
        return None
    low, high = found
    values = np.concatenate(sampled)
    p_low, p_high = np.percentile(values, [LOW_SHARE, HIGH_SHARE]) if values.size else (low, high)
    return SampleRange(kind, low, high, float(p_low), float(p_high))


def find_window(
    kind: str,
    bits: int,
    ends: tuple[float, float] | None,
    rule: ReadingRule,
    strict: bool = False,
) -> tuple[float, float]:
    """Return (black, white) for samples of a kind: the project's, else a default that is safe.

    Raises
    ------
    WindowMissingError
        Only if `strict`: the project has none yet, and finds it from its files.
    UnreadableImageError
        The project has none, and sets it only by hand, or there is no safe default.
    """
    window = rule.window(kind)
    if window is not None:
        return window
    if kind == "uint8":
        return 0.0, 255.0
    if strict and ends is not None:
        if rule.windows_from == "fixed":
            raise UnreadableImageError(
                f"The project has no intensity window for {kind} samples, and takes only one that "
                "is set by hand.",
                "Guessing one would make images incomparable.",
                "Set it in the project's reading rule, then import again.",
            )
        raise WindowMissingError(kind)
    return _default(kind, bits, ends or (0.0, 1.0))


def to_uint8(
    samples: Samples, rule: ReadingRule, bits: int, strict: bool = False
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
    strict
        A default window will not do.

    Raises
    ------
    UnreadableImageError
        No finite value, or a kind without a window and without a safe default.
    WindowMissingError
        As `find_window`.
    """
    kind = sample_kind(samples.dtype)
    window = rule.window(kind)
    if window is None:
        ends = finite_range(samples)
        if ends is None:
            raise _nothing_finite()
        low, high = find_window(kind, bits, ends, rule, strict)
    else:
        low, high = window
    table = to_gray(np.arange(65536), low, high) if samples.dtype == np.uint16 else None
    out = np.empty(samples.shape, np.uint8)
    done, found = 0, []
    for part in row_parts(samples):
        shown = to_gray(part, low, high) if table is None else table[part]
        out[done : done + len(part)] = shown
        done += len(part)
        found.append(_ends(part))
    ends = _joined(found)
    if ends is None:
        raise _nothing_finite()
    whose = "the project's" if window else "the default"
    notes = [f"{kind} samples shown from {low:g} (black) to {high:g} (white), {whose} window."]
    if ends[0] < low or ends[1] > high:
        notes.append(f"Values from {ends[0]:g} to {ends[1]:g} reach outside and were clipped.")
    return out, notes


def _nothing_finite() -> UnreadableImageError:
    return UnreadableImageError("The image holds no finite value: every sample is NaN.")


def to_gray(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return values as 0 (at `low` or below, and NaN) to 255 (at `high` or above)."""
    return (to_share(values, low, high) * 255 + 0.5).astype(np.uint8)


def to_share(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Return values as 0 (at `low` or below, and NaN) to 1 (at `high` or above)."""
    finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    # halves, so that a window over all floats has an extent; clipped first for the same reason
    return (np.clip(finite, low, high) / 2 - low / 2) / (high / 2 - low / 2)


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


def _joined(ends: Iterable[tuple[float, float] | None]) -> tuple[float, float] | None:
    seen = [pair for pair in ends if pair is not None]
    if not seen:
        return None
    return min(low for low, _ in seen), max(high for _, high in seen)
