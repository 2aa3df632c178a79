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

import psutil

from benchmarks.import_files import (
    packed_pixels,
    write_jpegs,
    write_large_tiff,
    write_pngs,
    write_tiffs,
)
from benchmarks.rows import Row

DRAWN, COPIES = 24, 4  # PNGs: enough that starting the reading processes hardly counts


@dataclass(frozen=True)
class Timed:
    """An import: images that came in and were refused, seconds, largest memory in MB."""

    imported: int
    refused: list[str]
    seconds: float
    peak: float
    processor: float  # seconds of the app and its reading processes together, from their start


@dataclass(frozen=True)
class Inflated:
    """Unpacking alone: files a second on all cores, and processor seconds a file."""

    rate: float
    processor: float


def bare_inflate(files: list[Path]) -> Inflated:
    """Return what zlib alone takes to unpack PNGs on all cores, without making pictures."""
    streams = [packed_pixels(file) for file in files]
    started, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _done in pool.map(lambda stream: len(zlib.decompress(stream)), streams):
            pass
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    return Inflated(len(files) / seconds, processor / len(files))


def run_import(source: str, home: str, answer: object) -> None:
    """Import in a process of its own, so that its memory can be watched."""
    from cnsapp.bootstrap import open_app
    from cnsapp.imaging import isolated
    from cnsapp.services import importing, projects
    from cnsapp.settings import Settings

    app = open_app(Settings(home=Path(home)))
    made = projects.create_project(app.store, name="bench")
    started, used = time.perf_counter(), time.process_time()
    report = importing.import_folder(
        app, project_id=made.id, path=Path(source), labels=None, group_from=None
    )
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    isolated.readers().close()  # only what has ended is counted
    children = os.times()
    processor += children.children_user + children.children_system
    refused = [skipped.reason for skipped in report.skipped]
    answer.send((report.imported, refused, seconds, processor))  # type: ignore[attr-defined]


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
    imported, refused, seconds, processor = ours.recv()
    return Timed(imported, refused, seconds, peak, processor)


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
    """PNGs of a microscope's camera.

    The ratio to bare inflate is one of processor time: what else runs on the machine slows both.
    """
    n = DRAWN * COPIES
    packed = write_pngs(root / "files", DRAWN, COPIES)
    files = sorted((root / "files").iterdir())[::COPIES]
    before = bare_inflate(files)
    done = timed_import(root / "files", root / "home")
    assert done.imported == n, done.refused[:3]
    after = bare_inflate(files)
    ours, alone = done.processor / n, (before.processor + after.processor) / 2
    cores = os.cpu_count() or 1
    note = (
        f"n = {n}, {packed:.2f} bytes a pixel; memory {done.peak:.0f} MB; bare inflate on all "
        f"cores {(before.rate + after.rate) / 2:.1f} img/s; processor alone allows "
        f"{cores / ours:.1f} img/s"
    )
    return [
        Row("import: 2,048 px PNGs", n / done.seconds, "img/s", 20, "at least", note),
        # beside it: undoing the filters, the JPEG for the screen, the hash, the copy
        Row("import: 2,048 px PNGs, of bare inflate by processor time", alone / ours, "", 0.4,
            "at least", f"{1000 * alone:.0f} of {1000 * ours:.0f} ms an image"),
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
