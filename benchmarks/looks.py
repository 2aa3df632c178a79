"""Images by looks with 100,000 images: similar ones, the map in the browser, making the index."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from benchmarks.browsing import p95_ms
from benchmarks.rows import Row, percentile
from cnsapp.ml import looks as maker
from cnsapp.services import looks, projects
from db.models import Image
from db.queries import add_to_tally
from tests.browser.conftest import CHROMIUM_FLAGS, LiveApp
from tests.browser.ensure_chromium import find_chromium
from tests.looks import index_of, unit_rows

N_IMAGES = 100_000
N_MADE = 10_000  # images whose index is made
COLUMNS = 544  # of the default backbone's features
BATCH = 5000


def fill(live: LiveApp) -> int:
    """Write the images, a quarter of them labelled, and their index; return the project."""
    made = projects.create_project(live.store, name="bench", classes=["a", "b", "c", "d"])
    classes = [c.id for c in projects.list_classes(live.store, project_id=made.id)]
    for start in range(0, N_IMAGES, BATCH):
        with live.store.writing() as session:
            session.execute(
                insert(Image),
                [
                    {
                        "project_id": made.id, "sha256": f"{i:064x}",
                        "file_name": f"slide{i % 97}/tile{i}.jpg", "width": 224, "height": 224,
                        "group_key": f"patient{i % 97}", "stored_path": f"images/{i}.jpg",
                        "n_bytes": 9000,
                        "current_state": "none" if i % 4 else "label",
                        "current_class_id": None if i % 4 else classes[i // 4 % 4],
                    }
                    for i in range(start, start + BATCH)
                ],
            )  # fmt: skip
    with live.store.writing() as session:
        add_to_tally(session, made.id, {"images": N_IMAGES, "state:label": N_IMAGES // 4})
    rows, kind = unit_rows(N_IMAGES, d=64, k=120)
    rng = np.random.default_rng(1)
    places = rng.normal(size=(120, 2))[kind] * 10 + rng.normal(size=(N_IMAGES, 2))
    index_of(live.store, made.id, rows, clusters=kind, places=places)
    return made.id


def index_seconds() -> tuple[float, str]:
    """Time what makes an index of kept features, and say where the time goes."""
    rows, _ = unit_rows(N_MADE, d=COLUMNS, k=40)
    marks = [time.perf_counter()]
    unit = maker.Projection.fit(rows).apply(rows)
    marks.append(time.perf_counter())
    maker.cluster(unit)
    marks.append(time.perf_counter())
    _, method = maker.make_map(unit, lambda: None)
    marks.append(time.perf_counter())
    axes, clusters, placing = np.diff(marks)
    note = f"axes {axes:.1f} s, clusters {clusters:.1f} s, map ({method}) {placing:.1f} s"
    return marks[-1] - marks[0], note


def measure() -> list[Row]:
    """Time the services in this process and the map in a browser."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="cns-bench-") as name, sync_playwright() as play:
        live = LiveApp(Path(name) / "home", start_worker=False)
        try:
            project = fill(live)
            rng = np.random.default_rng(0)

            def similar(n: int = 1, free: bool = False) -> None:
                ids = rng.integers(1, N_IMAGES, n).tolist()
                looks.similar(live.store, project_id=project, image_ids=ids, unlabelled_only=free)

            similar()
            ms = {
                "of one": p95_ms(similar, 20),
                "of 50": p95_ms(lambda: similar(50), 20),
                "unlabelled alone": p95_ms(lambda: similar(1, True), 20),
            }
            clusters = p95_ms(lambda: looks.clusters(live.store, project_id=project), 5)
            points = p95_ms(lambda: looks.map_points(live.store, project_id=project), 5)
            chromium = play.chromium.launch(
                executable_path=find_chromium(), args=list(CHROMIUM_FLAGS)
            )
            page = chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
            drawn, painted = [], []
            for _turn in range(4):
                began = time.perf_counter()
                page.goto(f"{live.url}/label?project={project}&who=Ada&view=By+looks")
                stage = page.locator(".lookmap .stage[data-drawn]")
                stage.wait_for(timeout=60_000)
                drawn.append(time.perf_counter() - began)
                painted.append(float(stage.get_attribute("data-ms") or "nan"))
            chromium.close()
        finally:
            live.stop()
    seconds, parts = index_seconds()
    shown = ", ".join(f"{name} {value:.0f}" for name, value in ms.items())
    return [
        Row("100,000 images: similar ones, p95", max(ms.values()), "ms", 300, "at most", shown),
        Row("100,000 images: map from request to drawn", percentile(drawn, 0.5), "s", 3, "at most",
            f"n = {len(drawn)}; drawing {percentile(painted, 0.5):.0f} ms"),
        Row("100,000 images: list of clusters, p95", clusters, "ms", 1000, "at most",
            f"points of the map: {points:.0f} ms"),
        Row(f"index of looks of {N_MADE:,} images", seconds, "s", 60, "at most", parts),
    ]  # fmt: skip
