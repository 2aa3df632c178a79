"""The files that the import rows bring in: tiles, camera fields, scans and stacks, drawn anew."""

from __future__ import annotations

import io
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from cnsapp.imaging.synthetic import ORGANS, make_tissue

TILE = 512  # side of the drawn tissue that large PNGs are laid of
HEADER_END = 33  # of a PNG: its signature and its first chunk


def write_jpegs(folder: Path, n: int) -> None:
    """Write `n` noisy 224 px JPEGs of about 10 kB, like tiles."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(n):
        small = rng.integers(120, 255, (56, 56, 3), dtype=np.uint8)
        tile = Image.fromarray(small).resize((224, 224), Image.Resampling.BICUBIC)
        tile.save(folder / f"tile{i:05}.jpg", quality=85)


def write_pngs(folder: Path, n: int, copies: int = 1, side: int = 2048) -> float:
    """Write `n` PNGs of stained tissue with a camera's noise; return bytes a pixel of them.

    Without the noise drawn tissue packs four times smaller than a scan, and is read faster. Of each
    there are `copies` that differ in a remark: packing them anew would take longer than the rest.
    """
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True)
    tissue = [make_tissue(organ, i, i, TILE) for i, organ in enumerate(list(ORGANS)[:4])]
    noise = rng.normal(0, 2.5, (side, side, 3)).round().astype(np.int16)
    cells = side // TILE
    layouts = rng.integers(0, len(tissue), (n, cells, cells))

    def write(i: int) -> int:
        picture = np.vstack([np.hstack([tissue[k] for k in row]) for row in layouts[i]])
        shown = np.clip(picture + np.roll(noise, 7 * i + 1, axis=(0, 1)), 0, 255)
        packed = io.BytesIO()
        Image.fromarray(shown.astype(np.uint8)).save(packed, "PNG", compress_level=6)
        data = packed.getvalue()
        for copy in range(copies):
            text = b"tEXtComment\0" + f"copy {copy}".encode()
            remark = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
            file = folder / f"field{i:03}-{copy}.png"
            file.write_bytes(data[:HEADER_END] + remark + data[HEADER_END:])
        return len(data)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(write, range(n))) / n / side**2


def packed_pixels(file: Path) -> bytes:
    """Return the compressed stream of a PNG: its IDAT chunks, joined."""
    data, at, parts = file.read_bytes(), 8, []
    while at < len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(data[at + 8 : at + 8 + n])
        at += 12 + n
    return b"".join(parts)


def write_tiffs(folder: Path, n: int, side: int) -> None:
    """Write `n` RGB TIFFs of `side` x `side` pixels, uncompressed."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    for i in range(n):
        small = rng.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side)).save(folder / f"scan{i:03}.tif")


def write_large_tiff(file: Path, shape: tuple[int, ...], dtype: str, photometric: str) -> float:
    """Write one uncompressed TIFF row by row; return its size in GB."""
    file.parent.mkdir(parents=True)
    rng = np.random.default_rng(4)
    pages = tifffile.memmap(file, shape=shape, dtype=dtype, photometric=photometric)
    row = shape[-2:] if photometric == "rgb" else shape[-1:]
    rows, top = pages.reshape(-1, *row), 4095 if dtype == "uint16" else 255
    block = rng.integers(0, top, (512, *row), dtype=dtype)
    for start in range(0, len(rows), 512):
        rows[start : start + 512] = block[: len(rows) - start]
    pages.flush()
    return file.stat().st_size / 1e9
