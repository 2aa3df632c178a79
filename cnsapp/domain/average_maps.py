"""Where saliency maps lie on average: their mean, and their share at the border and in the middle.

A map of an image says something on its own. The mean of many says something only where all images
have one frame, such as a lesion in the middle. The shares need no common frame: a model that reads
frames, scale bars or dark corners looks at the border more than the border's area would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import Floats, Interval, mean_interval, unit_numbers

SIDE = 60  # cells of a side that maps are brought to: a tenth of it is a whole number of cells
BORDER = 0.1  # of a side: the frame that counts as the border
MIDDLE = 0.5  # of a side: the square that counts as the middle

Levels = NDArray[np.floating]


@dataclass(frozen=True)
class Share:
    """How much of the maps lies in a part of the image.

    Attributes
    ----------
    value
        Mean over the maps of the share of a map's sum that lies there, 0 to 1.
    interval
        95 % interval of the mean, by groups; None with fewer than two of them.
    area
        The part's share of the area: what a map that is even everywhere would have.
    """

    value: float
    interval: Interval | None
    area: float

    @property
    def verdict(self) -> str:
        """Whether it is `more` or `less` than the area alone would give, or `no difference`."""
        if self.interval is None:
            return "cannot be told"
        low, high = self.interval
        rounding = 1e-9  # even maps have the area's share, but for the last digits
        if low > self.area + rounding:
            return "more"
        return "less" if high < self.area - rounding else "no difference"


@dataclass(frozen=True)
class AverageMap:
    """What maps have in common.

    Attributes
    ----------
    mean
        (SIDE, SIDE) how many times as much of a map lies there as if it were even: 1 on average.
    n, n_units
        Maps, and groups that they come from (images where no groups are known).
    n_empty
        Maps that were left out since nothing is in them.
    border, middle
        Shares of the outer tenth on every side, and of the middle half of every side.
    """

    mean: Floats
    n: int
    n_units: int
    n_empty: int
    border: Share
    middle: Share


def average_map(
    maps: Sequence[Levels], groups: Sequence[str | None] | None = None
) -> AverageMap | None:
    """Return the mean of maps, each of which counts the same however much is in it.

    Parameters
    ----------
    maps
        Each (SIDE, SIDE), 0 or more.
    groups
        Group of each image; None: none known. Images without one count as independent.

    Returns
    -------
    None where no map has anything in it.

    Raises
    ------
    ValueError
        A map has another shape, values below 0, or values that are no numbers.
    """
    for one in maps:
        if one.shape != (SIDE, SIDE) or not np.isfinite(one).all() or (one < 0).any():
            raise ValueError(f"a map of shape {one.shape} or with values below 0 has no mean")
    full = [k for k, one in enumerate(maps) if one.sum() > 0]
    if not full:
        return None
    shares = np.stack([np.asarray(maps[k], np.float64) / maps[k].sum() for k in full])
    units = unit_numbers([groups[k] for k in full] if groups is not None else None, len(full))
    border, middle = border_cells(), middle_cells()
    return AverageMap(
        mean=shares.mean(0) * SIDE * SIDE,
        n=len(full),
        n_units=int(units.max()) + 1,
        n_empty=len(maps) - len(full),
        border=_share(shares, border, units),
        middle=_share(shares, middle, units),
    )


def border_cells() -> NDArray[np.bool_]:
    """Return which cells (SIDE, SIDE) are of the border."""
    wide = round(BORDER * SIDE)
    cells = np.ones((SIDE, SIDE), bool)
    cells[wide:-wide, wide:-wide] = False
    return cells


def middle_cells() -> NDArray[np.bool_]:
    """Return which cells (SIDE, SIDE) are of the middle."""
    off = round((1 - MIDDLE) / 2 * SIDE)
    cells = np.zeros((SIDE, SIDE), bool)
    cells[off:-off, off:-off] = True
    return cells


def _share(shares: Floats, cells: NDArray[np.bool_], units: NDArray[np.int64]) -> Share:
    there = shares[:, cells].sum(1)
    found = mean_interval(there, units)
    interval = None if found is None else (max(0.0, found[0]), min(1.0, found[1]))
    return Share(float(there.mean()), interval, float(cells.mean()))
