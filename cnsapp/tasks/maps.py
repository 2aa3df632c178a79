"""Draw a saliency map: transparent over the display image, or with the image under it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.domain.maps import POSITIVE, SIGNED

DISPLAY_SIDE = 2048  # long side of the display image, as the importer makes it
STRONGEST = 0.8  # opacity where the evidence is largest; the tissue stays visible under it

# from nothing to strong: violet, red, orange, yellow (anchors of Matplotlib's "inferno", CC0). It
# grows lighter evenly and is told apart with every common colour blindness.
_RISING = (
    (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85),
    (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164),
)  # fmt: skip
# from against to for: blue, white, orange (ColorBrewer's "PuOr" with a blue end). Blue and orange
# are told apart with every common colour blindness.
_DIVERGING = (
    (5, 48, 97), (33, 102, 172), (146, 197, 222), (247, 247, 247),
    (253, 184, 99), (224, 130, 20), (127, 59, 8),
)  # fmt: skip
_LEVELS = np.arange(256)
ZERO = 128  # the gray level that neither speaks for nor against


def _palette(anchors: tuple[tuple[int, int, int], ...]) -> bytes:
    places, table = np.linspace(0, 255, len(anchors)), np.array(anchors, float)
    colours = np.stack([np.interp(_LEVELS, places, table[:, c]) for c in range(3)], 1)
    return colours.round().astype(np.uint8).tobytes()


_PALETTES = {True: _palette(_DIVERGING), False: _palette(_RISING)}
_OPACITIES = {  # by whether the map is signed
    False: [round(255 * STRONGEST * (level / 255) ** 0.5) for level in range(256)],
    True: [round(255 * STRONGEST * min(abs(level - ZERO) / 127, 1) ** 0.5) for level in range(256)],
}

Heat = NDArray[np.float32]


def display_size(width: int, height: int) -> tuple[int, int]:
    """Return the size of the display image of a picture."""
    scale = min(1.0, DISPLAY_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def as_levels(heat: Heat, size: tuple[int, int], sign: str = POSITIVE) -> Image.Image:
    """Return the map as gray levels: 0 (nothing) to 255, or around 128 when it is signed.

    Parameters
    ----------
    heat
        (h, w) of the whole image: 0 (no evidence) to 1 (the most in this image), or -1 to 1.
    size
        (width, height) of the result.
    sign
        `positive`, `signed` or `magnitude`.
    """
    scaled = heat.clip(-1, 1) * 127 + ZERO if sign == SIGNED else heat.clip(0, 1) * 255
    levels = Image.fromarray(scaled.round().astype(np.uint8))
    return levels.resize(size, Image.Resampling.BILINEAR)  # one byte a pixel: scans are large


def as_rgba(heat: Heat, size: tuple[int, int], sign: str = POSITIVE) -> Image.Image:
    """Return the map as a transparent picture; parameters as for `as_levels`."""
    return in_colour(as_levels(heat, size, sign), sign)


def in_colour(levels: Image.Image, sign: str = POSITIVE) -> Image.Image:
    """Return gray levels in colours, the more transparent the less they say."""
    coloured = levels.copy()
    coloured.putpalette(_PALETTES[sign == SIGNED])
    shown = coloured.convert("RGB")
    shown.putalpha(levels.point(_OPACITIES[sign == SIGNED]))
    return shown


def scale_colours(sign: str) -> list[str]:
    """Return the colours of the scale, from its low end to its high one, as `#rrggbb`."""
    anchors = _DIVERGING if sign == SIGNED else _RISING
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in anchors]


def over(pixels: NDArray[np.uint8], heat: Heat, sign: str = POSITIVE) -> Image.Image:
    """Return the map over the picture, at the picture's own resolution."""
    base = Image.fromarray(pixels)
    shown = as_rgba(heat, base.size, sign)
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
