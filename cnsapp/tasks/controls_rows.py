"""The images, labels and folds that a model was scored on, read back for its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.splits import BY_GROUP
from cnsapp.errors import CnsError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.ml.controls_fit import NOT_SCORED, Task
from cnsapp.ml.controls_quick import straddling
from cnsapp.services.models import ModelView
from cnsapp.services.split_rows import fold
from cnsapp.tasks.resources import Source, model_rule
from cnsapp.tasks.snapshot import Labelled, Snapshot, take_snapshot
from db.models import Image, Prediction
from db.queries import chunks

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ControlRows:
    """What a control may learn from, and what it is scored on.

    Attributes
    ----------
    images
        In the order of the rows of `task`.
    task
        Labels and folds; -1 for images that are only learnt from.
    answers
        (N,) what the model said of each scored image, as an index of its classes; -1 elsewhere.
    rule
        How the images are read.
    notes
        What differs from the day of the training, in sentences.
    """

    images: list[Labelled]
    task: Task
    answers: Ints
    rule: ReadingRule
    notes: list[str]

    @property
    def sources(self) -> list[Source]:
        """The files."""
        return [image.source for image in self.images]


@dataclass(frozen=True)
class _Said:
    class_id: int
    answer: int
    fold: int


def control_rows(app: App, model: ModelView) -> ControlRows:
    """Read them back; raise CnsError where the model left no answers to compare with."""
    said = _answers(app, model.id)
    if not said:
        raise CnsError(
            f"The model “{model.name}” left no answers on images that it had not seen.",
            "Simpler methods are judged on the very same images.",
            "Train again, with groups or enough images for folds.",
        )
    rule, place = model_rule(app, model), {c: k for k, c in enumerate(model.class_ids)}
    try:
        now: Snapshot | None = take_snapshot(app, model.project_id, rule)
    except CnsError:
        now = None
    notes: list[str] = []
    if now is not None and now.fingerprint() == model.settings.get("fingerprint"):
        images = [image for image in now.learning if image.class_id in place]
    else:
        images = _as_then(app, said, rule)
        if is_held_out_once(model):
            images += _others(model, now, images)
        notes.append(
            "Labels have changed since this model was trained: simpler methods are judged by the "
            "labels of then."
        )
    images = sorted(images, key=lambda image: image.source.image_id)
    of = [said.get(image.source.image_id) for image in images]
    recipe = {**model.settings.get("options", {}), **model.settings.get("recipe", {})}
    task = Task(
        labels=np.array([place[image.class_id] for image in images], np.int64),
        n_classes=len(place),
        folds=np.array([row.fold if row else NOT_SCORED for row in of], np.int64),
        groups=[image.group for image in images] if any(i.group for i in images) else None,
        names=[image.source.name for image in images],
        scheme=str(model.metrics.get("scheme") or ""),
        seed=int(recipe.get("seed") or 0),
        pictures=[image.picture for image in images] if any(i.picture for i in images) else None,
    )
    if task.scheme == BY_GROUP and (n := straddling(task)):
        notes.append(
            f"Groups with images in several folds: {n}. They became one after the training, by a "
            "changed name or a picture that two of them share. Train again to keep them together."
        )
    answers = np.array([place[row.answer] if row else NOT_SCORED for row in of], np.int64)
    return ControlRows(images, task, answers, rule, notes)


def is_held_out_once(model: ModelView) -> bool:
    """Whether one part was held back, instead of each in turn."""
    return model.metrics.get("score_of") == "holdout"


def _answers(app: App, model_id: int) -> dict[int, _Said]:
    with app.store.reading() as session:
        rows = session.execute(
            select(
                Prediction.image_id,
                Prediction.label_class_id,
                Prediction.class_id,
                Prediction.fold,
            ).where(Prediction.model_id == model_id, Prediction.part == "fold")
        ).all()
    return {i: _Said(int(label), answer, int(k or 0)) for i, label, answer, k in rows if label}


def _as_then(app: App, said: Mapping[int, _Said], rule: ReadingRule) -> list[Labelled]:
    """Return the scored images with the labels that they had."""
    found: list[Labelled] = []
    known: dict[str, str] = {}
    for part in chunks(sorted(said)):
        with app.store.reading() as session:
            rows = session.execute(
                select(
                    Image.id, Image.sha256, Image.stored_path, Image.file_name, Image.facts,
                    Image.group_key,
                ).where(Image.id.in_(part))
            ).all()  # fmt: skip
        found += [
            Labelled(
                Source(i, sha, app.store.path(path), name, rule.seen(facts)),
                said[i].class_id,
                0,
                fold(group, known),
            )
            for i, sha, path, name, facts, group in rows
        ]
    return found


def _others(model: ModelView, now: Snapshot | None, held: list[Labelled]) -> list[Labelled]:
    """Return what may be learnt from today and has nothing in common with what was held back."""
    if now is None:
        raise CnsError(
            "What this model learnt from is no longer labelled.",
            "Simpler methods would have nothing to learn from.",
            "Label images again, or train a new model.",
        )
    ids = {image.source.image_id for image in held}
    groups = {image.group for image in held} - {None}
    shas = {image.source.sha256 for image in held}
    mine = [image for image in now.learning if image.source.image_id in ids]
    pictures = {image.picture for image in mine} - {None}
    tied = groups | {image.group for image in mine} - {None}
    return [
        image
        for image in now.learning
        if image.source.image_id not in ids
        and image.class_id in model.class_ids
        and image.group not in tied
        and image.picture not in pictures
        and image.source.sha256 not in shas
    ]
