"""Looking closely at a picture of 10,000 x 10,000 pixels: the frames while it is dragged."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from benchmarks.rows import Row, percentile
from cnsapp.services import importing, projects
from tests.browser.conftest import CHROMIUM_FLAGS, LiveApp
from tests.browser.ensure_chromium import find_chromium

SIDE = 10_000
STROKES = 8  # drags to and fro over pictures that are not loaded yet
STEPS = 45  # moves of the mouse in one of them

# Drags as a hand does, a move before each frame, and notes how far the frames are apart.
DRAG = """async ([strokes, steps]) => {
  const find = (selector) => [...document.querySelectorAll('*')]
    .map((host) => host.shadowRoot && host.shadowRoot.querySelector(selector)).find(Boolean);
  const frame = find('.one .frame');
  const box = frame.getBoundingClientRect();
  const send = (name, x, y, buttons) => frame.dispatchEvent(new PointerEvent(name, {
    clientX: x, clientY: y, pointerId: 7, button: 0, buttons, bubbles: true, composed: true }));
  const next = () => new Promise(requestAnimationFrame);
  const gaps = [];
  for (let stroke = 0; stroke < strokes; stroke++) {
    const [dx, dy] = [[-1, -.4], [-.6, -1], [1, -.3], [.2, 1]][stroke % 4];
    let [x, y] = [box.x + box.width / 2 - dx * 300, box.y + box.height / 2 - dy * 200];
    send('pointerdown', x, y, 1);
    let last = await next();
    for (let i = 0; i < steps; i++) {
      x += dx * 600 / steps; y += dy * 400 / steps;
      send('pointermove', x, y, 1);
      const now = await next();
      gaps.push(now - last);
      last = now;
    }
    send('pointerup', x, y, 0);
  }
  return gaps;
}"""


def write_large(path: Path) -> None:
    """Write a picture with detail everywhere, so that no tile is easier than another."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
    Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=85)


def measure() -> list[Row]:
    """Open the picture, zoom in, wait for its tiles, and drag it about."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="cns-bench-") as name, sync_playwright() as play:
        folder = Path(name)
        (folder / "images").mkdir()
        write_large(folder / "images" / "large.jpg")
        live = LiveApp(folder / "home", start_worker=False)
        made = projects.create_project(live.store, name="bench", classes=["tumour", "stroma"])
        importing.import_folder(live.app, project_id=made.id, path=folder / "images")
        chromium = play.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_FLAGS))
        page = chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
        query = urlencode({"project": made.id, "who": "Ada", "view": "One by one"})
        page.goto(f"{live.url}/label?{query}")
        page.locator(".one .frame:not(.loading) img").wait_for(timeout=60_000)
        waited = sharpen(page)
        gaps: list[float] = page.evaluate(DRAG, [STROKES, STEPS])
        chromium.close()
        live.stop()
    seen = f"n = {len(gaps)}, p95 {percentile(gaps, 0.95):.0f} ms; tiles made in {waited:.1f} s"
    what = "panning 10,000 x 10,000 pixels: median frame"
    return [Row(what, percentile(gaps, 0.5), "ms", 25, "at most", seen)]


def sharpen(page: Any) -> float:
    """Zoom to one pixel on one of the screen; return the seconds until it is sharp."""
    started = time.perf_counter()
    page.keyboard.press("z")
    page.locator(".marks .note").wait_for(state="visible", timeout=10_000)
    page.locator(".marks .note").wait_for(state="hidden", timeout=180_000)
    return time.perf_counter() - started
