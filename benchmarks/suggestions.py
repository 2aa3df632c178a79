"""Many labels at once, and how soon suggestions follow the labels: 10,000 images."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from sqlalchemy import insert, select

from benchmarks.rows import Row, percentile
from cnsapp.bootstrap import App, open_app
from cnsapp.domain.recipe import DEFAULT_BACKBONE
from cnsapp.jobs.running import run_here
from cnsapp.jobs.supervisor import start_worker, stop_worker
from cnsapp.services import bulk, jobs, label_settings, labels, projects, suggestion_runs
from cnsapp.settings import Settings
from cnsapp.tasks.resources import extractor_of, feature_store
from db.models import Image, Suggestion
from db.queries import add_to_tally, chunks

N_IMAGES, N_LABELS, N_CLASSES, N_MORE, N_BULK = 10_000, 1_000, 5, 25, 5_000
N_WHILE = 500  # at most so many labels one by one while suggestions are made
TARGET = 2.0  # seconds


def measure() -> list[Row]:
    """Return the rows."""
    with tempfile.TemporaryDirectory(prefix="cnsapp-suggest-") as name:
        app = open_app(Settings(home=Path(name) / "home", device="cpu"))
        project_id, image_ids, class_ids = make_project(app)
        order = np.random.default_rng(1).permutation(len(image_ids))
        label(app, project_id, [image_ids[i] for i in order[:N_LABELS]], class_ids)
        cold = refresh(app, project_id)
        warm, told, committed = [], [], []
        for turn in range(3):
            start = N_LABELS + turn * N_MORE
            some = [image_ids[i] for i in order[start : start + N_MORE]]
            began = time.perf_counter()
            label(app, project_id, some, class_ids)
            committed.append(time.perf_counter() - began)
            took = refresh(app, project_id)
            warm.append(committed[-1] + took)
            told.append(took)
        start = N_LABELS + 3 * N_MORE
        some = [image_ids[i] for i in order[start : start + N_WHILE]]
        through, keys = with_worker(app, project_id, some, class_ids)
        rest = [image_ids[i] for i in order[start + N_WHILE :][:N_BULK]]
        began = time.perf_counter()
        receipt = bulk.label_images(
            app.store, project_id=project_id, annotator="bench", image_ids=rest,
            class_id=class_ids[0],
        )  # fmt: skip
        many = time.perf_counter() - began
        assert receipt.stored == N_BULK
        with app.store.reading() as session:
            n = len(session.scalars(select(Suggestion.image_id)).all())
        app.store.engine.dispose()
    assert n == N_IMAGES
    return [
        Row(
            "relabel to refreshed suggestions, 10,000 images", float(np.median(warm)), "s",
            TARGET, "at most",
            f"{N_MORE} more labels on {N_LABELS:,}, of which {1000 * np.median(committed):.0f} ms "
            f"store the labels; the first after the worker's start {cold:.1f} s; from the wish, "
            f"through the queue of a worker beside, {np.median(through):.1f} s",
        ),
        Row("label -> committed while suggestions are made, p95", percentile(keys, 0.95), "ms",
            250, "at most", f"n = {len(keys)}, most {max(keys):.0f} ms; {len(through)} refreshes"),
        Row(f"one class on {N_BULK:,} images, stored", many, "s", TARGET, "at most",
            "in short transactions, one undo"),
    ]  # fmt: skip


def with_worker(
    app: App, project_id: int, ids: list[int], class_ids: list[int]
) -> tuple[list[float], list[float]]:
    """Let a worker beside make suggestions while somebody labels one image after the other.

    Returns the seconds of each refresh but the worker's first, and the milliseconds of each label.
    """
    worker = start_worker(app.settings)
    took, keys, todo = [], [], iter(ids)
    try:
        while not ((view := jobs.worker_view(app.store, settings=app.settings)) and view.alive):
            time.sleep(0.1)  # else `wait_for_job` brings one of its own, which ends after one job
        jobs.wait_for_job(app, job_id=suggestion_runs.refresh(app.store, project_id=project_id))
        for _turn in range(3):
            began = time.perf_counter()
            job_id = suggestion_runs.refresh(app.store, project_id=project_id)
            while jobs.get_job(app.store, job_id=job_id).is_active:
                press = time.perf_counter()
                if (image_id := next(todo, None)) is not None:
                    store_one(app, project_id, image_id, class_ids)
                    keys.append(1000 * (time.perf_counter() - press))
                time.sleep(max(0.0, 0.04 - (time.perf_counter() - press)))
            took.append(time.perf_counter() - began)
    finally:
        stop_worker(worker)
    return took, keys


def store_one(app: App, project_id: int, image_id: int, class_ids: list[int]) -> None:
    """Store a label as the route does that takes it from a browser."""
    event = {
        "client": "bench-while-suggesting", "seq": image_id, "image_id": image_id, "kind": "label",
        "class_id": class_ids[(image_id - 1) % N_CLASSES], "source": "human",
        "action": f"bench-{image_id}",
    }  # fmt: skip
    taken = labels.record_events(
        app.store, project_id=project_id, annotator="bench", events=[event]
    )
    assert taken.acked, taken.rejected


def make_project(app: App) -> tuple[int, list[int], list[int]]:
    """Make a project of images whose features are there: five heaps that overlap."""
    project = projects.create_project(
        app.store, name="bench", classes=[f"class {k}" for k in range(N_CLASSES)]
    )
    classes = projects.list_classes(app.store, project_id=project.id)
    label_settings.change_settings(app.store, project_id=project.id, suggest_every=0)
    extractor = extractor_of(app, DEFAULT_BACKBONE)
    files = feature_store(app, extractor)
    random = np.random.default_rng(0)
    middles = random.normal(size=(N_CLASSES, extractor.layout.n_columns)) * 0.25
    for start in range(0, N_IMAGES, 500):
        shas = [f"{i:064x}" for i in range(start, start + 500)]
        kind = np.arange(start, start + 500) % N_CLASSES
        rows = middles[kind] + random.normal(size=(500, extractor.layout.n_columns))
        files.put(shas, "clean", rows.astype(np.float32))
        with app.store.writing() as session:
            session.execute(
                insert(Image),
                [
                    {
                        "project_id": project.id, "sha256": sha, "file_name": f"{sha[-6:]}.jpg",
                        "width": 224, "height": 224, "stored_path": "x", "n_bytes": 1,
                        "group_key": f"patient {int(sha, 16) % 80}", "facts": {},
                    }
                    for sha in shas
                ],
            )  # fmt: skip
            add_to_tally(session, project.id, {"images": 500})
    with app.store.reading() as session:
        ids = list(session.scalars(select(Image.id).order_by(Image.id)))
    return project.id, ids, [c.id for c in classes]


def label(app: App, project_id: int, ids: list[int], class_ids: list[int]) -> None:
    """Label images as what they are."""
    for part in chunks(ids):
        bulk.label_images(
            app.store, project_id=project_id, annotator="bench", image_ids=part, class_id=None,
            classes=[class_ids[(i - 1) % N_CLASSES] for i in part],
        )  # fmt: skip


def refresh(app: App, project_id: int) -> float:
    """Make the suggestions anew; return the seconds from the wish to the stored figures."""
    began = time.perf_counter()
    job_id = suggestion_runs.refresh(app.store, project_id=project_id)
    run_here(app, job_id)
    took = time.perf_counter() - began
    state = jobs.get_job(app.store, job_id=job_id)
    assert state.state == "done", state.error
    return took
