"""Channels laid over each other, each in its colour, as light adds to light on a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.bands import ROWS
from cnsapp.imaging.color import rgb_of
from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.window import find_window, finite_range, sample_kind, to_share

STEPS = 32  # steps a gray level while adding: 6 channels of 255 levels fit into 16 bits


def mix(
    planes: Iterable[tuple[Channel, NDArray[Any]]],
    rule: ReadingRule,
    bits: int,
    notes: list[str],
    strict: bool = False,
) -> NDArray[np.uint8]:
    """Return the sum of channels, each scaled by its window and times its colour, clipped.

    Parameters
    ----------
    planes
        Channels and their (H, W) samples, taken one by one, so that one is in memory at a time.
    rule
        Gives the window of channels that have none of their own.
    bits
        Bits a sample that the file declares.
    notes
        The windows are added here, in words.
    strict
        A default window will not do.

    Returns
    -------
    ndarray
        uint8 (H, W, 3).

    Raises
    ------
    UnreadableImageError
        A window is missing and has no safe default, or it has no extent.
    """
    total: NDArray[np.uint16] | None = None
    for channel, samples in planes:
        if total is None:
            total = np.zeros((*samples.shape, 3), np.uint16)
        low, high = channel_window(channel, samples, rule, bits, strict)
        notes.append(
            f"Channel {channel.index + 1} shown from {low:g} (black) to {high:g} ({channel.color})."
        )
        _add(total, samples, low, high, rgb_of(channel.color))
    if total is None:
        raise UnreadableImageError("No channel was chosen.")
    out = np.empty(total.shape, np.uint8)
    for start in range(0, len(total), ROWS):
        part = total[start : start + ROWS]
        out[start : start + ROWS] = np.minimum((part + STEPS // 2) // STEPS, 255)
    return out


def channel_window(
    channel: Channel, samples: NDArray[Any], rule: ReadingRule, bits: int, strict: bool = False
) -> tuple[float, float]:
    """Return a channel's own window, or where an end is missing the project's; errors as `mix`."""
    low, high = channel.low, channel.high
    if low is None or high is None:
        kind = sample_kind(samples.dtype)
        ends = None if rule.window(kind) or kind == "uint8" else finite_range(samples)
        window = find_window(kind, bits, ends, rule, strict)
        low, high = (window[0] if low is None else low), (window[1] if high is None else high)
    if not low < high:
        raise UnreadableImageError(
            f"The window of channel {channel.index + 1} runs from {low:g} to {high:g}.",
            "White must be a larger number than black.",
            "Give both its ends in the project's reading rule.",
        )
    return low, high


def _add(
    total: NDArray[np.uint16],
    samples: NDArray[Any],
    low: float,
    high: float,
    color: tuple[int, int, int],
) -> None:
    table = None
    if samples.dtype in (np.uint8, np.uint16):
        table = to_share(np.arange(np.iinfo(samples.dtype).max + 1), low, high)
    for start in range(0, len(samples), ROWS):
        part = samples[start : start + ROWS]
        share = None if table is not None else to_share(part, low, high)
        for place, level in enumerate(color):
            if level == 0:
                continue
            if table is not None:
                light = (table * (level * STEPS) + 0.5).astype(np.uint16)[part]
            else:
                assert share is not None
                light = (share * (level * STEPS) + 0.5).astype(np.uint16)
            total[start : start + ROWS, :, place] += light
