"""The grid with a million images: first page, page turn, filter."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sqlalchemy import func, insert, select

from benchmarks.rows import Row, percentile
from cnsapp.bootstrap import App, open_app
from cnsapp.services import images, projects, training
from cnsapp.settings import Settings
from db.models import Image, ImageMeta
from db.queries import add_to_tally, insert_new

N_IMAGES = 1_000_000


def fill(app: App) -> tuple[int, list[int]]:
    """Write a million rows, a quarter of them labelled; return the project and its classes."""
    made = projects.create_project(app.store, name="million", classes=["a", "b", "c", "d"])
    classes = [c.id for c in projects.list_classes(app.store, project_id=made.id)]
    for start in range(0, N_IMAGES, 50_000):
        rows = [
            {
                "project_id": made.id,
                "sha256": f"{i:064x}",
                "file_name": f"slide{i % 997:04}/tile{i:07}.jpg",
                "width": 224,
                "height": 224,
                "group_key": f"patient{i % 997}",
                "stored_path": f"images/{i}.jpg",
                "n_bytes": 9000,
                "current_state": "label" if i % 4 == 0 else "none",
                "current_class_id": classes[i // 4 % 4] if i % 4 == 0 else None,
            }
            for i in range(start, start + 50_000)
        ]
        with app.store.writing() as session:
            insert_new(session, Image, rows, ["project_id", "sha256", "file_name"])
    counts = {"images": N_IMAGES, "state:label": N_IMAGES // 4}
    counts |= {f"class:{c}": N_IMAGES // 16 for c in classes}
    with app.store.writing() as session:
        add_to_tally(session, made.id, counts)
    return made.id, classes


def fill_metadata(app: App, project: int) -> None:
    """Give every image a stain and the number of its day."""
    with app.store.reading() as session:
        first = session.scalar(select(func.min(Image.id)).where(Image.project_id == project)) or 0
    for start in range(0, N_IMAGES, 50_000):
        rows = []
        for i in range(start, start + 50_000):
            stain = "rare" if i % 5000 == 0 else ("HE", "PAS")[i % 2]
            for key, value, number in (
                ("stain", stain, None),
                ("day", str(i // 1000), float(i // 1000)),
            ):
                row = {"image_id": first + i, "project_id": project}
                rows.append({**row, "key": key, "value": value, "number": number})
        with app.store.writing() as session:
            session.connection().execute(insert(ImageMeta), rows)


def p95_ms(act: Callable[[], object], turns: int = 40) -> float:
    """Return the 95th percentile of an act's duration, in milliseconds."""
    seconds = []
    for _turn in range(turns):
        started = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - started)
    return percentile(seconds, 0.95) * 1000


def measure() -> list[Row]:
    """Time the queries behind the grid and the counts, with 120 images a page."""
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as folder:
        app = open_app(Settings(home=Path(folder) / "home"))
        project, classes = fill(app)
        rng = np.random.default_rng(0)
        everything = images.ImageFilter()

        def page(chosen: images.ImageFilter, after: int | None) -> images.ImagePage:
            return images.list_images(
                app.store, project_id=project, filter=chosen, after=after, limit=120
            )

        def first() -> None:
            page(everything, None)
            images.counts(app.store, project_id=project)

        def turn() -> None:
            page(everything, int(rng.integers(0, N_IMAGES)))

        filters = [
            images.ImageFilter(state="unlabelled"),
            images.ImageFilter(state="label", class_id=classes[2]),
            images.ImageFilter(group="patient500"),
            images.ImageFilter(text="tile0999"),
            images.ImageFilter(text="no such name"),
        ]
        worst = max(p95_ms(lambda f=f: page(f, None), 10) for f in filters)  # type: ignore[misc]
        fill_metadata(app, project)
        by_meta = [
            images.ImageFilter(meta=(("stain", "HE"),)),
            images.ImageFilter(meta=(("stain", "rare"),)),
            images.ImageFilter(meta=(("day", 10.0, None),)),  # nearly all
            images.ImageFilter(meta=(("day", 900.0, None),)),  # a tenth, all at the end
            images.ImageFilter(meta=(("day", 5000.0, None),)),  # none
            images.ImageFilter(meta=(("stain", "PAS"), ("day", 500.0, 510.0))),
            images.ImageFilter(state="unlabelled", meta=(("stain", "HE"),)),
        ]
        worst_meta = max(p95_ms(lambda f=f: page(f, None), 10) for f in by_meta)  # type: ignore[misc]
        rows = [
            Row("1,000,000 images: first page with counts", p95_ms(first), "ms", 1000, "at most"),
            Row("1,000,000 images: page turn, p95", p95_ms(turn), "ms", 300, "at most"),
            Row(
                "1,000,000 images: slowest filter, p95", worst, "ms", 500, "at most", "of 5 filters"
            ),
            Row(
                "1,000,000 images: slowest filter by metadata, p95",
                worst_meta,
                "ms",
                500,
                "at most",
                "of 7 filters, 2,000,000 values",
            ),
        ]
        ready = p95_ms(lambda: training.readiness(app.store, project_id=project), 10)
        names = p95_ms(lambda: images.group_names(app.store, project_id=project), 10)
        note = f"names of 500 groups: {names:.0f} ms"
        rows.append(
            Row("1,000,000 images: do the labels suffice", ready, "ms", 300, "at most", note)
        )
        app.store.engine.dispose()
    return rows
