"""What can be measured of a picture alone: focus, background, exposure, colour.

All of it is measured on the picture that training sees (after the reading rule), shrunk to at most
256 pixels a side: what cannot be told there can not be learnt there either.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.imaging.duplicates import SIDE, signature

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

WORK_SIDE = 256  # pixels
CELL = 16  # pixels: the squares in which structure is looked for
FLAT = 3.0  # gray levels: the standard deviation below which a square has no structure
LIGHT, DARK = 200.0, 25.0  # gray levels of empty glass and of an empty dark field
WHITE, BLACK = 253, 2  # levels from which a sensor tells nothing more
COLOR_SIDE = 48  # pixels: colour needs no detail


@dataclass(frozen=True)
class Measures:
    """What was measured of one picture.

    Parameters
    ----------
    focus
        0 upwards, higher is sharper: the energy of the Laplacian over the local variance, both
        after a 3 x 3 binomial filter. Dimensionless and the same at any contrast; NaN where the
        picture has no structure. Comparable among pictures of one kind and size.
    contrast
        Standard deviation of the gray levels, 0 to 127.5.
    empty
        Share of background, 0 to 1: squares of 16 pixels without structure that are light or dark.
    over, under
        Share of pixels, 0 to 1, that are white (all channels from 253) or black (all up to 2).
    lightness, green_red, blue_yellow
        Mean CIE L* (0 to 100), a*, b* (about -100 to 100) for D65.
    spread
        Root of the summed variances of L*, a*, b*: how far its colours lie apart.
    """

    focus: float
    contrast: float
    empty: float
    over: float
    under: float
    lightness: float
    green_red: float
    blue_yellow: float
    spread: float

    def as_json(self) -> dict[str, Any]:
        """Return the measures as they are stored, 5 digits each; no focus is None."""
        return {k: None if np.isnan(v) else float(f"{v:.5g}") for k, v in asdict(self).items()}


def measure(pixels: Pixels) -> tuple[Measures, bytes | None]:
    """Measure a picture and return its signature for near duplicates beside it.

    Parameters
    ----------
    pixels
        uint8 (H, W, 3), 0 to 255, as `read_image` returns them.

    References
    ----------
    Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy: a comparative study, ICPR
    2000 (variance of the Laplacian). Pertuz et al., Analysis of focus measure operators for
    shape-from-focus, Pattern Recognition 2013 (its normalisation; comparison of 36 measures).
    """
    picture = Image.fromarray(pixels)
    if max(picture.size) > WORK_SIDE:
        scale = WORK_SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    gray_picture = picture.convert("L")
    gray = np.asarray(gray_picture, np.float32)
    small = picture
    if max(picture.size) > COLOR_SIDE:
        small = picture.resize((COLOR_SIDE, COLOR_SIDE), Image.Resampling.BOX)
    lab = to_lab(np.asarray(small)).reshape(-1, 3).T  # (3, N)
    mean = lab.mean(axis=1)
    off = lab - mean[:, None]
    over, under = _clipped(np.asarray(picture))
    measures = Measures(
        focus=focus(gray),
        contrast=float(gray.std()),
        empty=empty_share(gray),
        over=over,
        under=under,
        lightness=float(mean[0]),
        green_red=float(mean[1]),
        blue_yellow=float(mean[2]),
        spread=float(np.sqrt((off * off).mean(axis=1).sum())),
    )
    squeezed = Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return measures, signature(np.asarray(squeezed))


def focus(gray: Floats) -> float:
    """Return how sharp a gray picture is; NaN where no part of it has structure.

    Laplacian and variance are both taken inside the squares that have structure: empty glass around
    the tissue, its edge, and uneven light do not count.

    Parameters
    ----------
    gray
        float32 (H, W), 0 to 255.
    """
    if min(gray.shape) < 8:
        return float("nan")
    smooth = _binomial(gray)
    inner = smooth[1:-1, 1:-1]
    laplacian = smooth[:-2, 1:-1] + smooth[2:, 1:-1] + smooth[1:-1, :-2] + smooth[1:-1, 2:]
    laplacian -= 4 * inner
    variance = _cells(inner * inner) - _cells(inner) ** 2
    energy = _cells(laplacian * laplacian)
    structured = variance > FLAT**2
    if not structured.any():
        return float("nan")
    return float(energy[structured].sum() / variance[structured].sum())


def empty_share(gray: Floats) -> float:
    """Return the share of squares that are background: light or dark, and without structure."""
    mean = _cells(gray)
    flat = _cells(gray * gray) - mean**2 < FLAT**2
    return float((flat & ((mean >= LIGHT) | (mean <= DARK))).mean())


def to_lab(pixels: Pixels) -> Floats:
    """Return sRGB pixels (..., 3) as CIE L*a*b* (D65), float32 (..., 3).

    References
    ----------
    IEC 61966-2-1 (sRGB); CIE 15:2004 (L*a*b*).
    """
    xyz = _LINEAR[pixels] @ _TO_XYZ.T
    f = np.where(xyz > _EPSILON, np.cbrt(xyz), xyz * np.float32(841 / 108) + np.float32(4 / 29))
    lab: Floats = np.asarray(f @ _TO_LAB.T - _LAB_OFFSET, np.float32)
    return lab


_LEVELS = np.arange(256) / 255
_LINEAR = np.where(
    _LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4
).astype(np.float32)  # fmt: skip
_TO_XYZ = (
    np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
              [0.0193339, 0.1191920, 0.9503041]])
    / np.array([[0.95047], [1.0], [1.08883]])
).astype(np.float32)  # fmt: skip
_TO_LAB = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]], np.float32)
_LAB_OFFSET = np.array([16, 0, 0], np.float32)
_EPSILON = np.float32((6 / 29) ** 3)


def _clipped(pixels: Pixels) -> tuple[float, float]:
    low = np.minimum(np.minimum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    high = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    return float((low >= WHITE).mean()), float((high <= BLACK).mean())


def _binomial(gray: Floats) -> Floats:
    rows = gray[:-2] + 2 * gray[1:-1] + gray[2:]
    smooth: Floats = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / np.float32(16)
    return smooth


def _cells(values: Floats) -> Floats:
    """Return the means over squares of 16 pixels; a rest at the right and lower edge is left."""
    side = min(CELL, *values.shape)
    rows, columns = values.shape[0] // side, values.shape[1] // side
    cut = values[: rows * side, : columns * side]
    means: Floats = cut.reshape(rows, side, columns, side).mean(axis=(1, 3))
    return means
