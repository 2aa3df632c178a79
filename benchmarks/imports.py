"""Import: images a second, and the memory of the app and its reading processes meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tifffile
from PIL import Image

from benchmarks.rows import Row
from cnsapp.imaging.synthetic import ORGANS, make_tissue

TILE = 512  # side of the drawn tissue that large PNGs are laid of


@dataclass(frozen=True)
class Timed:
    """An import: images that came in and were refused, seconds, largest memory in MB."""

    imported: int
    refused: list[str]
    seconds: float
    peak: float


def write_jpegs(folder: Path, n: int) -> None:
    """Write `n` noisy 224 px JPEGs of about 10 kB, like tiles."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(n):
        small = rng.integers(120, 255, (56, 56, 3), dtype=np.uint8)
        tile = Image.fromarray(small).resize((224, 224), Image.Resampling.BICUBIC)
        tile.save(folder / f"tile{i:05}.jpg", quality=85)


def write_pngs(folder: Path, n: int, side: int = 2048) -> float:
    """Write `n` PNGs of stained tissue with a camera's noise; return bytes a pixel of the them.

    Without the noise drawn tissue packs four times smaller than a scan, and is read faster.
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
        file = folder / f"field{i:03}.png"
        Image.fromarray(shown.astype(np.uint8)).save(file, compress_level=6)
        return file.stat().st_size

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


def bare_inflate(files: list[Path]) -> float:
    """Return how many PNGs a second zlib alone unpacks on all cores, without making pictures."""
    streams = [packed_pixels(file) for file in files]
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _done in pool.map(lambda stream: len(zlib.decompress(stream)), streams):
            pass
    return len(files) / (time.perf_counter() - started)


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


def run_import(source: str, home: str, answer: object) -> None:
    """Import in a process of its own, so that its memory can be watched."""
    from cnsapp.bootstrap import open_app
    from cnsapp.services import importing, projects
    from cnsapp.settings import Settings

    app = open_app(Settings(home=Path(home)))
    made = projects.create_project(app.store, name="bench")
    started = time.perf_counter()
    report = importing.import_folder(
        app, project_id=made.id, path=Path(source), labels=None, group_from=None
    )
    seconds = time.perf_counter() - started
    refused = [skipped.reason for skipped in report.skipped]
    answer.send((report.imported, refused, seconds))  # type: ignore[attr-defined]


def memory_of(process: psutil.Process) -> float:
    """Return the MB of a process and of those that it started; shared memory counts once."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            held = member.memory_full_info()
        except psutil.Error:
            continue  # it ended meanwhile
        total += getattr(held, "pss", held.rss)  # pss: its part of what several processes share
    return total / 1e6


def timed_import(source: Path, home: Path) -> Timed:
    """Import a folder and watch."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=run_import, args=(str(source), str(home), theirs))
    child.start()
    watched, peak = psutil.Process(child.pid), 0.0
    while child.is_alive():
        try:
            peak = max(peak, memory_of(watched))
        except psutil.Error:
            break
        time.sleep(0.05)
    child.join()
    imported, refused, seconds = ours.recv()
    return Timed(imported, refused, seconds, peak)


def small_jpegs(root: Path) -> list[Row]:
    """10,000 small JPEGs: how fast, and how much memory."""
    write_jpegs(root / "files", 10_000)
    done = timed_import(root / "files", root / "home")
    assert done.imported == 10_000, done.refused[:3]
    return [
        Row("import: small JPEGs with thumbnails", 10_000 / done.seconds, "img/s", 100,
            "at least", "n = 10,000"),
        Row("import: memory while 10,000 small files come in", done.peak, "MB", 600, "at most",
            "the app and its reading processes"),
    ]  # fmt: skip


def large_pngs(root: Path) -> list[Row]:
    """PNGs of a microscope's camera."""
    packed = write_pngs(root / "files", 32)
    files = sorted((root / "files").iterdir())
    before = bare_inflate(files)
    done = timed_import(root / "files", root / "home")
    assert done.imported == 32, done.refused[:3]
    ours, alone = 32 / done.seconds, (before + bare_inflate(files)) / 2
    note = f"n = 32, {packed:.2f} bytes a pixel; memory {done.peak:.0f} MB"
    return [
        Row("import: 2,048 px PNGs", ours, "img/s", 20, "at least", note),
        # beside it: undoing the filters, the JPEG for the screen, the hash, the copy
        Row("import: 2,048 px PNGs, of bare inflate", ours / alone, "", 0.4, "at least",
            f"{ours:.1f} against {alone:.1f} img/s on all cores"),
    ]  # fmt: skip


def many_tiffs(root: Path) -> list[Row]:
    """2 GB in 14 files."""
    write_tiffs(root / "files", 14, 7168)
    size = sum(f.stat().st_size for f in (root / "files").iterdir()) / 1e9
    done = timed_import(root / "files", root / "home")
    assert done.imported == 14, done.refused[:3]
    note = f"{size:.1f} GB in {done.seconds:.0f} s"
    return [Row("import: memory while 2 GB of TIFFs come in", done.peak, "MB", 1000, "at most",
                note)]  # fmt: skip


def one_stack(root: Path) -> list[Row]:
    """One file of 2 GB with nine 16-bit pages, each within the limit of pixels."""
    size = write_large_tiff(
        root / "files" / "stack.tif", (9, 10_500, 10_500), "uint16", "minisblack"
    )
    done = timed_import(root / "files", root / "home")
    assert done.imported == 1, done.refused
    note = f"{size:.1f} GB, 9 pages of 110 million 16-bit pixels, in {done.seconds:.0f} s"
    return [Row("import: memory on one 2 GB TIFF of 9 pages", done.peak, "MB", 600, "at most",
                note)]  # fmt: skip


def one_scan(root: Path) -> list[Row]:
    """One file of 2 GB with one page: beyond the limit of pixels, refused from its header."""
    size = write_large_tiff(root / "files" / "scan.tif", (26_000, 26_000, 3), "uint8", "rgb")
    done = timed_import(root / "files", root / "home")
    assert done.imported == 0, done.imported
    assert "pixels" in done.refused[0]
    note = f"{size:.1f} GB, refused from its header in {done.seconds:.1f} s"
    return [Row("import: memory on one 2 GB TIFF of one page", done.peak, "MB", 600, "at most",
                note)]  # fmt: skip


PARTS: tuple[Callable[[Path], list[Row]], ...] = (
    small_jpegs, large_pngs, many_tiffs, one_stack, one_scan,
)  # fmt: skip


def measure() -> list[Row]:
    """Take every part in a folder of its own, which goes before the next one comes."""
    rows: list[Row] = []
    for part in PARTS:
        with tempfile.TemporaryDirectory(prefix="cns-bench-") as folder:
            rows += part(Path(folder))
    return rows
