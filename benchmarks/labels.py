"""Labelling in real browsers: key to next image, key to commit, five people, a grid of 200."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import text

from benchmarks.import_files import write_jpegs
from benchmarks.rows import Row, percentile
from cnsapp.services import importing, jobs, projects
from tests.browser.conftest import CHROMIUM_FLAGS, LiveApp
from tests.browser.ensure_chromium import find_chromium

# Written into every page before its own scripts: the clock starts in the first listener of the key
# press, and stops when the next decoded picture stands in the frame, and when an answer of the
# server names the label as stored.
CLOCK = """
window.bench = {next: [], saved: [], grid: []};
let pressed = 0; const waiting = [];
addEventListener('keydown', () => { pressed = performance.now(); waiting.push(pressed); }, true);
const nativeFetch = window.fetch;
window.fetch = async (...request) => {
  const answer = await nativeFetch(...request);
  if (String(request[0]).includes('/api/labels') && answer.ok && request[1]?.method === 'POST') {
    const now = performance.now();
    const n = (await answer.clone().json()).acked.length;
    window.bench.saved.push(...waiting.splice(0, n).map((at) => now - at));
  }
  return answer;
};
window.watchFrame = (frame) => new MutationObserver(async () => {
  const img = frame.querySelector('img'); const at = pressed;
  if (!img || !at) return;
  await img.decode();
  window.bench.next.push(performance.now() - at);
}).observe(frame, {childList: true});
window.watchGrid = (list) => new MutationObserver(() => {
  if (pressed && !list.querySelector('[data-saved=false]') && window.bench.armed) {
    window.bench.armed = false;
    window.bench.grid.push(performance.now() - pressed);
  }
}).observe(list, {subtree: true, attributes: true, attributeFilter: ['data-saved']});
"""


@contextmanager
def labelling_app(folder: Path, *, n: int, start_worker: bool = False) -> Iterator[tuple[Any, int]]:
    """Yield a running app with a project of `n` images, and the project's id."""
    source = folder / "images"
    write_jpegs(source, n)
    live = LiveApp(folder / "home", start_worker=start_worker)
    classes = ["mucosa", "stroma", "tumour", "fat", "debris"]
    made = projects.create_project(live.store, name="bench", classes=classes)
    importing.import_folder(live.app, project_id=made.id, path=source, labels=None, group_from=None)
    yield live, made.id
    live.stop()


def open_single(browser: Any, live: LiveApp, project: int, who: str) -> Any:
    """Open the one-by-one view in a context of its own, ready for keys."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.add_init_script(CLOCK)
    query = urlencode({"project": project, "who": who, "view": "One by one"})
    page.goto(f"{live.url}/label?{query}")
    frame = page.locator(".frame")
    frame.locator("img").wait_for(timeout=30_000)
    page.wait_for_timeout(1500)  # the pictures ahead are fetched
    frame.evaluate("(frame) => window.watchFrame(frame)")
    return page


def press(page: Any, n: int, pause: float) -> None:
    """Press class keys in turn, at a human pace."""
    for i in range(n):
        page.keyboard.press(str(i % 5 + 1))
        page.wait_for_timeout(pause * 1000)


def settle(page: Any) -> dict[str, list[float]]:
    """Wait until nothing is on its way and return what the clock saw."""
    page.get_by_text("All saved").first.wait_for(timeout=20_000)
    found: dict[str, list[float]] = page.evaluate("window.bench")
    return found


def stored(live: LiveApp) -> tuple[int, int]:
    """Return how many label events there are, and how many distinct keys they have."""
    with live.store.reading() as session:
        found = session.execute(
            text("SELECT count(*), count(DISTINCT client || '/' || seq) FROM label_event")
        ).one()
        return int(found[0]), int(found[1])


def p95_row(name: str, values: list[float], target: float, note: str = "") -> Row:
    """Return the row of a 95th percentile in milliseconds."""
    seen = f"n = {len(values)}, median {percentile(values, 0.5):.0f} ms"
    whole = f"{seen}; {note}" if note else seen
    return Row(name, percentile(values, 0.95), "ms", target, "at most", whole)


def alone(chromium: Any, folder: Path) -> list[Row]:
    """One person, nothing else running."""
    with labelling_app(folder, n=300) as (live, project):
        page = open_single(chromium, live, project, "Ada")
        press(page, 100, 0.25)
        seen = settle(page)
        page.context.close()
        assert stored(live) == (100, 100), stored(live)
    return [
        p95_row("label key -> next image, p95", seen["next"], 20),
        p95_row("label key -> committed, idle, p95", seen["saved"], 100),
    ]


def while_training(chromium: Any, folder: Path) -> list[Row]:
    """One person, while the worker computes features and trains."""
    with labelling_app(folder, n=1500, start_worker=True) as (live, project):
        job = jobs.submit_job(live.store, kind="features", project_id=project, payload={})
        while jobs.get_job(live.store, job_id=job).progress < 0.02:
            time.sleep(0.2)
        page = open_single(chromium, live, project, "Ada")
        press(page, 100, 0.3)
        seen = settle(page)
        running = jobs.get_job(live.store, job_id=job).state == "running"
        page.context.close()
    note = "" if running else "the job ended before the last key"
    return [p95_row("label key -> committed, while training, p95", seen["saved"], 250, note)]


def five_people(chromium: Any, folder: Path) -> list[Row]:
    """Five browsers, two labels a second each."""
    each = 30
    with labelling_app(folder, n=400) as (live, project):
        pages = [open_single(chromium, live, project, f"Person {i}") for i in range(5)]
        started = time.perf_counter()
        for turn in range(each):
            for who, page in enumerate(pages):
                due = started + turn * 0.5 + who * 0.1
                time.sleep(max(0.0, due - time.perf_counter()))
                page.keyboard.press(str(turn % 5 + 1))
        pace = each * 5 / (time.perf_counter() - started)
        seen = [settle(page) for page in pages]
        for page in pages:
            page.context.close()
        events = stored(live)
    ahead = [ms for one in seen for ms in one["next"]]
    saved = [ms for one in seen for ms in one["saved"]]
    note = f"{pace:.1f} labels/s in all; committed p95 {percentile(saved, 0.95):.0f} ms"
    kept = Row(
        "five browsers: labels stored, of those pressed",
        min(events) / (5 * each),
        "",
        1,
        "at least",
        f"{events[0]} stored, {5 * each} pressed",
    )
    return [p95_row("five browsers: next image, p95", ahead, 70, note), kept]


def grid_of_200(chromium: Any, folder: Path) -> list[Row]:
    """A key on 200 selected images until every one is shown as saved."""
    with labelling_app(folder, n=200) as (live, project):
        page = chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.add_init_script(CLOCK)
        page.goto(f"{live.url}/label?{urlencode({'project': project, 'who': 'Ada'})}")
        cells = page.locator(".cells")
        cells.locator(".cell").nth(199).wait_for(state="attached", timeout=30_000)
        page.wait_for_timeout(1500)
        cells.evaluate("(list) => window.watchGrid(list)")
        cells.focus()
        page.keyboard.press("Control+a")
        for turn in range(20):
            page.evaluate("window.bench.armed = true")
            page.keyboard.press(str(turn % 5 + 1))
            page.wait_for_function(f"window.bench.grid.length > {turn}", timeout=20_000)
            page.wait_for_timeout(200)
            if not page.locator(".cell[aria-selected=true]").count():
                page.keyboard.press("Control+a")
        seen = page.evaluate("window.bench.grid")
        page.context.close()
        events = stored(live)
    assert events == (4000, 4000), events
    return [p95_row("grid of 200: key -> all confirmed on screen, p95", seen, 250)]


def measure() -> list[Row]:
    """Drive all four scenes."""
    from playwright.sync_api import sync_playwright

    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as folder, sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_FLAGS))
        for scene in (alone, grid_of_200, five_people, while_training):
            place = Path(folder) / scene.__name__
            place.mkdir()
            rows += scene(chromium, place)
        chromium.close()
    return rows
