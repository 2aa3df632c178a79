"""Import: small JPEGs a second, and memory while large TIFFs come in."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.rows import Row


def write_jpegs(folder: Path, n: int) -> None:
    """Write `n` noisy 224 px JPEGs of about 10 kB, like tiles."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(n):
        small = rng.integers(120, 255, (56, 56, 3), dtype=np.uint8)
        tile = Image.fromarray(small).resize((224, 224), Image.Resampling.BICUBIC)
        tile.save(folder / f"tile{i:05}.jpg", quality=85)


def write_tiffs(folder: Path, n: int, side: int) -> None:
    """Write `n` RGB TIFFs of `side` x `side` pixels, uncompressed."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    for i in range(n):
        small = rng.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side)).save(folder / f"scan{i:03}.tif")


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
    answer.send((report.imported, time.perf_counter() - started))  # type: ignore[attr-defined]


def timed_import(source: Path, home: Path) -> tuple[int, float, float]:
    """Return images, seconds and the largest memory in MB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=run_import, args=(str(source), str(home), theirs))
    child.start()
    watched, peak = psutil.Process(child.pid), 0.0
    while child.is_alive():
        try:
            peak = max(peak, watched.memory_info().rss / 1e6)
        except psutil.Error:
            break
        time.sleep(0.05)
    child.join()
    imported, seconds = ours.recv()
    return imported, seconds, peak


def measure() -> list[Row]:
    """Import 2,000 small JPEGs, then 2 GB of TIFFs."""
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as folder:
        root = Path(folder)
        write_jpegs(root / "jpegs", 2000)
        n, seconds, small_peak = timed_import(root / "jpegs", root / "home-jpegs")
        assert n == 2000
        write_tiffs(root / "tiffs", 14, 7168)
        size = sum(f.stat().st_size for f in (root / "tiffs").iterdir()) / 1e9
        n, tiff_seconds, peak = timed_import(root / "tiffs", root / "home-tiffs")
        assert n == 14
    return [
        Row(
            "import: small JPEGs with thumbnails",
            2000 / seconds,
            "img/s",
            100,
            "at least",
            f"n = 2,000; memory {small_peak:.0f} MB",
        ),
        Row(
            "import: memory while 2 GB of TIFFs come in",
            peak,
            "MB",
            1000,
            "at most",
            f"{size:.1f} GB in {tiff_seconds:.0f} s",
        ),
    ]
