"""Which tiles are cut from a slide: their size in pixels and micrometres, overlap, and tissue."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import InvalidInputError, UnreadableImageError
from cnsapp.imaging.slide_base import PLAUSIBLE_UM, SlideFacts
from cnsapp.imaging.tissue import Mask

TILE_PX = (32, 4096)
MAX_OVERLAP = 0.9
MAX_TILES = 100_000  # more of one slide are hardly ever meant
COARSER = 1.15  # a slide may be this much coarser than asked for: "20x" is 0.44 to 0.55


@dataclass(frozen=True)
class TileSettings:
    """How slides are cut into tiles.

    The defaults: 512 px at 0.5 µm a pixel show 256 µm of tissue at the usual "20x". That holds a
    gland or a follicle with its surroundings, every scanner reaches it, and a person can judge it
    on the screen. No overlap, so that no tissue counts twice. A quarter of tissue, so that the
    edges of thin sections and of biopsies are kept.

    Parameters
    ----------
    tile_px
        Side of a tile, in pixels of the picture that is stored.
    um_per_px
        Micrometres a pixel of that picture. None: the slide's own pixels, as scanned.
    overlap
        Share of a tile's side that its neighbour covers too, 0 to 0.9.
    min_tissue
        Least share of a tile that is tissue, 0 to 1. 0: all of the slide.
    slide_um_per_px
        What the finest level of a slide has, where the file does not say it.
    """

    tile_px: int = 512
    um_per_px: float | None = 0.5
    overlap: float = 0.0
    min_tissue: float = 0.25
    slide_um_per_px: float | None = None

    def checked(self) -> TileSettings:
        """Return the settings; raise InvalidInputError when one of them cannot be used."""
        low, high = TILE_PX
        if not low <= self.tile_px <= high:
            raise InvalidInputError(
                f"A tile of {self.tile_px} px: {low} to {high} px are possible.", "", "Try 512."
            )
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise InvalidInputError(
                f"An overlap of {self.overlap:g} of a tile: 0 to {MAX_OVERLAP:g} are possible.",
                "It is a share of the tile's side.",
                "0.25 lets neighbours share a quarter.",
            )
        if not 0 <= self.min_tissue <= 1:
            raise InvalidInputError(
                f"A tissue share of {self.min_tissue:g}: 0 to 1 are possible.", "", "Try 0.25."
            )
        low_um, high_um = PLAUSIBLE_UM
        for value in (self.um_per_px, self.slide_um_per_px):
            if value is not None and not low_um <= value <= high_um:
                raise InvalidInputError(
                    f"{value:g} µm a pixel is no microscope's: {low_um:g} to {high_um:g} are.",
                    "",
                    "0.5 is the usual “20x”, 0.25 the usual “40x”.",
                )
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the settings as they are stored with a slide."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any] | None) -> TileSettings:
        """Return the settings that `as_json` gave; the defaults for what is not there."""
        known = {k: v for k, v in (stored or {}).items() if k in cls.__dataclass_fields__}
        return cls(**known).checked()

    @property
    def in_words(self) -> str:
        """The settings as one phrase."""
        um = "as scanned" if self.um_per_px is None else f"at {self.um_per_px:g} µm/px"
        return (
            f"{self.tile_px} px {um}, overlap {self.overlap:.0%}, "
            f"at least {self.min_tissue:.0%} tissue"
        )


@dataclass(frozen=True)
class Tile:
    """A tile's place on its slide.

    Parameters
    ----------
    x, y
        Left and upper edge, in pixels of the slide's finest level.
    side
        Side, in the same pixels.
    tissue
        Share of it that is tissue, 0 to 1.
    """

    x: int
    y: int
    side: int
    tissue: float


def slide_um(facts: SlideFacts, settings: TileSettings) -> float | None:
    """Return the slide's micrometres a pixel: as its file says, else as the settings say."""
    return facts.mean_um_per_px or settings.slide_um_per_px


def tile_side(facts: SlideFacts, settings: TileSettings) -> int:
    """Return the side of a tile, in pixels of the slide's finest level.

    Raises
    ------
    UnreadableImageError
        The slide does not say its micrometres and the settings do not either, it is coarser than
        what is asked for, or it is smaller than one tile.
    """
    side = settings.tile_px
    if settings.um_per_px is not None:
        own = slide_um(facts, settings)
        if own is None:
            raise UnreadableImageError(
                "The slide does not say how many micrometres a pixel has.",
                f"So it cannot be cut at {settings.um_per_px:g} µm/px.",
                "State what it has (“The slides have” under “Whole slides”, or --slide-um-per-px), "
                "or cut at the pixels as scanned (--um-per-px 0).",
            )
        if own > settings.um_per_px * COARSER:
            raise UnreadableImageError(
                f"The slide was scanned at {own:.3g} µm/px, coarser than the "
                f"{settings.um_per_px:g} asked for.",
                "Finer tiles would hold invented detail.",
                f"Cut it at {own:.2g} µm/px or more.",
            )
        side = max(1, round(settings.tile_px * settings.um_per_px / own))
    if side > min(facts.width, facts.height):
        raise UnreadableImageError(
            f"The slide has {facts.width:,} × {facts.height:,} px, less than one tile of "
            f"{side:,} px.",
            "",
            "Choose smaller tiles, or fewer micrometres a pixel.",
        )
    return side


def plan_tiles(
    facts: SlideFacts, tissue: Mask, settings: TileSettings, max_tiles: int = MAX_TILES
) -> list[Tile]:
    """Return the tiles of a slide that show enough tissue, row by row.

    The grid begins at the slide's upper left corner. Tiles lie wholly on the slide.

    Parameters
    ----------
    facts
        Of the slide.
    tissue
        bool (H, W): where there is tissue, on a thumbnail of the whole slide (`find_tissue`).
    settings
        Size, overlap and least tissue.
    max_tiles
        More than this are refused.

    Raises
    ------
    UnreadableImageError
        As `tile_side`, or there would be too many tiles.
    """
    side = tile_side(facts, settings)
    step = max(1, round(side * (1 - settings.overlap)))
    xs = np.arange(0, facts.width - side + 1, step)
    ys = np.arange(0, facts.height - side + 1, step)
    if len(xs) * len(ys) > 50 * max_tiles:
        raise _too_many(len(xs) * len(ys), max_tiles)
    shares = tissue_shares(tissue, (facts.width, facts.height), xs, ys, side)  # (rows, columns)
    enough = shares >= settings.min_tissue - 1e-9
    if settings.min_tissue > 0:
        enough &= shares > 0
    rows, columns = np.nonzero(enough)
    if len(rows) > max_tiles:
        raise _too_many(len(rows), max_tiles)
    return [
        Tile(int(xs[c]), int(ys[r]), side, round(float(shares[r, c]), 4))
        for r, c in zip(rows, columns, strict=True)
    ]


def tissue_shares(
    tissue: Mask,
    size: tuple[int, int],
    xs: NDArray[np.int64],
    ys: NDArray[np.int64],
    side: int,
) -> NDArray[np.float64]:
    """Return the share of tissue of each square of a grid: (len(ys), len(xs)), 0 to 1.

    `size` is the slide's (width, height); the mask covers all of it. Squares that cut through
    pixels of the mask count their parts.
    """
    height, width = tissue.shape
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = tissue.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    left, right = xs * width / size[0], (xs + side) * width / size[0]
    upper, lower = ys * height / size[1], (ys + side) * height / size[1]
    area = (
        _sum_to(sums, lower, right)
        - _sum_to(sums, upper, right)
        - _sum_to(sums, lower, left)
        + _sum_to(sums, upper, left)
    )
    whole = np.outer(lower - upper, right - left)
    return np.clip(area / whole, 0.0, 1.0)


def _sum_to(
    sums: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the tissue above and left of each (y, x), between the mask's pixels by their parts."""
    row = np.minimum(y.astype(int), sums.shape[0] - 2)
    column = np.minimum(x.astype(int), sums.shape[1] - 2)
    down, across = (y - row)[:, None], (x - column)[None, :]
    corner = np.ix_(row, column)
    return np.asarray(
        sums[corner] * (1 - down) * (1 - across)
        + sums[np.ix_(row + 1, column)] * down * (1 - across)
        + sums[np.ix_(row, column + 1)] * (1 - down) * across
        + sums[np.ix_(row + 1, column + 1)] * down * across
    )


def _too_many(n: int, most: int) -> UnreadableImageError:
    return UnreadableImageError(
        f"The slide would give {n:,} tiles, more than the limit of {most:,}.",
        "They would fill the disk.",
        f"Choose larger tiles or more micrometres a pixel ({math.ceil(math.sqrt(n / most))} times "
        "the present ones), less overlap, or raise CNS_MAX_SLIDE_TILES.",
    )
