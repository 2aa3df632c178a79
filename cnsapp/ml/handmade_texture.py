"""Texture by hand: local binary patterns, co-occurrence statistics, Gabor energies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Grey = NDArray[np.uint8]

RINGS = ((8, 1.0), (16, 2.0), (24, 3.0))
"""Neighbours and radius in pixels of each local binary pattern."""
DISTANCES = (1, 2, 4)
"""Pixels between the two of a pair whose grey levels are counted together."""
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))  # down, right: 0, 45, 90 and 135 degrees
N_LEVELS = 32
HARALICK = (
    "uniformity", "contrast", "dissimilarity", "correlation", "homogeneity", "entropy",
)  # fmt: skip
N_SCALES, N_ORIENTATIONS = 4, 6
LOWEST, HIGHEST = 0.05, 0.4  # frequencies of the Gabor filters, cycles a pixel
SAME = 1e-3  # grey levels: closer than this is equal (an interpolation never is exactly)


def local_binary_patterns(grey: Grey) -> Floats:
    """Return the histograms of uniform, rotation-invariant local binary patterns.

    Parameters
    ----------
    grey
        uint8 (H, W), larger than 6 x 6.

    Returns
    -------
    (10 + 18 + 26,) shares, one histogram a ring, each summing to 1. Bin k of a ring counts the
    pixels with k brighter neighbours in one arc; the last bin those whose ring changes more often.

    References
    ----------
    Ojala, Pietikainen and Maenpaa, Multiresolution gray-scale and rotation invariant texture
    classification with local binary patterns, IEEE TPAMI 2002.
    """
    image = grey.astype(np.float32)
    return np.concatenate([_ring_histogram(image, p, r) for p, r in RINGS])


def _ring_histogram(image: Floats, n: int, radius: float) -> Floats:
    border = int(np.ceil(radius))
    h, w = image.shape[0] - 2 * border, image.shape[1] - 2 * border
    centre = image[border : border + h, border : border + w] - SAME

    def shifted(dy: int, dx: int) -> Floats:
        return image[border + dy : border + dy + h, border + dx : border + dx + w]

    ones = np.zeros((h, w), np.uint8)
    changes = np.zeros((h, w), np.uint8)
    first: Any = None
    before: Any = None
    for k in range(n):
        angle = 2 * np.pi * k / n
        y, x = round(-radius * np.sin(angle), 9), round(radius * np.cos(angle), 9)
        y0, x0 = int(np.floor(y)), int(np.floor(x))
        fy, fx = y - y0, x - x0
        value: Any = None
        for dy, dx, share in (
            (y0, x0, (1 - fy) * (1 - fx)), (y0, x0 + 1, (1 - fy) * fx),
            (y0 + 1, x0, fy * (1 - fx)), (y0 + 1, x0 + 1, fy * fx),
        ):  # fmt: skip
            if share > 0:
                part = shifted(dy, dx) * np.float32(share)
                value = part if value is None else np.add(value, part, out=value)
        bit = value >= centre
        ones += bit
        if before is None:
            first = bit
        else:
            changes += bit ^ before
        before = bit
    changes += before ^ first
    code = np.where(changes <= 2, ones, n + 1)
    return (np.bincount(code.ravel(), minlength=n + 2) / code.size).astype(np.float32)


def haralick(grey: Grey) -> Floats:
    """Return statistics of how grey levels lie beside each other.

    Parameters
    ----------
    grey
        uint8 (H, W), larger than 4 x 4; read in 32 levels of equal width.

    Returns
    -------
    (36,): for each distance of `DISTANCES` the mean over four directions of the statistics of
    `HARALICK`, then their range (largest less smallest), which tells a grain.

    References
    ----------
    Haralick, Shanmugam and Dinstein, Textural features for image classification, IEEE Trans. SMC
    1973.
    """
    levels = (grey // (256 // N_LEVELS)).astype(np.intp)
    found = []
    for distance in DISTANCES:
        each = np.stack(
            [
                co_occurrence_statistics(co_occurrence(levels, dy * distance, dx * distance))
                for dy, dx in DIRECTIONS
            ]
        )
        found += [each.mean(0), np.ptp(each, axis=0)]
    return np.concatenate(found).astype(np.float32)


def co_occurrence(
    levels: NDArray[np.intp], dy: int, dx: int, n: int = N_LEVELS
) -> NDArray[np.float64]:
    """Return how often two levels stand `dy` down and `dx` right of each other, (n, n).

    Each pair counts both ways round, and all sum to 1.
    """
    h, w = levels.shape
    here = levels[: h - dy, max(-dx, 0) : w - max(dx, 0)]
    there = levels[dy:, max(dx, 0) : w - max(-dx, 0)]
    counts = np.bincount((here * n + there).ravel(), minlength=n * n).reshape(n, n)
    both = (counts + counts.T).astype(np.float64)
    return np.asarray(both / both.sum())


def co_occurrence_statistics(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the statistics of `HARALICK` of a symmetric matrix (n, n) that sums to 1.

    Uniformity is the angular second moment, homogeneity the inverse difference moment, entropy in
    bits. The correlation of a single level is 1 by convention.
    """
    n = len(p)
    i = np.arange(n, dtype=np.float64)
    apart = np.abs(i[:, None] - i)
    marginal = p.sum(0)
    mean = marginal @ i
    variance = marginal @ (i - mean) ** 2
    covariance = (i - mean) @ p @ (i - mean)
    positive = p[p > 0]
    return np.array(
        [
            (p * p).sum(),
            (p * apart**2).sum(),
            (p * apart).sum(),
            covariance / variance if variance > 1e-12 else 1.0,
            (p / (1 + apart**2)).sum(),
            -(positive * np.log2(positive)).sum(),
        ]
    )


def gabor_energies(grey: Grey) -> Floats:
    """Return how strongly structures of four sizes stand out, and how much they have a direction.

    Parameters
    ----------
    grey
        uint8 (H, W).

    Returns
    -------
    (8,): for each scale, coarse to fine, the mean over six orientations of log10 of the filter's
    mean squared answer; then their standard deviation over the orientations.

    Notes
    -----
    The mean squared answer is a sum over the power spectrum (Parseval), so no filtered picture is
    ever made; the picture is taken to go on periodically.

    References
    ----------
    Manjunath and Ma, Texture features for browsing and retrieval of image data, IEEE TPAMI 1996.
    """
    centred = grey.astype(np.float32) / 255
    centred -= centred.mean()
    power = np.abs(np.fft.fft2(centred)).astype(np.float32) ** 2 / centred.size**2
    energy = _squared_filters(*grey.shape) @ power.ravel()
    log = np.log10(np.maximum(energy, 1e-8)).reshape(N_SCALES, N_ORIENTATIONS)
    return np.concatenate([log.mean(1), log.std(1)]).astype(np.float32)


@lru_cache(maxsize=2)
def _squared_filters(h: int, w: int) -> Floats:
    """Return the squared Gabor filters (24, h w) in the frequency plane, by scale."""
    v, u = np.meshgrid(np.fft.fftfreq(h), np.fft.fftfreq(w), indexing="ij")
    step = (HIGHEST / LOWEST) ** (1 / (N_SCALES - 1))
    found = []
    for scale in range(N_SCALES):
        at = LOWEST * step**scale
        # neighbours of scale and of orientation meet at half their height, as in the paper
        along = (step - 1) * at / ((step + 1) * np.sqrt(2 * np.log(2)))
        across = np.tan(np.pi / (2 * N_ORIENTATIONS)) * at / np.sqrt(2 * np.log(2))
        for k in range(N_ORIENTATIONS):
            angle = np.pi * k / N_ORIENTATIONS
            x, y = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
            found.append(np.exp(-(((x - at) / along) ** 2 + (y / across) ** 2)).ravel())
    return np.asarray(found, np.float32)
