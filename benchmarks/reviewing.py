"""How soon a click on the matrix shows its images, with 100,000 stored predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from benchmarks.evaluating import N_CLASSES, N, fill, predicted_project, seconds
from benchmarks.rows import Row, percentile
from cnsapp.services.filtering import ImageFilter
from cnsapp.services.labels import import_labels
from cnsapp.services.review import Truth
from cnsapp.services.review_filter import Order, ReviewFilter
from cnsapp.services.review_list import list_review, step
from cnsapp.services.review_matrix import review_matrix
from db.models import Image, ImageMeta, Model
from db.queries import chunks
from db.session import Store
from tests.browser.conftest import CHROMIUM_FLAGS, LiveApp
from tests.browser.ensure_chromium import find_chromium

CLICKS = 60
IN_BROWSER = 30  # clicks
SHOWN = """([row, column, title]) => new Promise((done) => {
  const find = (words, root = document) => {
    const found = root.querySelector(words);
    if (found) return found;
    for (const node of root.querySelectorAll('*')) {
      const deeper = node.shadowRoot && find(words, node.shadowRoot);
      if (deeper) return deeper;
    }
    return null;
  };
  const list = () => find('.lab .cells');
  const before = list().textContent;
  const cell = find(`.matrix button[data-at="${row},${column}"]`);
  const began = performance.now();
  cell.click();
  const look = () => {
    const heads = [...document.querySelectorAll('.st-key-review_gallery h3')];
    const there = heads.some((h) => h.textContent.includes(title));
    if (there && list() && list().textContent !== before) done(performance.now() - began);
    else requestAnimationFrame(look);
  };
  look();
})"""
ORDERS: tuple[Order, ...] = ("confidence", "margin", "entropy", "loss")
TRUTHS: tuple[Truth, ...] = ("trained", "current")
FILTERS: dict[str, ImageFilter] = {
    "group": ImageFilter(group="patient 7"),
    "metadata": ImageFilter(meta=(("batch", "batch 3"),)),
    "text": ImageFilter(text="_07"),
}


def add_batches(store: Store, project_id: int) -> None:
    """Note one of ten batches for every image."""
    with store.reading() as session:
        ids = session.scalars(select(Image.id).where(Image.project_id == project_id)).all()
    rows: list[dict[str, Any]] = [
        {"image_id": i, "key": "batch", "project_id": project_id, "value": f"batch {i % 10}"}
        for i in ids
    ]
    for part in chunks(rows):
        with store.writing() as session:
            session.execute(insert(ImageMeta), list(part))


def clicks(store: Store, model_id: int, class_ids: list[int], project_id: int) -> list[float]:
    """Click on cells in turn, each after somebody has labelled an image; return the seconds."""
    rng = np.random.default_rng(0)
    taken = []
    for k in range(CLICKS):
        page = list_review(
            store, model_id=model_id, wanted=ReviewFilter(show="wrong"), order="loss", limit=1
        )
        label, said = (int(class_ids[i]) for i in rng.integers(N_CLASSES, size=2))
        import_labels(
            store, project_id=project_id, rows=[(page.items[0].id, said)], annotator="ann"
        )
        wanted = ReviewFilter(label=label, predicted=said, truth=TRUTHS[k % 2])
        taken.append(
            seconds(
                partial(list_review, store, model_id=model_id, wanted=wanted, order=ORDERS[k % 4])
            )
        )
    return taken


@contextmanager
def closing_app(home: Path) -> Iterator[LiveApp]:
    """Yield a running app, which ends whatever happens."""
    live = LiveApp(home, start_worker=False)
    try:
        yield live
    finally:
        live.stop()


def in_browser() -> Row:
    """Click on cells of the page itself until the images of the cell stand below."""
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory(prefix="cns-bench-") as place,
        closing_app(Path(place) / "data" / "home") as live,
        sync_playwright() as play,
    ):
        model_id = fill(live.store)[0]
        chromium = play.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_FLAGS))
        page = chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.goto(f"{live.url}/review?model={model_id}&who=Ann")
        page.locator(".st-key-review_gallery .cells .cell").first.wait_for(timeout=120_000)
        rng = np.random.default_rng(0)
        taken = []
        for k in range(IN_BROWSER + 1):
            page.locator('[data-test-script-state="notRunning"]').first.wait_for()
            page.wait_for_timeout(500)  # between two clicks of a person
            row, column = (int(i) for i in rng.choice(N_CLASSES, size=2, replace=False))
            title = f"Labelled class {row}, predicted as class {column}"
            spent = page.evaluate(SHOWN, [row + 1, column + 1, title])
            taken += [spent] if k else []  # the first one opens what is kept
        chromium.close()
    return Row(
        f"{N:,} predictions: click on a cell -> its images on the page, p95",
        percentile(taken, 0.95), "ms", 300, "at most",
        f"in the browser, images without files; median {percentile(taken, 0.5):.0f} ms",
    )  # fmt: skip


def measure() -> list[Row]:
    """Open cells, filters, the matrix itself and the next image; then cells in the browser."""
    return [*services(), in_browser()]


def services() -> list[Row]:
    """Time what the page asks for."""
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as place:
        store, models = predicted_project(Path(place))
        model_id = models[0]
        with store.reading() as session:
            model = session.get_one(Model, model_id)
            project_id, class_ids = model.project_id, [int(i) for i in model.class_ids]
        add_batches(store, project_id)
        everything = ReviewFilter()
        cold = seconds(lambda: list_review(store, model_id=model_id, wanted=everything))
        cells = clicks(store, model_id, class_ids, project_id)
        opened = partial(list_review, store, model_id=model_id)
        filtered = {
            name: seconds(partial(opened, wanted=ReviewFilter(images=images), order="loss"))
            for name, images in FILTERS.items()
        }
        by_level = [
            seconds(
                partial(review_matrix, store, model_id=model_id, wanted=ReviewFilter(truth=truth))
            )
            for truth in TRUTHS
        ]
        page = opened(wanted=everything, limit=50)
        steps = [
            seconds(partial(step, store, model_id=model_id, wanted=everything, image_id=item.id))
            for item in page.items
        ]
        store.engine.dispose()
    said = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in filtered.items())
    return [
        Row(
            f"{N:,} predictions: cell -> first page of 50, p95", 1000 * percentile(cells, 0.95),
            "ms", 300, "at most", f"a label before each; first of all {cold:.1f} s",
        ),
        Row(
            f"{N:,} predictions: filter -> first page of 50, slowest",
            1000 * max(filtered.values()), "ms", 500, "at most", said,
        ),
        Row(
            f"{N:,} predictions: next image, p95", 1000 * percentile(steps, 0.95), "ms", 150,
            "at most",
        ),
        Row(
            f"{N:,} predictions: matrix with interval", max(by_level), "s", 3, "at most",
            f"again with other labels {by_level[1]:.1f} s",
        ),
    ]  # fmt: skip
