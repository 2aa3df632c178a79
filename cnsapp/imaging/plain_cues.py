"""What a picture tells without any tissue being looked at: its overall colour, and its border."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
N_COLOUR, N_BORDER = 6, 12
EDGE, INSIDE = 2, 8  # pixels of a thumbnail: the outermost ones, and what they are compared with
SMALLEST = 3 * INSIDE


def read_thumbnail(path: Path) -> NDArray[np.uint8] | None:
    """Return a thumbnail that the import made (H, W, 3) uint8, or None where it is not there."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError:
        return None


def colour(pixels: NDArray[np.uint8]) -> Floats:
    """Return mean and standard deviation of red, green and blue (6,), 0 to 255."""
    flat = pixels.reshape(-1, 3).astype(np.float64)
    found: Floats = np.r_[flat.mean(0), flat.std(0)]
    return found


def border(pixels: NDArray[np.uint8]) -> Floats:
    """Return by how much the outermost pixels of each side differ from those just inside (12,).

    Top, bottom, left, right, each red, green, blue, -255 to 255. Tissue goes on across such a line,
    so that all are near 0; frames, scale bars, stitching and dark corners are not. NaN for a
    picture of fewer than 24 pixels.
    """
    if min(pixels.shape[:2]) < SMALLEST:
        return np.full(N_BORDER, np.nan)
    x = pixels.astype(np.float64)
    sides = (x, x[::-1], x.transpose(1, 0, 2), x.transpose(1, 0, 2)[::-1])
    return np.concatenate([s[:EDGE].mean((0, 1)) - s[EDGE:INSIDE].mean((0, 1)) for s in sides])
