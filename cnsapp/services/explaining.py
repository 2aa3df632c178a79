"""Explain: how sure the model is of an image, and a map of what it looked at."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.maps import METHODS, check_method
from cnsapp.domain.names import name_key
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import jobs
from cnsapp.services.models import ModelView, check_model_file, get_model
from cnsapp.services.projects import ClassView, list_classes
from db.models import Image, Job, Prediction
from db.session import Store

MAP_VERSION = 1  # raise it when maps are drawn otherwise, so that old ones are not shown


@dataclass(frozen=True)
class Probabilities:
    """How sure a model is of each class for one image, the likeliest first, and how it came."""

    values: list[tuple[ClassView, float]]
    source: str  # "out-of-fold, fold 3": by a model that had not seen the image


@dataclass(frozen=True)
class MapRequest:
    """A saliency map: there (`ready`, with its facts), or being made by a job."""

    key: str
    ready: bool
    job_id: int | None
    facts: dict[str, Any]


def methods() -> list[tuple[str, str, str]]:
    """Return the kinds of map as (id, title, note)."""
    return [(m.id, m.title, m.note) for m in METHODS]


def probabilities(store: Store, *, model_id: int, image_id: int) -> Probabilities | None:
    """Return the out-of-fold probabilities of an image, or None when the model has none of it.

    For images that were not part of the training, the facts of a map carry the probabilities.
    """
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        row = session.execute(
            select(Prediction.probabilities, Prediction.fold, Prediction.part).where(
                Prediction.model_id == model_id, Prediction.image_id == image_id
            )
        ).one_or_none()
    if row is None:
        return None
    values = _by_class(store, model, row[0])
    if row[2] == "test":
        return Probabilities(values, "locked test set: by a model that had not seen this image")
    fold = "held out" if row[1] is None else f"fold {row[1] + 1}"
    return Probabilities(values, f"out-of-fold, {fold}: by a model that had not seen this image")


def in_test_set(store: Store, *, model_id: int, image_id: int) -> bool:
    """Say whether a model answered an image as one of its locked test set: a look is counted."""
    with store.reading() as session:
        part = session.scalar(
            select(Prediction.part).where(
                Prediction.model_id == model_id, Prediction.image_id == image_id
            )
        )
    return part == "test"


def map_probabilities(
    store: Store, *, model_id: int, facts: dict[str, Any]
) -> Probabilities | None:
    """Return the probabilities that came with a map: those of the deployed model."""
    model = get_model(store, model_id=model_id)
    found = facts.get("probabilities")
    if not isinstance(found, list) or len(found) != len(model.class_ids):
        return None
    return Probabilities(_by_class(store, model, found), "from the deployed model")


def request_map(
    app: App,
    *,
    model_id: int,
    image_id: int,
    method: str = "gradcam",
    target_class: int | None = None,
    requested_by: str = "",
) -> MapRequest:
    """Return the map of an image, queueing the work when it is not there yet.

    Parameters
    ----------
    target_class
        The class whose evidence is shown; None for the one that the model predicts.

    Raises
    ------
    CnsError
        The method or class is unknown, or the model's file is missing or altered.
    """
    check_method(method)
    model = get_model(app.store, model_id=model_id)
    sha256 = _image_sha(app.store, model.project_id, image_id)
    if target_class is not None:
        target_class = _output_for(model, target_class)
    if target_class is not None and target_class not in model.class_ids:
        raise InvalidInputError(
            f"The model “{model.name}” does not know this class.",
            "There is no evidence for it to show.",
            f"Choose one of: {', '.join(output.name for output in model.outputs)}.",
        )
    key = map_key(model.sha256, sha256, method, target_class)
    facts = read_facts(app.store, key)
    if facts is not None:
        return MapRequest(key, True, None, facts)
    job_id = _job_of(app.store, model.project_id, key)
    if job_id is None:
        check_model_file(app, model_id=model_id)
        job_id = jobs.submit_job(
            app.store,
            kind="explain",
            project_id=model.project_id,
            payload={
                "key": key,
                "model_id": model_id,
                "image_id": image_id,
                "method": method,
                "target_class": target_class,
            },
            requested_by=requested_by,
        )
    return MapRequest(key, False, job_id, {})


def explain_file(
    app: App,
    *,
    project_id: int,
    path: Path,
    model_id: int,
    method: str = "gradcam",
    target: str | None = None,
    requested_by: str = "",
) -> int:
    """Queue the map of an image file that need not belong to the project; return the job number.

    The finished job's result names the overlay: ``{"png": "exports/…png", "facts": {…}}``.
    """
    check_method(method)
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", "", "Check the path.")
    model = get_model(app.store, model_id=model_id, project_id=project_id)
    target_class = None if target is None else _class_named(model, target)
    check_model_file(app, model_id=model_id)
    return jobs.submit_job(
        app.store,
        kind="explain",
        project_id=project_id,
        payload={
            "path": str(path.resolve()),
            "model_id": model_id,
            "method": method,
            "target_class": target_class,
        },
        requested_by=requested_by,
    )


def map_key(model_sha256: str, image_sha256: str, method: str, target_class: int | None) -> str:
    """Return the name of a map's files: the same for the same model, bytes, method and class."""
    target = "predicted" if target_class is None else str(target_class)
    text = "|".join((str(MAP_VERSION), model_sha256, image_sha256, method, target))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def read_facts(store: Store, key: str) -> dict[str, Any] | None:
    """Return what is noted of a finished map, or None while it is not there whole."""
    noted = store.path("saliency", f"{key}.json")
    if not store.path("saliency", f"{key}.png").is_file():
        return None
    try:
        facts: dict[str, Any] = json.loads(noted.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return facts


def _by_class(store: Store, model: ModelView, values: list[float]) -> list[tuple[ClassView, float]]:
    classes = {c.id: c for c in list_classes(store, project_id=model.project_id)}
    pairs = []
    for output in model.outputs:
        gone = ClassView(output.class_id, output.name, None, output.color, None, len(classes))
        share = sum(float(values[place]) for place in output.places)
        pairs.append((classes.get(output.class_id, gone), share))
    return sorted(pairs, key=lambda pair: -pair[1])


def _output_for(model: ModelView, class_id: int) -> int:
    """Return the class by which the model itself answers for a class of today."""
    for output in model.outputs:
        if output.class_id == class_id and class_id not in model.class_ids:
            return model.class_ids[output.places[0]]
    return class_id


def _image_sha(store: Store, project_id: int, image_id: int) -> str:
    with store.reading() as session:
        image = session.get(Image, image_id)
        if image is None or image.project_id != project_id:
            raise NotFoundError(f"There is no image number {image_id} in the model's project.")
        return image.sha256


def _job_of(store: Store, project_id: int, key: str) -> int | None:
    with store.reading() as session:
        rows = session.execute(
            select(Job.id, Job.payload).where(
                Job.project_id == project_id,
                Job.kind == "explain",
                Job.state.in_(("queued", "running")),
            )
        )
        return next((job_id for job_id, payload in rows if payload.get("key") == key), None)


def _class_named(model: ModelView, name: str) -> int:
    for output in model.outputs:
        if name_key(output.name) == name_key(name):
            return _output_for(model, output.class_id)
    raise InvalidInputError(
        f"The model “{model.name}” does not know a class “{name}”.",
        "",
        f"Choose one of: {', '.join(output.name for output in model.outputs)}.",
    )
