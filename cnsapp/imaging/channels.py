"""The channels of a stack: what is in each, and in which colour and window to show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnsapp.imaging.decoded import quiet, refusal, wanted_pages
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import FIRST, MAX_CHANNELS, Channel, ReadingRule
from cnsapp.imaging.sniff import sniff
from cnsapp.imaging.tiff_files import chosen_channels, gray, opened_stack
from cnsapp.imaging.tiff_stack import GRAYS, Stack
from cnsapp.imaging.window import SampleRange, measure, sample_kind

# blue, green, red, magenta, cyan, yellow: light enough to be told apart when colours are hard to
# see; the first two or three of them are also the usual ones (nuclei blue, then green and red)
COLORS = ("#2F6BFF", "#00C853", "#FF4B3E", "#FF3FD2", "#00CFE8", "#FFD21F")


@dataclass(frozen=True)
class ChannelRange:
    """What one channel of a file holds.

    Parameters
    ----------
    index
        From 0, as in `Channel.index`.
    name
        From the file's metadata, or "Channel 1", "Channel 2", ...
    color
        "#RRGGBB" from the file's metadata, or None.
    kind
        Kind of its samples: uint8, uint16, uint32, int8, int16, int32 or float.
    low, high
        Smallest and largest finite value.
    p_low, p_high
        The 0.1 and 99.9 percentiles, taken on at most about a million values.
    """

    index: int
    name: str
    color: str | None
    kind: str
    low: float
    high: float
    p_low: float
    p_high: float


def channel_ranges(
    path: Path, limits: Limits | None = None, page: str = FIRST
) -> list[ChannelRange]:
    """Return what each channel of a file holds, in their order.

    Parameters
    ----------
    path
        The file.
    limits
        As for `read_image`; None: the defaults.
    page
        "first", "max" or a number from 1, as in `ReadingRule.page`.

    Returns
    -------
    list of ChannelRange
        One for a gray TIFF, several for a stack of channels (`ImageFacts.channels` of them), none
        for other files and for pictures that have plain colours.

    Raises
    ------
    UnreadableImageError
        As `read_image`.
    """
    limits = limits or Limits()
    rule = ReadingRule(page=page)
    try:
        with quiet():
            if sniff(path) != "TIFF":
                return []
            limits.check_bytes(path.stat().st_size)
            with opened_stack(path, limits) as stack:
                return _ranges(stack, rule)
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise refusal(error) from error


def range_of_chosen(
    path: Path, limits: Limits, rule: ReadingRule
) -> tuple[bool, SampleRange | None]:
    """Return whether a TIFF has channels, and the range of the chosen ones without a window."""
    with opened_stack(path, limits) as stack:
        if stack.channels < 2:
            return False, None
        if stack.page.dtype == np.uint8:
            return True, None
        needy = [
            channel.index
            for channel in chosen_channels(rule, stack.channels, [])
            if channel.low is None or channel.high is None
        ]
        planes = wanted_pages(rule, stack.planes)
        found = stack.grays(sorted(set(needy)), planes)
        return True, measure(gray(stack, samples) for _, samples in found)


def _ranges(stack: Stack, rule: ReadingRule) -> list[ChannelRange]:
    page = stack.page
    if stack.channels == 1 and (page.samplesperpixel > 1 or int(page.photometric) not in GRAYS):
        return []
    names = stack.meta.names
    ranges = []
    planes = wanted_pages(rule, stack.planes)
    for index, samples in stack.grays(range(stack.channels), planes):
        found = measure([gray(stack, samples)])
        if found is None:  # nothing but NaN
            found = SampleRange(sample_kind(page.dtype), 0.0, 0.0, 0.0, 0.0)
        ranges.append(
            ChannelRange(
                index, names[index], stack.meta.colors[index], found.kind,
                found.low, found.high, found.p_low, found.p_high,
            )
        )  # fmt: skip
    return ranges


def default_channels(ranges: Sequence[ChannelRange]) -> tuple[Channel, ...]:
    """Return a proposal for `ReadingRule.channels`: a colour and a window for each channel.

    Colours are the file's own where it names them and they differ, else blue, green, red, magenta,
    cyan, yellow. The windows run from the 0.1 to the 99.9 percentile. At most the first 6
    channels are proposed, and none for fewer than 2 channels.
    """
    if len(ranges) < 2:
        return ()
    chosen = ranges[:MAX_CHANNELS]
    own = [found.color for found in chosen]
    usable = None not in own and len(set(own)) == len(own)
    channels = []
    for place, found in enumerate(chosen):
        color = found.color if usable and found.color else COLORS[place]
        low, high = found.p_low, found.p_high
        if not low < high:
            low, high = found.low, max(found.high, found.low + 1)
        channels.append(Channel(found.index, color, low, high))
    return tuple(channels)
