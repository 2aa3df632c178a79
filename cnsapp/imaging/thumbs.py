"""Small and display-size pictures of an image, made once at import."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.imaging.store import PART, own_name

THUMB_SIDE = 256
VIEW_SIDE = 2048  # the usual tile is its own view: shrinking it took longer than reading it
QUALITY = 85
GAP = 2.0  # as `reducing_gap` of Pillow's resize
STRIP = 512  # rows worked on at a time


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
    longest = max(pixels.shape[:2])
    view = _shrunk_pixels(pixels, VIEW_SIDE) if longest > VIEW_SIDE else Image.fromarray(pixels)
    if longest > THUMB_SIDE:
        _save(view, view_path, QUALITY)
        _save(_shrunk(view, THUMB_SIDE), thumb_path, QUALITY)
    else:
        _save(view, thumb_path, 92)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    size = _size(image.width, image.height, side)
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=GAP)


def _shrunk_pixels(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """Return what `_shrunk` makes of them, without a second copy of a large scan.

    Pillow shrinks in two steps too: whole blocks to their means, then smoothly to the size.
    """
    height, width = pixels.shape[:2]
    size = _size(width, height, side)
    block = (int(width / size[0] / GAP) or 1, int(height / size[1] / GAP) or 1)
    if block == (1, 1):
        return _shrunk(Image.fromarray(pixels), side)
    is_gray = pixels.strides[-1] == 0  # as `color.spread` makes it
    channels = [
        _shrunk_channel(pixels[..., i], block, size) for i in range(1 if is_gray else 3)
    ]  # one by one: together they would take as much memory again as a scan
    return Image.merge("RGB", channels * 3 if is_gray else channels)


def _shrunk_channel(
    channel: NDArray[np.uint8], block: tuple[int, int], size: tuple[int, int]
) -> Image.Image:
    height, width = channel.shape
    reduced = Image.new("L", (-(-width // block[0]), -(-height // block[1])))
    rows = STRIP // block[1] * block[1] or block[1]
    for top in range(0, height, rows):
        strip = Image.fromarray(np.ascontiguousarray(channel[top : top + rows]))
        reduced.paste(strip.reduce(block), (0, top // block[1]))
    box = (0, 0, width / block[0], height / block[1])
    return reduced.resize(size, Image.Resampling.BICUBIC, box=box)


def _size(width: int, height: int, side: int) -> tuple[int, int]:
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _save(image: Image.Image, path: Path, quality: int) -> None:
    partial = path.parent.parent / own_name(PART)  # there a later import finds what was left
    try:
        image.save(partial, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
