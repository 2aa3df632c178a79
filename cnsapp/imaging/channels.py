"""The channels of a stack: what is in each, and in which colour and window to show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import FIRST, MAX_CHANNELS, Channel

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
        One for a gray file, several for a stack of channels (`ImageFacts.channels` of them), none
        for a picture that has plain colours.

    Raises
    ------
    UnreadableImageError
        As `read_image`.
    """
    raise NotImplementedError


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
