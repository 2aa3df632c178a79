"""The web process: how soon the first page stands, and how much memory it takes."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.rows import Row
from tests.browser.conftest import CHROMIUM_FLAGS, LiveApp
from tests.browser.ensure_chromium import find_chromium


def measure() -> list[Row]:
    """Start the server three times, open the first page, and look at the process."""
    from playwright.sync_api import sync_playwright

    seconds, memory, torch_free = [], [], []
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as folder, sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_FLAGS))
        for turn in range(3):
            started = time.perf_counter()
            live = LiveApp(Path(folder) / f"home{turn}", start_worker=False)
            up = time.perf_counter() - started
            page = chromium.new_page()
            clicked = time.perf_counter()
            page.goto(live.url)
            page.get_by_text("Try the demo").first.wait_for()
            seconds.append(time.perf_counter() - clicked)
            assert live.process is not None
            process = psutil.Process(live.process.pid)
            memory.append(process.memory_info().rss / 1e6)
            torch_free.append(not any("libtorch" in m.path for m in process.memory_maps()))
            page.close()
            live.stop()
        chromium.close()
    note = f"server up after {up:.1f} s; n = 3; torch loaded: {'no' if all(torch_free) else 'YES'}"
    return [
        Row(
            "web process: request to first page",
            statistics.median(seconds),
            "s",
            2,
            "at most",
            note,
        ),
        Row("web process: memory", max(memory), "MB", 400, "at most"),
        Row("web process: starts without torch", float(all(torch_free)), "", 1, "at least"),
    ]


if __name__ == "__main__":
    sys.exit(print(*measure(), sep="\n"))
