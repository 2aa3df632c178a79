"""Draw a saliency map: transparent over the display image, or with the image under it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DISPLAY_SIDE = 2048  # long side of the display image, as the importer makes it
STRONGEST = 0.8  # opacity where the evidence is largest; the tissue stays visible under it

# from nothing to strong: violet, red, orange, yellow (anchors of Matplotlib's "inferno", CC0). It
# grows lighter evenly and is told apart with every common colour blindness.
_ANCHORS = np.array(
    [
        (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85),
        (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164),
    ],
    dtype=float,
)  # fmt: skip
_LEVELS = np.arange(256)
_COLOURS = np.stack(
    [np.interp(_LEVELS, np.linspace(0, 255, len(_ANCHORS)), _ANCHORS[:, c]) for c in range(3)], 1
)
_PALETTE = _COLOURS.round().astype(np.uint8).tobytes()
_OPACITY = [round(255 * STRONGEST * (level / 255) ** 0.5) for level in range(256)]

Heat = NDArray[np.float32]


def display_size(width: int, height: int) -> tuple[int, int]:
    """Return the size of the display image of a picture."""
    scale = min(1.0, DISPLAY_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def as_rgba(heat: Heat, size: tuple[int, int]) -> Image.Image:
    """Return the map as a transparent picture.

    Parameters
    ----------
    heat
        (h, w), 0 (no evidence) to 1 (the most in this image), of the whole image.
    size
        (width, height) of the result.
    """
    levels = Image.fromarray((heat.clip(0, 1) * 255).round().astype(np.uint8))
    levels = levels.resize(size, Image.Resampling.BILINEAR)  # one byte a pixel: scans are large
    coloured = levels.copy()
    coloured.putpalette(_PALETTE)
    shown = coloured.convert("RGB")
    shown.putalpha(levels.point(_OPACITY))
    return shown


def over(pixels: NDArray[np.uint8], heat: Heat) -> Image.Image:
    """Return the map over the picture, at the picture's own resolution."""
    base = Image.fromarray(pixels)
    shown = as_rgba(heat, base.size)
    base.paste(shown, mask=shown.getchannel("A"))
    return base


def save_whole(image: Image.Image, target: Path) -> None:
    """Write a PNG that appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        image.save(partial, "PNG", compress_level=3)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
