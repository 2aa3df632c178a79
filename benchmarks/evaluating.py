"""How soon the figures of a model are there, with 100,000 stored predictions."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, update

from benchmarks.rows import Row
from cnsapp.services import projects
from cnsapp.services.comparing import compare_models
from cnsapp.services.evaluation import evaluate_model
from db.models import Image, Model, Prediction
from db.queries import chunks
from db.session import Store, open_store

N = 100_000
N_CLASSES = 8
N_GROUPS = 600
N_MODELS = 2


def predicted_project(root: Path) -> tuple[Store, list[int]]:
    """Make labelled images without files, and models with a prediction of each of them."""
    store = open_store(f"sqlite:///{root / 'cns.sqlite'}", root)
    return store, fill(store)


def fill(store: Store) -> list[int]:
    """Put the project of `predicted_project` into a store; return its models."""
    names = [f"class {i}" for i in range(N_CLASSES)]
    project = projects.create_project(store, name="bench", classes=names)
    classes = [c.id for c in projects.list_classes(store, project_id=project.id)]
    rng = np.random.default_rng(0)
    y = rng.integers(N_CLASSES, size=N)
    images: list[dict[str, Any]] = [
        {
            "project_id": project.id, "sha256": f"{i:064x}", "file_name": f"tile_{i:06d}.jpg",
            "width": 224, "height": 224, "stored_path": f"images/{i}.jpg", "n_bytes": 1,
            "facts": {}, "group_key": f"patient {i * N_GROUPS // N}", "current_state": "label",
            "current_class_id": classes[y[i]],
        }
        for i in range(N)
    ]  # fmt: skip
    ids: list[int] = []
    for part in chunks(images):
        with store.writing() as session:
            ids += session.scalars(insert(Image).returning(Image.id), list(part))
    models = []
    for number in range(N_MODELS):
        p = rng.dirichlet(np.full(N_CLASSES, 0.3), size=N)
        p[np.arange(N), y] += 0.6 + 0.1 * number
        models.append(_model(store, project.id, classes, sorted(ids), y, p / p.sum(1)[:, None]))
    return models


def _model(
    store: Store, project_id: int, classes: list[int], ids: list[int], y: Any, p: Any
) -> int:
    with store.writing() as session:
        model = Model(
            project_id=project_id, name="m", preset="quick", backbone="b", path="p", sha256="",
            class_ids=classes, metrics={"temperature": 1.0}, ready=False,
        )  # fmt: skip
        session.add(model)
        session.flush()
        model_id = model.id
    best = p.argmax(1)
    rows = [
        {
            "model_id": model_id, "image_id": ids[i], "class_id": classes[best[i]],
            "probability": float(p[i, best[i]]), "fold": i % 5, "label_class_id": classes[y[i]],
            "probabilities": [round(float(v), 6) for v in p[i]],
        }
        for i in range(N)
    ]  # fmt: skip
    for part in chunks(rows):
        with store.writing() as session:
            session.execute(insert(Prediction), list(part))
    with store.writing() as session:
        session.execute(update(Model).where(Model.id == model_id).values(ready=True))
    return model_id


def seconds(act: Callable[[], object]) -> float:
    """Return how long an act takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def measure() -> list[Row]:
    """Ask for all figures of a model, again, by group, and for a comparison of two."""
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as place:
        store, models = predicted_project(Path(place))
        first = seconds(lambda: evaluate_model(store, models[0]))
        again = seconds(lambda: evaluate_model(store, models[0]))
        by_group = seconds(lambda: evaluate_model(store, models[0], by="group"))
        compared = seconds(lambda: compare_models(store, model_ids=models))
        store.engine.dispose()
    note = f"{N_CLASSES} classes, {N_GROUPS} groups, 2,000 resamples; again {1000 * again:.0f} ms"
    return [
        Row("100,000 predictions: all figures of a model", first, "s", 3, "at most", note),
        Row("100,000 predictions: by group", by_group, "s", 3, "at most", f"{N_GROUPS} slices"),
        Row("100,000 predictions: two models compared", compared, "s", 3, "at most", "by group"),
    ]
