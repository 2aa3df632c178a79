"""Where on a slide there is tissue: found on its thumbnail, by how much light it takes away.

The light that the empty glass lets through is estimated from the brightest common values of the
thumbnail; the optical density of a pixel against it (Beer-Lambert, as in Ruifrok and Johnston
2001) is split in two by Otsu's threshold. Specks are removed and small holes filled.

References
----------
N. Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on Systems,
Man, and Cybernetics 9(1), 1979. Used on slide thumbnails by, for example, M. Y. Lu et al.,
"Data-efficient and weakly supervised computational pathology on whole-slide images", Nature
Biomedical Engineering 5, 2021 (there on the saturation, after a median filter).
A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical staining by color
deconvolution", Analytical and Quantitative Cytology and Histology 23, 2001.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

BINS = 256
GLASS_SHARE = 0.99  # the glass is as bright as the brightest pixels but for this share's rest
DARK_GLASS = 128  # below this the brightest pixels are no empty glass: all is tissue
# optical density: Otsu splits any two heaps, also noise, or dense from pale tissue; what takes a
# quarter of the light away is tissue anyhow, and what takes 7 % may be shading of the glass
DENSITY = (0.03, 0.12)
DENSEST = 2.0  # a black margin must not move the threshold between glass and pale tissue
BLACK = 24  # all of R, G and B below this: the scanner's empty margin or a marker pen, no tissue
SPECK_SHARE = 1e-4  # of the thumbnail; smaller pieces are dust
HOLE_SHARE = 1e-3  # smaller holes (vessels, fat, tears) belong to the tissue around them
FLUORESCENT = 64  # brightest common value of a dark-field thumbnail's background


def find_tissue(thumbnail: NDArray[np.uint8]) -> Mask:
    """Return where a slide shows tissue.

    Parameters
    ----------
    thumbnail
        uint8 (H, W, 3), sRGB, as `Slide.thumbnail` returns it. Dark slides with light tissue
        (fluorescence) are taken as their negative.

    Returns
    -------
    ndarray
        bool (H, W), True where there is tissue. All False for a blank slide.

    Examples
    --------
    >>> picture = np.full((60, 60, 3), 240, np.uint8)
    >>> picture[20:40, 10:50] = (200, 120, 170)
    >>> int(find_tissue(picture).sum())
    796
    """
    from scipy import ndimage  # the web process does without, until somebody previews a slide

    picture = thumbnail
    black = thumbnail.max(axis=2) < BLACK
    if is_dark_field(thumbnail):
        picture, black = 255 - thumbnail, np.zeros(thumbnail.shape[:2], bool)
    density = optical_density(picture, black)
    smooth = ndimage.median_filter(density, size=3, mode="nearest")
    inside = ~black
    if not inside.any():
        return np.zeros(black.shape, bool)
    threshold = float(np.clip(otsu(smooth[inside]), *DENSITY))
    mask = (smooth > threshold) & inside
    return _without_specks_and_holes(mask, black)


def is_dark_field(thumbnail: NDArray[np.uint8]) -> bool:
    """Return whether the background is dark: most of the slide is much darker than glass."""
    return float(np.median(thumbnail.max(axis=2))) < FLUORESCENT


def optical_density(picture: NDArray[np.uint8], black: Mask) -> NDArray[np.float32]:
    """Return the mean optical density of R, G and B against the glass, 0 (empty) to 2: (H, W)."""
    density = np.zeros(picture.shape[:2], np.float32)
    lit = picture[~black]
    if lit.size == 0:
        return density
    for channel in range(3):
        glass = float(np.percentile(lit[:, channel], 100 * GLASS_SHARE))
        glass = 255.0 if glass < DARK_GLASS else glass
        share = np.clip((np.arange(256) + 1) / (glass + 1), 10**-DENSEST, 1)
        density += (-np.log10(share) / 3).astype(np.float32)[picture[..., channel]]
    return density


def otsu(values: NDArray[np.float32]) -> float:
    """Return the value that best splits a heap in two: the largest variance between the parts.

    Examples
    --------
    >>> 0.1 < otsu(np.array([0.0] * 90 + [1.0] * 10, np.float32)) < 1
    True
    """
    counts, edges = np.histogram(values, bins=BINS, range=(0.0, max(float(values.max()), 1e-6)))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    between = np.nan_to_num(between)
    best = np.flatnonzero(between == between.max())  # a gap between the heaps: take its middle
    return float(edges[1 + int(best[len(best) // 2])])


def _without_specks_and_holes(mask: Mask, black: Mask) -> Mask:
    from scipy import ndimage

    least = max(4, round(mask.size * SPECK_SHARE))
    largest = max(4, round(mask.size * HOLE_SHARE))
    kept = _large_pieces(mask, least)
    holes = ndimage.binary_fill_holes(kept) & ~kept & ~black
    filled: Mask = kept | (holes & ~_large_pieces(holes, largest + 1))
    return filled


def _large_pieces(mask: Mask, least: int) -> Mask:
    from scipy import ndimage

    pieces, n = ndimage.label(mask)
    if n == 0:
        return mask
    sizes = np.bincount(pieces.ravel(), minlength=n + 1)
    large = sizes >= least
    large[0] = False
    found: Mask = large[pieces]
    return found


def outline(mask: Mask) -> Mask:
    """Return the inner border of the mask, one pixel wide: (H, W)."""
    from scipy import ndimage

    border: Mask = mask & ~ndimage.binary_erosion(mask, border_value=0)
    return border
