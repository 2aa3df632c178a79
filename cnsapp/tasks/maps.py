"""Draw a saliency map: transparent over the display image, or with the image under it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DISPLAY_SIDE = 1600  # long side of the display image, as the importer makes it
STRONGEST = 0.8  # opacity where the evidence is largest; the tissue stays visible under it

# from nothing to strong: violet, red, orange, yellow (anchors of Matplotlib's "inferno", CC0), which
# grows lighter evenly and is told apart with every common colour blindness
_ANCHORS = np.array(
    [(31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
     (249, 201, 50), (252, 255, 164)], dtype=float,
)  # fmt: skip

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
    shrunk = Image.fromarray(np.asarray(heat, np.float32), mode="F")
    strength = np.asarray(shrunk.resize(size, Image.Resampling.BILINEAR)).clip(0, 1)  # (H, W)
    at = strength * (len(_ANCHORS) - 1)
    below = np.minimum(at.astype(int), len(_ANCHORS) - 2)
    part = (at - below)[..., None]
    colour = _ANCHORS[below] * (1 - part) + _ANCHORS[below + 1] * part
    alpha = 255 * STRONGEST * np.sqrt(strength)
    rgba = np.concatenate([colour, alpha[..., None]], axis=2)
    return Image.fromarray(rgba.round().astype(np.uint8), mode="RGBA")


def over(pixels: NDArray[np.uint8], heat: Heat) -> Image.Image:
    """Return the map over the picture, at the picture's own resolution."""
    base = Image.fromarray(pixels).convert("RGBA")
    return Image.alpha_composite(base, as_rgba(heat, base.size)).convert("RGB")


def save_whole(image: Image.Image, target: Path) -> None:
    """Write a PNG that appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        image.save(partial, "PNG", compress_level=3)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
