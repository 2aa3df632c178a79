"""The queue: how soon it knows of new labels, and five people who label out of it at once.

Five people label for a minute; `BENCH_MINUTES=10` makes it ten.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, text

from benchmarks.labels import labelling_app, open_single, p95_row, settle
from benchmarks.rows import Row, percentile
from cnsapp.services import bulk, projects, queueing
from cnsapp.services.looks_files import write_index
from db.models import Image, Suggestion, SuggestionRun
from db.queries import add_to_tally, chunks
from db.session import Store, open_store
from tests.browser.conftest import CHROMIUM_FLAGS, LiveApp
from tests.browser.ensure_chromium import find_chromium

N_IMAGES = 10_000
N_CLASSES = 9
DIMENSIONS = 64  # of the index of looks
PEOPLE = 5


def large_project(root: Path) -> tuple[Store, int, list[int]]:
    """Make a project of 10,000 images without files, sorted by looks."""
    store = open_store(f"sqlite:///{root / 'cns.sqlite'}", root)
    names = [f"class {i}" for i in range(N_CLASSES)]
    project = projects.create_project(store, name="bench", classes=names)
    rows: list[dict[str, Any]] = [
        {
            "project_id": project.id, "sha256": f"{i:064x}", "file_name": f"tile_{i:05d}.jpg",
            "width": 224, "height": 224, "stored_path": f"images/{i}.jpg", "n_bytes": 1,
            "facts": {},
        }
        for i in range(N_IMAGES)
    ]  # fmt: skip
    ids: list[int] = []
    for part in chunks(rows):
        with store.writing() as session:
            ids += session.scalars(insert(Image).returning(Image.id), list(part))
            add_to_tally(session, project.id, {"images": len(part)})
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(N_CLASSES, DIMENSIONS))
    looks = middles[rng.integers(N_CLASSES, size=N_IMAGES)]
    looks = (looks + rng.normal(size=looks.shape)).astype(np.float32)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    none = np.zeros(N_IMAGES, np.int64)
    arrays = {
        "ids": np.array(sorted(ids)), "signs": none, "rows": looks, "unread": none[:0],
        "clusters": none.astype(np.int32), "ratio": none.astype(np.float32),
        "places": np.zeros((N_IMAGES, 2), np.float32),
    }  # fmt: skip
    facts = {"map_method": "pca", "previews": [[]]}
    write_index(store, project_id=project.id, arrays=arrays, facts=facts)
    return store, project.id, sorted(ids)


def suggest(store: Store, project_id: int, ids: list[int], class_id: int, turn: int) -> None:
    """Store a new run of suggestions for all images, as the worker does."""
    margins = np.random.default_rng(turn).random(len(ids))
    with store.writing() as session:
        newest = session.scalar(text("SELECT max(id) FROM label_event"))
        run = SuggestionRun(
            project_id=project_id, n_labels=1, n_images=1, newest_event=newest, class_ids=[]
        )
        session.add(run)
        session.flush()
        session.execute(text("DELETE FROM suggestion"))
        rows = [
            {"image_id": i, "project_id": project_id, "run_id": run.id, "class_id": class_id,
             "confidence": 0.5, "margin": float(m), "top": []}
            for i, m in zip(ids, margins, strict=True)
        ]  # fmt: skip
        session.execute(insert(Suggestion), rows)


def seconds_until(store: Store, project_id: int, fresh: Callable[[queueing.Handed], bool]) -> float:
    """Return how long it takes until the queue that is handed out is the new one."""
    began = time.perf_counter()
    wish = queueing.Wish(project_id, "Ada")
    while True:
        handed = queueing.hand_out(store, wish, holder="browser", n=20)
        queueing.release(store, project_id=project_id, holder="browser")
        if fresh(handed) and not handed.is_old:
            return time.perf_counter() - began
        time.sleep(0.02)


def refreshed() -> list[Row]:
    """New labels from elsewhere, and new suggestions: when does the queue know of them?"""
    spread, doubted = [], []
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as folder:
        store, project_id, ids = large_project(Path(folder))
        classes = projects.list_classes(store, project_id=project_id)
        seconds_until(store, project_id, lambda handed: bool(handed.images))
        wish = queueing.Wish(project_id, "Ada")

        def changed(handed: queueing.Handed) -> bool:
            return handed.version != before

        for turn in range(N_CLASSES):
            before = queueing.look_ahead(store, wish, n=1).version
            bulk.label_images(
                store, project_id=project_id, annotator="Ben", kind="label",
                class_id=classes[turn].id, image_ids=ids[turn * 200 : turn * 200 + 200],
            )  # fmt: skip
            spread.append(seconds_until(store, project_id, changed))
        for turn in range(5):
            before = queueing.look_ahead(store, wish, n=1).version
            suggest(store, project_id, ids, classes[0].id, turn)
            doubted.append(seconds_until(store, project_id, changed))
        store.engine.dispose()
    note = (
        f"worst of {len(spread)} bulk labels {max(spread):.2f} s, of {len(doubted)} new runs of "
        f"suggestions {max(doubted):.2f} s"
    )
    worst = max(*spread, *doubted)
    return [Row("10,000 images: new labels -> fresh queue", worst, "s", 2, "at most", note)]


def together(chromium: Any, folder: Path, minutes: float) -> list[Row]:
    """Five people at two labels a second each, all from one queue."""
    each = round(minutes * 60 * 2)
    with labelling_app(folder, n=PEOPLE * each + 100) as (live, project):
        pages = [open_single(chromium, live, project, f"Person {i}") for i in range(PEOPLE)]
        started = time.perf_counter()
        for turn in range(each):
            for who, page in enumerate(pages):
                due = started + turn * 0.5 + who * 0.1
                time.sleep(max(0.0, due - time.perf_counter()))
                page.keyboard.press(str(turn % 5 + 1))
        pace = each * PEOPLE / (time.perf_counter() - started)
        seen = [settle(page) for page in pages]
        for page in pages:
            page.context.close()
        events, keys, pictures = kept(live)
    ahead = [ms for one in seen for ms in one["next"]]
    saved = [ms for one in seen for ms in one["saved"]]
    pressed = PEOPLE * each
    said = f"{pace:.1f} labels/s in all; committed p95 {percentile(saved, 0.95):.0f} ms"
    counted = f"{events:,} stored for {pressed:,} pressed, of {pictures:,} different images"
    once = min(keys, pictures) / max(pressed, events)
    return [
        p95_row("five browsers, one queue: next image, p95", ahead, 70, said),
        Row("five browsers, one queue: labels stored once", once, "", 1, "at least", counted),
    ]


def kept(live: LiveApp) -> tuple[int, int, int]:
    """Return how many label events there are, different keys of them, and different images."""
    with live.store.reading() as session:
        found = session.execute(
            text(
                "SELECT count(*), count(DISTINCT client || '/' || seq), count(DISTINCT image_id) "
                "FROM label_event"
            )
        ).one()
        return int(found[0]), int(found[1]), int(found[2])


def measure() -> list[Row]:
    """Measure the service by itself, then drive five browsers."""
    from playwright.sync_api import sync_playwright

    rows = refreshed()
    minutes = float(os.environ.get("BENCH_MINUTES", "1"))
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as folder, sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_FLAGS))
        rows += together(chromium, Path(folder) / "together", minutes)
        chromium.close()
    return rows
