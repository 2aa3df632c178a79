"""Small and display-size pictures of an image, made once at import."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.imaging.store import PART, own_name

THUMB_SIDE = 256
VIEW_SIDE = 1600
QUALITY = 85


def make_thumbs(pixels: NDArray[np.uint8], thumb_path: Path, view_path: Path) -> None:
    """Write the thumbnail and the display-size JPEG of a picture, each whole or not at all.

    A picture that fits into a thumbnail gets no second file: its thumbnail is its view. Small
    pictures are kept without colour subsampling, so that fine nuclei stay sharp.

    Parameters
    ----------
    pixels
        uint8 (H, W, 3), 0 to 255, as `read_image` returns them.
    thumb_path, view_path
        Where the files go, below a folder of the store and two letters; the latter is made.
    """
    thumb_path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if max(image.size) > THUMB_SIDE:
        view = image
        if max(image.size) > VIEW_SIDE:
            view = _shrunk(image, VIEW_SIDE)
        _save(view, view_path, QUALITY)
        _save(_shrunk(view, THUMB_SIDE), thumb_path, QUALITY)
    else:
        _save(image, thumb_path, 92)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _save(image: Image.Image, path: Path, quality: int) -> None:
    partial = path.parent.parent / own_name(PART)  # there a later import finds what was left
    try:
        image.save(partial, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
