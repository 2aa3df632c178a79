"""A quick look at a file, for choosing how to read it: a small picture, and the values it holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.imaging.channels import ChannelRange, channel_ranges
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import ReadingRule, SampleRange, read_image, read_sample_range


@dataclass(frozen=True)
class FileLevels:
    """The values of a file.

    Parameters
    ----------
    channels
        Of a gray file or a stack of channels; none for a picture with plain colours.
    colors
        The range of a picture with plain colours of more than 8 bits, else None.
    """

    channels: list[ChannelRange]
    colors: SampleRange | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FileLevels:
        """Return what `as_json` made plain."""
        colors = data["colors"]
        return cls(
            [ChannelRange(**channel) for channel in data["channels"]],
            SampleRange(**colors) if colors else None,
        )


def small_picture(path: Path, rule: ReadingRule, limits: Limits, side: int) -> NDArray[np.uint8]:
    """Return a file as the rule shows it, made to fit into a square.

    Parameters
    ----------
    side
        Longest side of the result, in pixels.

    Returns
    -------
    ndarray
        uint8 (h, w, 3), 0 to 255, h and w at most `side`.

    Raises
    ------
    UnreadableImageError
        As `read_image`.
    """
    image = Image.fromarray(read_image(path, rule, limits).pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)


def file_levels(path: Path, limits: Limits, page: str) -> FileLevels:
    """Return the values that a file holds; raise UnreadableImageError as `read_image`.

    Parameters
    ----------
    page
        Of a stack of pages or planes, as in `ReadingRule.page`.
    """
    channels = channel_ranges(path, limits, page)
    return FileLevels(channels, None if channels else read_sample_range(path, limits))
