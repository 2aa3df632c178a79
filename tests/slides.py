"""Whole slides that the tests draw: small pyramids of each kind, from one array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
UM = 0.5  # micrometres a pixel of every drawn slide that says so
TILED: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None}


def draw(width: int = 1600, height: int = 1200, seed: int = 0) -> Pixels:
    """Return bright glass with an ellipse and a rectangle of stained tissue on it, with noise."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 240, np.int16)
    pixels[tissue(width, height)] = (190, 110, 165)
    pixels += rng.integers(-6, 7, (height, width, 3), dtype=np.int16)
    return pixels.clip(0, 255).astype(np.uint8)


def tissue(width: int = 1600, height: int = 1200) -> NDArray[np.bool_]:
    """Return where `draw` puts tissue: (height, width)."""
    y, x = np.mgrid[0:height, 0:width]
    ellipse = ((x - 500) / 400) ** 2 + ((y - 550) / 350) ** 2 < 1
    box = (x >= 1100) & (x < 1400) & (y >= 256) & (y < 1024)
    return np.asarray(ellipse | box)


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the mean of each 2 x 2 pixels."""
    h, w = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    parts = pixels[:h, :w].reshape(h // 2, 2, w // 2, 2, -1).mean(axis=(1, 3))
    return parts.round().astype(pixels.dtype)


def levels(pixels: NDArray[Any], n: int = 3) -> list[NDArray[Any]]:
    """Return the picture and its halves."""
    found = [pixels]
    while len(found) < n:
        found.append(halved(found[-1]))
    return found


def write_generic(path: Path, pixels: Pixels, um: float | None = UM) -> Path:
    """Write a pyramid of tiled pages, as vips and openslide know it."""
    with tifffile.TiffWriter(path) as tiff:
        for n, level in enumerate(levels(pixels)):
            size: dict[str, Any] = {}
            if um is not None:
                per_cm = 10_000 / um / 2**n
                size = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
            tiff.write(level, compression="deflate", subfiletype=int(n > 0), **TILED, **size)
    return path


def write_sub_ifds(path: Path, pixels: Pixels) -> Path:
    """Write a pyramid whose smaller levels lie in SubIFDs, without a size of its pixels."""
    with tifffile.TiffWriter(path) as tiff:
        for n, level in enumerate(levels(pixels)):
            more = {"subifds": 2} if n == 0 else {"subfiletype": 1}
            tiff.write(level, compression="lzw", **TILED, **more)
    return path


def write_ome(path: Path, pixels: Pixels, um: float = UM) -> Path:
    """Write an OME-TIFF pyramid of colours."""
    about = {"axes": "YXS", "PhysicalSizeX": um, "PhysicalSizeY": um}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for n, level in enumerate(levels(pixels)):
            more: dict[str, Any] = (
                {"subifds": 2, "metadata": about} if n == 0 else {"subfiletype": 1}
            )
            tiff.write(level, compression="deflate", **(TILED | more))
    return path


def write_ome_channels(path: Path, planes: NDArray[np.uint16]) -> Path:
    """Write an OME-TIFF pyramid of fluorescence channels: (C, H, W), 16 bits."""
    about = {"axes": "CYX", "PhysicalSizeX": UM, "PhysicalSizeY": UM}
    tiled: dict[str, Any] = {"tile": (128, 128), "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(planes, compression="deflate", subifds=1, metadata=about, **tiled)
        tiff.write(planes[:, ::2, ::2], compression="deflate", subfiletype=1, **tiled)
    return path


def write_aperio(path: Path, pixels: Pixels, um: float = UM) -> Path:
    """Write what an Aperio scanner writes: two levels, a thumbnail, a red label, a green macro."""
    h, w = pixels.shape[:2]
    about = (
        f"Aperio Image Library v12.0\r\n{w}x{h} [0,0 {w}x{h}] (128x128) JPEG/RGB Q=95"
        f"|AppMag = 20|MPP = {um}"
    )
    jpeg: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": 95}}
    plain: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, description=about, **TILED, **jpeg)
        small = halved(halved(halved(pixels)))
        tiff.write(small, description="Aperio Image Library v12.0\r\n", **plain, **jpeg)
        tiff.write(halved(halved(pixels)), description=about, **TILED, **jpeg)
        for name, color, kind in (("label", (255, 0, 0), 1), ("macro", (0, 255, 0), 9)):
            side = np.zeros((120, 160, 3), np.uint8)
            side[:] = color
            said = f"Aperio Image Library v12.0\r\n{name} 160x120"
            tiff.write(
                side, description=said, subfiletype=kind, compression="lzw", rowsperstrip=120,
                **plain,
            )  # fmt: skip
    return path
