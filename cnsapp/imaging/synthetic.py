"""Generated pictures that look like stained tissue: for the demo and for tests, never for science.

Each organ has an architecture of its own (crypts, villi, plates, tubules, alveoli, follicles,
acini, layers), while its colour depends on the patient's stain more than on the organ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cnsapp.imaging.synthetic_parts import (
    Field,
    Packing,
    Rng,
    Stain,
    Tissue,
    along,
    at,
    blank,
    develop,
    fibres,
    grid_points,
    lay_nuclei,
    noise,
    pack,
    rough,
    soft,
    step,
)

SIZE = 224
SEED = 20_261


def make_stain(patient: int) -> Stain:
    """Return the stain of a pretend patient: thin or thick, blue or pink, warm or cold light."""
    rng = np.random.default_rng([SEED, 7, patient])
    blue = np.array([0.65, 0.70, 0.29]) + rng.normal(0, 0.06, 3)
    pink = np.array([0.09, 0.92, 0.22]) + rng.normal(0, 0.07, 3)
    warmth = rng.uniform(-0.035, 0.02)
    light = np.array([0.965, 0.95, 0.965]) * rng.uniform(0.92, 1.02)
    light = np.clip(light + np.array([-warmth, 0, warmth]), 0.8, 1.0)
    return Stain(
        blue=float(rng.uniform(0.72, 1.3)),
        pink=float(rng.uniform(0.65, 1.35)),
        blue_color=(float(blue[0]), float(blue[1]), float(blue[2])),
        pink_color=(float(max(pink[0], 0.02)), float(pink[1]), float(max(pink[2], 0.05))),
        light=(float(light[0]), float(light[1]), float(light[2])),
        softness=float(rng.uniform(0.55, 0.95)),
    )


def make_tissue(organ: str, patient: int, number: int, size: int = SIZE) -> NDArray[np.uint8]:
    """Return a generated picture of an organ.

    Parameters
    ----------
    organ
        A key of `ORGANS`.
    patient
        Decides the stain.
    number
        Another number gives another place of the organ; the same one the same pixels.
    size
        Side in pixels; a nucleus is about 6 pixels wide.

    Returns
    -------
    uint8 (size, size, 3), 0 to 255.

    Examples
    --------
    >>> make_tissue("liver", patient=1, number=0).shape
    (224, 224, 3)
    """
    rng = np.random.default_rng([SEED, list(ORGANS).index(organ), patient, number])
    tissue = blank(rng, size)
    ORGANS[organ](tissue)
    return develop(tissue, make_stain(patient))


def _scatter(
    tissue: Tissue, where: Field, spacing: float, radius: float, depth: float = 1.1
) -> None:
    """Lay single nuclei where a share (0 to 1) of the places is taken."""
    points = grid_points(tissue.rng, tissue.size, spacing, 0.9)
    taken = tissue.rng.random(len(points)) < at(where, points)
    lay_nuclei(tissue, points[taken], radius, 1.3, depth=depth)


def _line(
    tissue: Tissue, distance: Field, spacing: float, radius: float, width: float = 2.0,
    stretch: float = 1.5, across: bool = False, keep: float = 1.0,
) -> None:  # fmt: skip
    """Lay nuclei where `distance` is near 0: along the line, or standing across it."""
    points = grid_points(tissue.rng, tissue.size, spacing, 0.5)
    points = points[np.abs(at(distance, points)) < width]
    points = points[tissue.rng.random(len(points)) < keep]
    angles = along(distance, points) + (np.pi / 2 if across else 0)
    lay_nuclei(tissue, points, radius, stretch, angles)


def _stroma(tissue: Tissue, where: Field, density: float = 0.35) -> None:
    """Fill a region with loose connective tissue and its cells."""
    rng = tissue.rng
    strands = fibres(rng, tissue.size, rng.uniform(0, np.pi))
    tissue.pink += where * (0.16 + 0.22 * strands + 0.06 * rough(rng, tissue.size))
    _scatter(tissue, where * density, 9, 2.5)


def _colon(tissue: Tissue) -> None:
    """Round crypts with goblet cells and nuclei at their base, in a cell-rich stroma."""
    rng, size = tissue.rng, tissue.size
    spacing = rng.uniform(52, 68)
    cells = pack(rng, size, grid_points(rng, size, spacing, 0.4), spacing, 0.1)
    radius = spacing * rng.uniform(0.37, 0.43)
    edge = np.minimum(radius - cells.nearest, cells.wall - 3)  # > 0 inside a crypt
    inside = step(edge)
    lumen = step(rng.uniform(3, 8) - cells.nearest + noise(rng, size, 9))
    _stroma(tissue, 1 - inside, 0.6)
    cups = _cups(rng, step(edge - 4), 10, 0.5)
    goblet = step(3.6 - cups.nearest) * step(edge - 5) * step(radius - 5 - (radius - cells.nearest))
    tissue.pink += inside * (0.34 + 0.08 * rough(rng, size)) * (1 - 0.72 * goblet) * (1 - lumen)
    tissue.blue += inside * 0.10 * (1 - lumen) + 0.10 * goblet * inside
    _line(tissue, edge - 4.5, 5.2, 2.9, 2.4, 1.7, across=True)


def _cups(rng: Rng, where: Field, spacing: float, jitter: float) -> Packing:
    """Return cells (goblets) around points within a region."""
    points = grid_points(rng, len(where), spacing, jitter)
    return pack(rng, len(where), points[at(where, points) > 0.1], spacing, 0.05)


def _small_intestine(tissue: Tissue) -> None:
    """Long villi with a border of cells around a loose core, and open space between them."""
    rng, size = tissue.rng, tissue.size
    angle, period = rng.uniform(0, np.pi), rng.uniform(58, 78)
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    across = x * np.cos(angle) + y * np.sin(angle) + 7 * noise(rng, size, 60)
    lengthwise = -x * np.sin(angle) + y * np.cos(angle) + rng.uniform(-40, 40)
    villus = np.floor(across / period)
    middle = np.abs(across / period - villus - 0.5) * period
    tip = rng.uniform(60, 330, 64)[(villus.astype(int) + 20) % 64] - lengthwise
    half = period * rng.uniform(0.36, 0.42)
    edge = np.minimum(half - middle, tip / 2) + 1.5 * noise(rng, size, 14)
    inside = step(edge)
    core = step(edge - 13)
    border = inside - core
    _stroma(tissue, core, 0.75)
    cups = _cups(rng, border, 19, 0.8)
    goblet = step(3.4 - cups.nearest) * border
    tissue.pink += border * (0.40 + 0.07 * rough(rng, size)) * (1 - 0.7 * goblet)
    tissue.pink += 0.25 * step(1.6 - np.abs(edge - 1.2))  # brush border
    tissue.blue += border * 0.10
    _line(tissue, edge - 8.5, 5.0, 2.9, 2.3, 1.7, across=True)


def _liver(tissue: Tissue) -> None:
    """Plates of polygonal cells with round middle nuclei, sinusoids, a vein, drops of fat."""
    rng, size = tissue.rng, tissue.size
    centre = rng.uniform(-40, size + 40, 2)
    spacing = rng.uniform(15.5, 18.5)
    points = grid_points(rng, size, spacing, 0.35)
    cells = pack(rng, size, points, spacing, 0.08)
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    away = np.hypot(x - centre[0], y - centre[1]) + 3 * noise(rng, size, 30)
    turn = np.arctan2(y - centre[1], x - centre[0])
    rays = np.sin(turn * np.maximum(away, 20).mean() / 11 + 1.4 * noise(rng, size, 22))
    sinusoid = step(rays - 0.72, 0.3) * step(3.2 - cells.wall, 2)
    vein = step(rng.uniform(14, 30) - away, 2)
    fat = rng.uniform(0, 0.35)
    taken = rng.random(len(points)) < fat
    bubbles = grid_points(rng, size, spacing, 0.35)[taken[: len(points)]]
    drops = pack(rng, size, bubbles, spacing, 0.02) if len(bubbles) else None
    hole = np.zeros_like(away)
    if drops is not None:
        hole = step(rng.uniform(3.5, 6.5) - drops.nearest)
    solid = (1 - 0.8 * sinusoid) * (1 - vein) * (1 - hole)
    tissue.pink += solid * (0.52 + 0.16 * rough(rng, size) + 0.16 * step(1.2 - cells.wall))
    tissue.blue += solid * (0.10 + 0.05 * noise(rng, size, 2.5))
    free = at(solid, points) > 0.6
    lay_nuclei(tissue, points[free], 3.3, 1.06, depth=0.95)
    _line(tissue, sinusoid - 0.5, 11, 1.9, 0.3, 2.2, keep=0.5)


def _kidney(tissue: Tissue) -> None:
    """Tubules side by side, cut across, with thick pink walls; now and then a glomerulus."""
    rng, size = tissue.rng, tissue.size
    spacing = rng.uniform(30, 39)
    points = grid_points(rng, size, spacing, 0.45)
    tufts = rng.uniform(30, size - 30, (int(rng.integers(0, 3)), 2)).astype(np.float32)
    for tuft in tufts:
        points = points[np.hypot(*(points - tuft).T) > 48]
    cells = pack(rng, size, points, spacing, 0.13)
    edge = np.minimum(cells.wall - 1.2, spacing * 0.62 - cells.nearest)
    lumen = step(spacing * rng.uniform(0.1, 0.19) - cells.nearest + noise(rng, size, 6))
    wall = step(edge) * (1 - lumen)
    pale = rng.uniform(0.6, 1.15, len(points) + 1).astype(np.float32)[cells.owner]
    tissue.pink += wall * (0.5 + 0.12 * rough(rng, size)) * pale
    tissue.pink += (1 - step(edge)) * 0.2
    tissue.blue += wall * 0.07
    for tuft in tufts:
        _glomerulus(tissue, tuft)
    _line(tissue, cells.nearest - spacing * 0.33, 8.5, 2.9, 2.6, 1.05, keep=0.8)
    _scatter(tissue, (1 - step(edge)) * 0.25, 8, 2.1)


def _glomerulus(tissue: Tissue, centre: NDArray[np.float32]) -> None:
    rng, size = tissue.rng, tissue.size
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    away = np.hypot(x - centre[0], y - centre[1]) + 2.5 * noise(rng, size, 18)
    capsule = step(44 - away)
    tuft = step(35 - away + 2 * noise(rng, size, 8))
    for field in (tissue.pink, tissue.blue):
        field *= 1 - capsule
    loops = step(noise(rng, size, 5) + 0.4, 0.6)
    tissue.pink += tuft * (0.22 + 0.3 * loops) + 0.4 * step(1.6 - np.abs(away - 44))
    _scatter(tissue, tuft * 0.75, 7, 2.6)


def _lung(tissue: Tissue) -> None:
    """Air spaces with thin walls, some of them open to each other, and a vessel or two."""
    rng, size = tissue.rng, tissue.size
    spacing = rng.uniform(44, 66)
    points = grid_points(rng, size, spacing, 0.75)
    cells = pack(rng, size, points, spacing, 0.12)
    gap = step(noise(rng, size, 34) - rng.uniform(0.9, 1.4), 0.25)
    thick = rng.uniform(1.8, 4.2) + 0.9 * noise(rng, size, 26)
    septum = step(thick - cells.wall) * (1 - gap)
    tissue.pink += septum * (0.42 + 0.12 * rough(rng, size))
    tissue.blue += septum * 0.08
    _line(tissue, cells.wall - 0.5, 6.5, 2.6, 2.4, 1.7, keep=0.8)
    tissue.blue *= np.clip(1 - gap + septum, 0.0, 1)
    for centre in rng.uniform(0, size, (int(rng.integers(0, 3)), 2)):
        _vessel(tissue, centre, rng.uniform(9, 20))
    _scatter(tissue, (1 - septum) * 0.012, 8, 3.0)


def _vessel(tissue: Tissue, centre: NDArray[np.float64], radius: float) -> None:
    rng, size = tissue.rng, tissue.size
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    away = np.hypot(x - centre[0], (y - centre[1]) * rng.uniform(0.7, 1.3))
    away = away + 1.5 * noise(rng, size, 15)
    wall = step(radius + 7 - away) * step(away - radius)
    tissue.pink *= 1 - step(radius + 7 - away)
    tissue.blue *= 1 - step(radius + 7 - away)
    tissue.pink += wall * (0.45 + 0.15 * np.sin(away))
    tissue.pink += step(radius - 2 - away) * 0.5 * step(noise(rng, size, 4), 0.5)  # red cells
    _line(tissue, away - radius - 4, 9, 2.2, 2.2, 2.2)


def _lymph_node(tissue: Tissue) -> None:
    """Small dark cells side by side, and follicles with a paler, looser middle."""
    rng, size = tissue.rng, tissue.size
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    middle = np.zeros((size, size), np.float32)
    mantle = np.zeros((size, size), np.float32)
    for cx, cy in rng.uniform(0, size, (int(rng.integers(1, 3)), 2)):
        away = np.hypot(x - cx, y - cy) + 5 * noise(rng, size, 30)
        radius = rng.uniform(34, 58)
        middle = np.maximum(middle, step(radius - away, 6))
        mantle = np.maximum(mantle, step(18 - np.abs(away - radius - 12), 8))
    sinus = step(noise(rng, size, 26) - 1.15, 0.4) * (1 - middle)
    tissue.pink += (0.24 + 0.07 * rough(rng, size)) * (1 - 0.75 * sinus) + 0.06 * middle
    tissue.blue += 0.12 * (1 - sinus)
    small = np.clip(0.78 + 0.22 * mantle - 0.95 * middle - 0.75 * sinus, 0, 1)
    _scatter(tissue, small, 6.1, 2.45, 1.2)
    _scatter(tissue, middle * 0.85, 8.8, 3.5, 0.75)


def _pancreas(tissue: Tissue) -> None:
    """Small rosettes of cells, blue outside and pink inside, in lobules; at times a pale islet."""
    rng, size = tissue.rng, tissue.size
    spacing = rng.uniform(24, 30)
    points = grid_points(rng, size, spacing, 0.4)
    cells = pack(rng, size, points, spacing, 0.14)
    lobes = pack(rng, size, grid_points(rng, size, 130, 0.6), 130, 0.12)
    septum = step(rng.uniform(2, 6) - lobes.wall, 3)
    edge = cells.wall - 0.8
    acinus = step(edge) * (1 - septum)
    inner = step(spacing * 0.27 - cells.nearest, 4)
    tissue.pink += acinus * (0.22 + 0.34 * inner + 0.1 * rough(rng, size))
    tissue.blue += acinus * (1 - inner) * (0.26 + 0.05 * noise(rng, size, 3))
    _stroma(tissue, septum * 0.8, 0.25)
    if rng.random() < 0.5:
        _islet(tissue, rng.uniform(30, size - 30, 2))
        return
    _line(tissue, cells.nearest - spacing * 0.36, 7.2, 2.7, 2.3, 1.08, keep=0.9)


def _islet(tissue: Tissue, centre: NDArray[np.float64]) -> None:
    rng, size = tissue.rng, tissue.size
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    away = np.hypot(x - centre[0], y - centre[1]) + 5 * noise(rng, size, 25)
    islet = step(rng.uniform(28, 42) - away, 3)
    tissue.pink *= 1 - islet
    tissue.blue *= 1 - islet
    tissue.pink += islet * (0.2 + 0.08 * rough(rng, size))
    _scatter(tissue, islet * 0.85, 8.5, 2.7, 0.95)
    _scatter(tissue, (1 - islet) * 0.5, 8.5, 2.7)


def _skin(tissue: Tissue) -> None:
    """Layers: flaking horn, epidermis with ridges, and bundles of collagen below."""
    rng, size = tissue.rng, tissue.size
    angle = rng.normal(0, 0.25) + rng.choice([0, np.pi / 2, np.pi, -np.pi / 2])
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    half = size / 2
    down = (x - half) * np.sin(angle) + (y - half) * np.cos(angle) + half
    side = (x - half) * np.cos(angle) - (y - half) * np.sin(angle)
    surface = rng.uniform(10, 70) + 6 * noise(rng, size, 70)
    depth = down - surface
    ridges = np.sin(side / rng.uniform(9, 15) + 1.2 * noise(rng, size, 40))
    lower = rng.uniform(40, 60) + rng.uniform(6, 16) * ridges + 3 * noise(rng, size, 16)
    horn = step(depth) * step(rng.uniform(10, 20) - depth, 3)
    epidermis = step(depth - 14, 3) * step(lower - depth, 2)
    dermis = step(depth - lower, 2)
    flakes = step(np.sin(depth / 1.6 + 2 * noise(rng, size, 30)) + 0.3, 0.8)
    tissue.pink += horn * (0.25 + 0.5 * flakes) + epidermis * (0.36 + 0.07 * rough(rng, size))
    bundles = fibres(rng, size, -angle + rng.normal(0, 0.4), rng.uniform(3, 5.5))
    tissue.pink += dermis * (0.2 + 0.5 * soft(bundles, 0.8) + 0.08 * rough(rng, size))
    tissue.blue += epidermis * 0.16
    _scatter(tissue, epidermis * step(depth - 20, 6) * 0.85, 8.6, 2.9, 0.95)
    _line(tissue, depth - lower + 4, 5.4, 2.8, 2.6, 1.5, across=True)
    _scatter(tissue, dermis * 0.13, 8.5, 2.3)


ORGANS: dict[str, Callable[[Tissue], None]] = {
    "colon": _colon,
    "small_intestine": _small_intestine,
    "liver": _liver,
    "pancreas": _pancreas,
    "kidney": _kidney,
    "lung": _lung,
    "lymph_node": _lymph_node,
    "skin_1": _skin,
}
