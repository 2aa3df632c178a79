"""Files that a reading rule has a say in, generated: deep, stacked, multi-channel, transparent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image as Picture

SIDE = 40


def deep(path: Path, value: int) -> Path:
    """Write a 16-bit gray TIFF: the left half has `value`, the right half 4,000."""
    samples = np.full((SIDE, SIDE), 4000, np.uint16)
    samples[:, : SIDE // 2] = value
    return _tiff(path, samples, photometric="minisblack")


def stack(path: Path, values: tuple[int, ...]) -> Path:
    """Write an 8-bit gray TIFF of pages, each of one value."""
    samples = np.stack([np.full((SIDE, SIDE), value, np.uint8) for value in values])
    return _tiff(path, samples, photometric="minisblack")


def channels(path: Path, values: tuple[int, ...], names: tuple[str, ...] = ()) -> Path:
    """Write a 16-bit OME-TIFF of channels; channel k has `values[k]` in its k-th stripe, else 0."""
    samples = np.zeros((len(values), SIDE, SIDE), np.uint16)
    step = SIDE // len(values)
    for k, value in enumerate(values):
        samples[k, k * step : (k + 1) * step] = value
    described = {"axes": "CYX"} | ({"Channel": {"Name": list(names)}} if names else {})
    return _tiff(path, samples, photometric="minisblack", metadata=described)


def clear(path: Path, seed: int) -> Path:
    """Write an RGBA PNG whose left half is wholly transparent, the right half one red."""
    samples = np.zeros((SIDE, SIDE, 4), np.uint8)
    samples[:, SIDE // 2 :] = (200, seed % 256, 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(samples, "RGBA").save(path)
    return path


def plain(path: Path, seed: int) -> Path:
    """Write an ordinary 8-bit RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Picture.fromarray(pixels).save(path)
    return path


def _tiff(path: Path, samples: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, samples, **options)
    return path
