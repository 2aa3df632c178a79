"""Small projects with tiny generated images, made without the importer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from sqlalchemy import func, select

from cnsapp.bootstrap import App
from cnsapp.services.labels import import_labels
from cnsapp.services.projects import create_project, list_classes
from db.models import Image, LabelEvent, Model, Prediction
from db.queries import add_to_tally

COLORS = ((200, 60, 90), (70, 90, 190), (90, 170, 80), (180, 170, 60))


@dataclass(frozen=True)
class World:
    """A project, its classes and its images, class by class."""

    app: App
    project_id: int
    class_ids: list[int]
    image_ids: list[list[int]]


def draw(path: Path, kind: int, seed: int, side: int = 48) -> None:
    """Write a noisy picture whose colour and stripes tell its class."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((side, side, 3), dtype=float)
    pixels[:] = COLORS[kind % len(COLORS)]
    pixels[:: kind + 2] *= 0.6
    pixels += rng.normal(0, 20, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def make_world(
    app: App,
    counts: dict[str, int],
    *,
    unlabelled: int = 0,
    n_groups: int = 0,
    name: str = "world",
    side: int = 48,
) -> World:
    """Make a project with `counts[class]` labelled images a class, and some unlabelled ones."""
    project = create_project(app.store, name=name, classes=list(counts))
    classes = list_classes(app.store, project_id=project.id)
    image_ids: list[list[int]] = []
    seed = 0
    for kind, n in enumerate([*counts.values(), unlabelled]):
        ids = []
        for _ in range(n):
            seed += 1
            group = f"patient {seed % n_groups}" if n_groups else None
            ids.append(_add_image(app, project.id, kind, seed, group, side))
        image_ids.append(ids)
    rows = [(i, c.id) for c, ids in zip(classes, image_ids, strict=False) for i in ids]
    import_labels(app.store, project_id=project.id, rows=rows, annotator="ann")
    return World(app, project.id, [c.id for c in classes], image_ids)


def _add_image(
    app: App, project_id: int, kind: int, seed: int, group: str | None, side: int
) -> int:
    made = app.store.path("images", f"new-{project_id}-{seed}.png")
    draw(made, kind, seed + 1000 * project_id, side)
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    stored = f"images/{sha256[:2]}/{sha256}.png"
    app.store.path(stored).parent.mkdir(exist_ok=True)
    made.rename(app.store.path(stored))
    with app.store.writing() as session:
        row = Image(
            project_id=project_id,
            sha256=sha256,
            file_name=f"class{kind}/{seed}.png",
            width=side,
            height=side,
            group_key=group,
            stored_path=stored,
            n_bytes=app.store.path(stored).stat().st_size,
        )
        session.add(row)
        session.flush()
        add_to_tally(session, project_id, {"images": 1})
        return row.id


def relabel(world: World, image_id: int, class_id: int) -> None:
    """Give an image another label, as somebody on the Review page would."""
    import_labels(
        world.app.store,
        project_id=world.project_id,
        rows=[(image_id, class_id)],
        annotator="reviewer",
        source="review",
    )


def add_model(world: World, said: list[tuple[int, int, int, float]]) -> int:
    """Add a model with predictions (image, label then, predicted class, probability)."""
    file = world.app.store.path("models", "model.safetensors")
    file.write_bytes(b"not a real model")
    with world.app.store.writing() as session:
        model = Model(
            project_id=world.project_id,
            name="quick 1",
            preset="quick",
            backbone="efficientnet_lite0",
            path="models/model.safetensors",
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            class_ids=world.class_ids,
            metrics={
                "balanced_accuracy": 0.75,
                "balanced_accuracy_interval": [0.6, 0.9],
                "accuracy": 0.75,
                "n": len(said),
                "n_groups": None,
                "scheme": "by image",
                "per_class": [],
            },
            settings={"last_event_id": session.scalar(select(func.max(LabelEvent.id)))},
        )
        session.add(model)
        session.flush()
        for image_id, label, predicted, probability in said:
            image = session.get_one(Image, image_id)
            rest = (1 - probability) / (len(world.class_ids) - 1)
            session.add(
                Prediction(
                    model_id=model.id,
                    image_id=image_id,
                    class_id=predicted,
                    probability=probability,
                    fold=0,
                    probabilities=[
                        probability if c == predicted else rest for c in world.class_ids
                    ],
                    label_class_id=label,
                    event_id=image.current_event_id,
                )
            )
        return model.id
