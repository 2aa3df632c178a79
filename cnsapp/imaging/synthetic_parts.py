"""Parts that generated tissue is put together from: noise, packed cells, nuclei, stains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]
Values = NDArray[np.floating[Any]]
Rng = np.random.Generator


@dataclass
class Tissue:
    """A field of view as amounts of the two stains; white where both are 0.

    Parameters
    ----------
    blue, pink
        (size, size) optical density of haematoxylin (nuclei) and of eosin (everything else).
    """

    rng: Rng
    blue: Field
    pink: Field

    @property
    def size(self) -> int:
        """Side of the field in pixels."""
        return len(self.blue)


@dataclass(frozen=True)
class Stain:
    """How one laboratory day stains and photographs: the same for all images of a patient."""

    blue: float
    pink: float
    blue_color: tuple[float, float, float]
    pink_color: tuple[float, float, float]
    light: tuple[float, float, float]
    softness: float


def _f32(field: Any) -> Field:
    return np.asarray(field, np.float32)


def blank(rng: Rng, size: int) -> Tissue:
    """Return a field with nothing in it."""
    return Tissue(rng, np.zeros((size, size), np.float32), np.zeros((size, size), np.float32))


def noise(rng: Rng, size: int, grain: float) -> Field:
    """Return smooth noise, mean 0 and standard deviation about 1, with blobs of `grain` pixels."""
    n = max(3, int(np.ceil(size / grain)) + 3)
    coarse = Image.fromarray(rng.standard_normal((n, n)).astype(np.float32))
    left, top = (float(v) for v in rng.uniform(0.5, 1.5, 2))
    box = (left, top, left + size / grain, top + size / grain)
    box = (box[0], box[1], min(box[2], n), min(box[3], n))
    return _f32(1.3 * np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC, box=box)))


def rough(rng: Rng, size: int) -> Field:
    """Return noise of several grains at once, as in cytoplasm and ground substance."""
    return _f32(
        0.5 * noise(rng, size, 24) + 0.35 * noise(rng, size, 7) + 0.3 * noise(rng, size, 2.5)
    )


def soft(field: Field, sigma: float) -> Field:
    """Return the field blurred by a Gaussian, wrapping at the edges."""
    y = np.fft.fftfreq(len(field))[:, None]
    x = np.fft.rfftfreq(field.shape[1])[None]
    filtered = np.fft.rfft2(field) * np.exp(-2 * (np.pi * sigma) ** 2 * (x**2 + y**2))
    return np.fft.irfft2(filtered, field.shape).astype(np.float32)


def step(field: Field, width: float = 1.5) -> Field:
    """Return 0 where the field is far below 0 and 1 where it is far above, in `width` pixels."""
    return _f32(np.clip(field / width + 0.5, 0, 1))


def grid_points(rng: Rng, size: int, spacing: float, jitter: float = 0.35) -> NDArray[np.float32]:
    """Return (n, 2) points (x, y) of a jittered hexagonal grid that reaches over the edges."""
    end = size + 2.5 * spacing
    x, y = np.meshgrid(
        np.arange(-1.5 * spacing, end, spacing), np.arange(-1.5 * spacing, end, spacing * 0.87)
    )
    x[1::2] += spacing / 2
    points = np.stack([x.ravel(), y.ravel()], 1) + rng.uniform(-spacing, spacing, 2) / 2
    points += rng.normal(0, jitter * spacing / 2, points.shape)
    return _f32(points)


@dataclass(frozen=True)
class Packing:
    """Cells around points: distance to the nearest and the second nearest, and whose cell it is."""

    nearest: Field
    second: Field
    owner: NDArray[np.int32]

    @property
    def wall(self) -> Field:
        """Distance to the wall between two cells, in pixels."""
        return _f32((self.second - self.nearest) / 2)


def pack(
    rng: Rng, size: int, points: NDArray[np.float32], spacing: float, warp: float = 0.12
) -> Packing:
    """Return the cells around points, their outlines made uneven by `warp` times the spacing."""
    x0, y0 = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    x = x0 + warp * spacing * noise(rng, size, spacing * 0.8)
    y = y0 + warp * spacing * noise(rng, size, spacing * 0.8)
    far = np.float32(9e6)  # squared distances until the end: roots are slow
    nearest, second = np.full((size, size), far), np.full((size, size), far)
    owner = np.full((size, size), -1, np.int32)
    reach = int(1.9 * spacing) + 2
    for index, (px, py) in enumerate(points):
        rows = slice(max(0, int(py) - reach), max(0, min(size, int(py) + reach)))
        cols = slice(max(0, int(px) - reach), max(0, min(size, int(px) + reach)))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            continue
        distance = (x[rows, cols] - px) ** 2 + (y[rows, cols] - py) ** 2
        first = nearest[rows, cols]
        owner[rows, cols][distance < first] = index
        second[rows, cols] = np.minimum(second[rows, cols], np.maximum(distance, first))
        nearest[rows, cols] = np.minimum(distance, first)
    return Packing(_f32(np.sqrt(nearest)), _f32(np.sqrt(second)), owner)


def lay_nuclei(
    tissue: Tissue,
    points: NDArray[np.float32],
    radius: float = 3.2,
    stretch: float = 1.25,
    angles: NDArray[np.float32] | float | None = None,
    depth: float = 1.1,
) -> None:
    """Draw elliptic nuclei with uneven chromatin at (n, 2) points.

    `angles` gives their long axes in radians: one each, one for all, or None for any.
    """
    rng, size = tissue.rng, tissue.size
    half = int(np.ceil(radius * stretch * 1.5)) + 1
    if angles is not None:
        angles = np.broadcast_to(np.asarray(angles, np.float32), len(points))
    near = ((points > -half) & (points < size + half)).all(1)
    points = points[near]
    n = len(points)
    turned = rng.uniform(0, np.pi, n) if angles is None else angles[near] + rng.normal(0, 0.2, n)
    long = radius * stretch * rng.lognormal(0, 0.13, n)
    short = radius / stretch**0.5 * rng.lognormal(0, 0.13, n)
    dark = depth * rng.lognormal(0, 0.18, n)
    stamps = _stamps(points, turned, long, short, dark, half)
    layer = np.zeros((size + 4 * half, size + 4 * half), np.float32)  # a margin, so none is cut
    corners = np.floor(points).astype(int) + half
    for stamp, (left, top) in zip(stamps, corners, strict=True):
        target = layer[top : top + 2 * half + 1, left : left + 2 * half + 1]
        np.maximum(target, stamp, out=target)
    middle = layer[2 * half : 2 * half + size, 2 * half : 2 * half + size]
    chromatin = 1 + 0.22 * noise(rng, size, 2.2)
    np.maximum(tissue.blue, middle * chromatin, out=tissue.blue)


def _stamps(
    points: Field, turned: Values, long: Values, short: Values, dark: Values, half: int
) -> Field:
    """Return (n, k, k) pictures of nuclei, each around the whole pixel of its point."""
    offset = np.arange(-half, half + 1, dtype=np.float32)
    part = points - np.floor(points)
    dx = offset[None, None, :] - part[:, 0, None, None]
    dy = offset[None, :, None] - part[:, 1, None, None]
    cos, sin = (_f32(f(turned))[:, None, None] for f in (np.cos, np.sin))
    a, b, amount = (_f32(values)[:, None, None] for values in (long, short, dark))
    inside = np.hypot((dx * cos + dy * sin) / a, (dy * cos - dx * sin) / b)
    return _f32(np.clip((1.12 - inside) * np.minimum(a, b) * 0.9, 0, 1) * amount)


def at(field: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the field's values at points; points outside take the nearest edge."""
    index = np.clip(points, 0, len(field) - 1).astype(int)
    return _f32(field[index[:, 1], index[:, 0]])


def along(field: Field, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the direction (radians) along the level lines of a field at points."""
    smooth = soft(field, 2.0)
    down, right = (_f32(slope) for slope in np.gradient(smooth))
    return np.arctan2(at(right, points), -at(down, points)).astype(np.float32)


def fibres(rng: Rng, size: int, angle: float, grain: float = 3.0) -> Field:
    """Return wavy strands along an angle, from 0 to about 1, as in connective tissue."""
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    across = x * np.sin(angle) - y * np.cos(angle) + 9 * noise(rng, size, 45)
    wave = np.sin(across / grain + 1.5 * noise(rng, size, 12))
    return _f32((0.5 + 0.5 * wave) * (0.7 + 0.3 * np.clip(noise(rng, size, 20), -1, 1)))


def develop(tissue: Tissue, stain: Stain) -> NDArray[np.uint8]:
    """Return the picture (size, size, 3), uint8, of a field under a stain and a microscope."""
    rng = tissue.rng
    blue = soft(tissue.blue, stain.softness) * stain.blue * rng.lognormal(0, 0.17)
    pink = soft(tissue.pink, stain.softness) * stain.pink * rng.lognormal(0, 0.2)
    blue, pink = _f32(np.maximum(blue, 0)), _f32(np.maximum(pink, 0))
    density = blue[..., None] * np.asarray(stain.blue_color, np.float32)
    density = density + pink[..., None] * np.asarray(stain.pink_color, np.float32)
    light = 1 + 0.02 * noise(rng, tissue.size, 150)[..., None]
    picture = 255 * np.asarray(stain.light, np.float32) * light * np.exp(-density)
    picture += np.float32(2.2) * rng.standard_normal(picture.shape, np.float32)
    shown: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return shown
