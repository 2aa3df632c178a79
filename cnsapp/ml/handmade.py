"""Features made by hand: colour and texture as they were described before deep learning.

They are what a network is measured against: where a support vector machine on these numbers is as
good, the network buys nothing. Nothing here is learnt, and every number has its paper.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.ml.augment import stain_matrix
from cnsapp.ml.handmade_texture import (
    DISTANCES,
    HARALICK,
    N_SCALES,
    RINGS,
    gabor_energies,
    haralick,
    local_binary_patterns,
)
from cnsapp.ml.preprocess import Pixels, make_view

Floats = NDArray[np.float32]

SIDE = 224
"""Side in pixels at which an image is described, so that textures compare."""
VERSION = 1
N_HUES, N_SATURATIONS, N_VALUES = 16, 8, 8
QUANTILES = (0.1, 0.5, 0.9)
DYES = ("haematoxylin", "eosin", "dab")
UNMIXING = np.linalg.inv(stain_matrix().double().numpy()).astype(np.float32)
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)  # of a pixel value
_LINEAR = np.arange(256) / 255
_LINEAR = np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4)
_LINEAR = _LINEAR.astype(np.float32)
_XYZ = np.array(  # of linear sRGB, divided by the white D65
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_XYZ = (_XYZ / _XYZ.sum(1, keepdims=True)).T.astype(np.float32)


@dataclass(frozen=True)
class Columns:
    """What the numbers of a row are: their names, and which of them tell colour."""

    names: tuple[str, ...]
    n_colour: int  # colour comes first, texture after it


@lru_cache(maxsize=1)
def columns() -> Columns:
    """Return the names of the numbers that `describe` returns, in its order."""
    moments = ("mean", "spread", "skew")
    colour = [f"rgb {c} {m}" for m in moments for c in ("red", "green", "blue")]
    colour += [f"lab {c} {m}" for m in moments for c in ("L", "a", "b")]
    counts = (("hue", N_HUES), ("saturation", N_SATURATIONS), ("value", N_VALUES))
    colour += [f"{what} {i + 1} of {n}" for what, n in counts for i in range(n)]
    figures = ("mean", "spread", *(f"quantile {q:g}" for q in QUANTILES))
    colour += [f"{stain} {figure}" for figure in figures for stain in DYES]
    texture = [f"lbp {p} at {r}: {i}" for p, r in RINGS for i in range(p + 2)]
    texture += [
        f"{what} at {d} {how}" for d in DISTANCES for how in ("mean", "range") for what in HARALICK
    ]
    texture += [f"gabor {i + 1} {how}" for how in ("mean", "spread") for i in range(N_SCALES)]
    return Columns((*colour, *texture), len(colour))


def spec_id() -> str:
    """Return 16 hexadecimal digits that name these features: rows of others must not be mixed."""
    text = f"handmade {VERSION} {SIDE} {'|'.join(columns().names)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(image: Pixels) -> Floats:
    """Describe the colour and the texture of an image.

    Parameters
    ----------
    image
        uint8 (H, W, 3) of any size; it is resized as a whole to 224 x 224 first.

    Returns
    -------
    (D,) float32, named by `columns`: moments of RGB and of CIE Lab; histograms of hue (weighted by
    saturation: a grey pixel has no hue), saturation and value; stain densities after colour
    deconvolution; local binary patterns, co-occurrence statistics and Gabor energies of the
    luminance.

    Raises
    ------
    CnsError
        The array is not an RGB image.

    References
    ----------
    Stricker and Orengo, Similarity of color images, SPIE 1995 (moments); Swain and Ballard, Color
    indexing, IJCV 1991 (histograms); Ruifrok and Johnston, Quantification of histochemical staining
    by color deconvolution, Anal. Quant. Cytol. Histol. 2001. For the textures see
    `cnsapp.ml.handmade_texture`.
    """
    view = make_view(image, SIDE)
    grey = np.asarray(Image.fromarray(view).convert("L"))
    parts = (
        moments(view.reshape(-1, 3).astype(np.float32) / 255),
        moments(to_lab(view).reshape(-1, 3) / 100),
        colour_histograms(view),
        stain_figures(view),
        local_binary_patterns(grey),
        haralick(grey),
        gabor_energies(grey),
    )
    return np.concatenate(parts).astype(np.float32)


def moments(values: NDArray[np.floating]) -> Floats:
    """Return mean, standard deviation and skew of every column of (N, C): (3 C,).

    The skew is the cube root of the third central moment (it keeps the unit), as in the paper.
    """
    mean = values.mean(0)
    centred = values - mean
    square = centred * centred
    parts = [mean, np.sqrt(square.mean(0)), np.cbrt((square * centred).mean(0))]
    return np.concatenate(parts).astype(np.float32)


def to_lab(image: Pixels) -> Floats:
    """Return CIE 1976 L*a*b* (H, W, 3) of sRGB pixels, white D65: L in 0 to 100."""
    share = _LINEAR[image] @ _XYZ  # X, Y, Z as shares of the white's
    small = share <= 216 / 24389
    root = np.where(small, (24389 / 27 * share + 16) / 116, np.cbrt(share))
    lab = np.empty(root.shape, np.float32)
    lab[..., 0] = 116 * root[..., 1] - 16
    lab[..., 1] = 500 * (root[..., 0] - root[..., 1])
    lab[..., 2] = 200 * (root[..., 1] - root[..., 2])
    return lab


def colour_histograms(image: Pixels) -> Floats:
    """Return shares (32,): hue by saturation (0 without colour), saturation, value."""
    hsv = np.asarray(Image.fromarray(image).convert("HSV")).reshape(-1, 3)
    hue = np.bincount(hsv[:, 0] >> 4, hsv[:, 1], N_HUES)
    saturation = np.bincount(hsv[:, 1] >> 5, minlength=N_SATURATIONS) / len(hsv)
    value = np.bincount(hsv[:, 2] >> 5, minlength=N_VALUES) / len(hsv)
    return np.concatenate([hue / max(hue.sum(), 1), saturation, value]).astype(np.float32)


def stain_densities(image: Pixels) -> Floats:
    """Return how much haematoxylin, eosin and DAB explain each pixel, (H, W, 3) float32.

    1 is a density of one decade along the stain's own colour; below 0 where another colour is
    needed.
    """
    return np.asarray(_DENSITY[image] @ UNMIXING)


def stain_figures(image: Pixels) -> Floats:
    """Return mean, spread and three quantiles of the three stain densities, (15,)."""
    flat = stain_densities(image).reshape(-1, 3)
    quantiles = np.quantile(flat[::4], QUANTILES, axis=0)  # every fourth pixel tells as much
    return np.concatenate([flat.mean(0), flat.std(0), quantiles.ravel()]).astype(np.float32)
