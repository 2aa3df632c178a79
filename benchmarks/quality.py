"""Near duplicates: planted copies found, false pairs, and what measuring an image costs."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.rows import Row, percentile
from cnsapp.imaging import quality
from cnsapp.imaging.duplicates import find_pairs, low_frequencies, signature
from cnsapp.imaging.reader import read_image
from cnsapp.imaging.synthetic import ORGANS, make_tissue
from tests.places import data_folder

Pixels = NDArray[np.uint8]

# sets of tiles; the others hold video frames of one case, one cell in two files, or every cell
# turned once more, and there nobody can say which pair is false
CLEAN_SETS = ("crc5-he", "kather8-small", "lc25000-small", "nct-crc7-small")
AT_MOST = 400  # images of a set
SAME_LEVELS = 4.0  # mean difference of 255 below which two pictures are one, resaved
MANY = 100_000


@dataclass(frozen=True)
class Planted:
    """Copies planted and found, and the pairs reported."""

    copies: int
    found: int
    pairs: int
    false_pairs: int
    images: int
    wrongly_flagged: int


def resaved(pixels: Pixels, quality: int) -> Pixels:
    """Return the picture through a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resized(pixels: Pixels, factor: float) -> Pixels:
    """Return the picture enlarged or shrunk."""
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def recoloured(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the picture with each channel times 0.8 to 1.2 and moved by up to 20 levels."""
    moved = pixels * rng.uniform(0.8, 1.2, 3) + rng.uniform(-20, 20, 3)
    return np.clip(moved, 0, 255).astype(np.uint8)


def turned(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the picture in one of its seven other orientations."""
    k = int(rng.integers(1, 8))
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if k >= 4 else pixels, k % 4))


def copies_of(pixels: Pixels, rng: np.random.Generator) -> list[Pixels]:
    """Return one copy of each kind, and one of all at once."""
    everything = resized(recoloured(turned(pixels, rng), rng), rng.uniform(0.5, 2))
    kinds: list[Callable[[], Pixels]] = [
        lambda: resaved(pixels, int(rng.integers(50, 96))),
        lambda: resized(pixels, rng.uniform(0.5, 2)),
        lambda: turned(pixels, rng),
        lambda: recoloured(pixels, rng),
        lambda: resaved(everything, int(rng.integers(50, 96))),
    ]
    return [kind() for kind in kinds]


def pictures() -> tuple[list[Pixels], str]:
    """Return real tiles where there are any, else drawn ones, and which they are."""
    found: list[Pixels] = []
    for name in CLEAN_SETS:
        files = [f for f in (data_folder() / name).rglob("*") if _is_picture(f)]
        found += [read_image(f).pixels for f in sorted(files)[:AT_MOST]]
    if found:
        return found, "real H&E tiles"
    organs = list(ORGANS)
    return [make_tissue(organs[k % len(organs)], k % 7, k) for k in range(300)], "drawn tiles"


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif")


def is_same(one: Pixels, other: Pixels) -> bool:
    """Return whether two pictures are equal at full size in one of the eight orientations."""
    for k in range(8):
        mirrored = other[:, ::-1] if k >= 4 else other
        way = np.rot90(mirrored, k % 4).astype(int)
        if way.shape == one.shape and float(np.abs(one - way).mean()) < SAME_LEVELS:
            return True
    return False


def plant(originals: list[Pixels], rng: np.random.Generator) -> Planted:
    """Plant five copies of every fifth picture among all of them, and search."""
    signatures = [quality.measure(p)[1] for p in originals]
    origin = list(range(len(originals)))
    for k in range(0, len(originals), 5):
        for copy in copies_of(originals[k], rng):
            signatures.append(quality.measure(copy)[1])
            origin.append(k)
    there = [k for k, s in enumerate(signatures) if s is not None]
    known = [s for s in signatures if s is not None]
    pairs = find_pairs(low_frequencies(known), lambda wanted: {k: known[k] for k in wanted})
    ends = [(there[p.first], there[p.second]) for p in pairs]
    for a, b in ends:  # the sets hold some pictures twice themselves: full size decides
        if b < len(originals) and origin[a] != origin[b] and is_same(originals[a], originals[b]):
            origin = [origin[a] if k == origin[b] else k for k in origin]
    met = {b for a, b in ends if a < len(originals) <= b and origin[a] == origin[b]}
    false = [(a, b) for a, b in ends if origin[a] != origin[b]]
    right = {k for a, b in ends if origin[a] == origin[b] for k in (a, b)}
    wrong = {k for pair in false for k in pair} - right
    copies = len(signatures) - len(originals)
    return Planted(copies, len(met), len(pairs), len(false), len(signatures), len(wrong))


def seconds_of_many() -> tuple[float, float, int]:
    """Return the seconds of a search in 100,000 pictures, for 1,000 new ones, and copies found."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    field = gaussian_filter(rng.normal(0, 1, (2048, 2048)), 3) + 3 * gaussian_filter(
        rng.normal(0, 1, (2048, 2048)), 12
    )
    field = (128 + 40 * field / field.std()).astype(np.float32)
    corners = rng.integers(0, 2048 - 64, (MANY, 2))
    known = []
    for y, x in corners:
        made = signature(field[y : y + 64 : 2, x : x + 64 : 2])
        assert made is not None
        known.append(made)
    for k in range(1000):
        y, x = corners[k * 50]
        made = signature(np.rot90(field[y : y + 64 : 2, x : x + 64 : 2]))
        assert made is not None
        known.append(made)
    low = low_frequencies(known)
    began = time.perf_counter()
    pairs = find_pairs(low, lambda wanted: {k: known[k] for k in wanted})
    whole = time.perf_counter() - began
    new = np.zeros(len(known), bool)
    new[MANY:] = True
    began = time.perf_counter()
    find_pairs(low, lambda wanted: {k: known[k] for k in wanted}, new)
    found = {(p.first, p.second) for p in pairs}
    n_found = sum((k * 50, MANY + k) in found for k in range(1000))
    return whole, time.perf_counter() - began, n_found


def measure_cost(originals: list[Pixels]) -> float:
    """Return the median milliseconds that one picture costs."""
    times = []
    for picture in originals[:300]:
        began = time.perf_counter()
        quality.measure(picture)
        times.append(1e3 * (time.perf_counter() - began))
    return percentile(times, 0.5)


def measure() -> list[Row]:
    """Return the rows of this group."""
    originals, what = pictures()
    done = plant(originals, np.random.default_rng(0))
    whole, new, n_found = seconds_of_many()
    kinds = "resaved q50-95, resized 50-200 %, turned or mirrored, recoloured, all at once"
    return [
        Row("near duplicates: planted copies found", 100 * done.found / done.copies, "%", 90,
            "at least", f"n = {done.copies:,} copies among {done.images:,} {what}; {kinds}"),
        Row("near duplicates: false pairs of those reported",
            100 * done.false_pairs / max(done.pairs, 1), "%", 1, "at most",
            f"{done.false_pairs} of {done.pairs:,} pairs of two origins"),
        Row("near duplicates: images flagged in false pairs alone",
            100 * done.wrongly_flagged / done.images, "%", 1, "at most",
            f"{done.wrongly_flagged} of {done.images:,} images"),
        Row("quality: measures and signature of an image", measure_cost(originals), "ms", 3,
            "at most", "224 px tiles, median, one thread"),
        Row("near duplicates: search among 100,000 images", whole, "s", 60, "at most",
            f"{n_found} of 1,000 turned copies found; 1,000 new images against them: {new:.1f} s"),
    ]  # fmt: skip
