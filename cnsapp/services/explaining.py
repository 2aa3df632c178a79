"""Explain: how sure the model is of an image, and a map of what it looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from cnsapp.bootstrap import App
from cnsapp.domain.backbones import BackboneFacts, timm_facts
from cnsapp.domain.maps import (
    EVERYWHERE,
    METHODS,
    Offer,
    check_method,
    check_offered,
    clean_settings,
    legend,
    offered,
)
from cnsapp.domain.names import name_key
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError
from cnsapp.services import jobs
from cnsapp.services.explaining_sure import (
    Probabilities,
    in_test_set,
    map_probabilities,
    probabilities,
)
from cnsapp.services.images import reading_rule
from cnsapp.services.map_files import map_key, read_facts, read_look, reading_sign
from cnsapp.services.models import ModelView, check_model_file, get_model
from cnsapp.weights_files import get_facts
from db.models import Image, Job, Prediction
from db.queries import chunks
from db.session import Store

__all__ = [
    "MapRequest", "MapWish", "MapsRequest", "Probabilities", "explain_file", "in_test_set",
    "is_checked", "map_key", "map_probabilities", "methods", "methods_for", "probabilities",
    "read_facts", "request_map", "request_maps", "sample_images",
]  # fmt: skip

MOST_MAPS = 5000  # of one request: more would hold the worker for hours


@dataclass(frozen=True)
class MapRequest:
    """A saliency map: there (`ready`, with its facts), or being made by a job.

    A map that is ready may still have a job: its checks are being measured.
    """

    key: str
    ready: bool
    job_id: int | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class MapWish:
    """One map of a request for many, and the name of its files."""

    image_id: int
    method: str
    target_class: int | None
    key: str


@dataclass(frozen=True)
class MapsRequest:
    """Many maps: those asked for, and the job that makes what lacks (None: all are there)."""

    wishes: list[MapWish]
    n_ready: int
    job_id: int | None


def methods() -> list[tuple[str, str, str]]:
    """Return the kinds of map that are valid for every model, as (id, title, note)."""
    return [(m.id, m.title, m.note) for m in METHODS if m.where == EVERYWHERE]


def methods_for(app: App, *, model_id: int) -> list[Offer]:
    """Return every kind of map, with one sentence why it is not offered for a model, or ""."""
    model = get_model(app.store, model_id=model_id)
    return offered(*_network(app, model))


def _network(app: App, model: ModelView) -> tuple[BackboneFacts, str, bool | None, bool | None]:
    """Return facts of the network, kind of the head, and what the worker saw of its ReLUs."""
    look = read_look(app.store, model.sha256) or {}
    try:
        facts = get_facts(model.backbone, app.store.path("weights"))
    except CnsError:  # the card of a lab's own weights is gone; a fine-tuned model does without
        facts = timm_facts(model.backbone)
    head = str(look.get("head") or model.metrics.get("head", "linear"))
    return facts, head, look.get("relu_layers_only"), look.get("relu_layers_shared")


def request_map(
    app: App,
    *,
    model_id: int,
    image_id: int,
    method: str = "gradcam",
    target_class: int | None = None,
    requested_by: str = "",
    settings: Mapping[str, Any] | None = None,
    checks: bool = False,
) -> MapRequest:
    """Return the map of an image, queueing the work when it is not there yet.

    Parameters
    ----------
    target_class
        The class whose evidence is shown; None for the one that the model predicts.
    settings
        Of the method; what is not given is at its default.
    checks
        Also have the map checked once it is there: insertion and deletion against chance, and, once
        for the model and method, a comparison with random weights. The map never waits for it: ask
        again when it is ready, and a second job measures.

    Raises
    ------
    CnsError
        The method, a setting or the class is unknown, the method is not valid for the model, or the
        model's file is missing or altered.
    """
    model = get_model(app.store, model_id=model_id)
    chosen = _checked(app, model, method, settings)
    sha256 = _image_shas(app.store, model.project_id, [image_id])[image_id]
    target = _target(model, target_class)
    key = map_key(model.sha256, sha256, method, target, chosen, _reading(app, model))
    facts = _as_named_today(read_facts(app.store, key), model)
    lacks_checks = facts is not None and not is_checked(facts)
    if facts is not None and not (checks and lacks_checks):
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
                "target_class": target,
                "settings": chosen,
                "checks": facts is not None,
            },
            requested_by=requested_by,
        )
    return MapRequest(key, facts is not None, job_id, facts or {})


def request_maps(
    app: App,
    *,
    model_id: int,
    image_ids: Sequence[int],
    methods: Sequence[str] = ("gradcam",),
    targets: Sequence[int | None] = (None,),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    checks: bool = False,
    requested_by: str = "",
) -> MapsRequest:
    """Ask for the maps of many images by some methods for some classes, in one job with progress.

    Maps that are there are not made again. An image that can not be read does not stop the rest.

    Parameters
    ----------
    settings
        By method.
    checks
        Also measure what `request_map` can check.

    Raises
    ------
    CnsError
        As `request_map`; or there are more than `MOST_MAPS`.
    """
    model = get_model(app.store, model_id=model_id)
    chosen = {m: _checked(app, model, m, (settings or {}).get(m)) for m in dict.fromkeys(methods)}
    classes = list(dict.fromkeys(_target(model, target) for target in targets))
    n = len(image_ids) * len(chosen) * len(classes)
    if n > MOST_MAPS:
        raise InvalidInputError(
            f"{n:,} maps are too many at once.",
            f"The worker would be busy for hours; the most is {MOST_MAPS:,}.",
            "Choose fewer images, methods or classes.",
        )
    shas, reading = _image_shas(app.store, model.project_id, image_ids), _reading(app, model)
    wishes = [
        MapWish(i, m, t, map_key(model.sha256, shas[i], m, t, chosen[m], reading))
        for i in dict.fromkeys(image_ids)
        for t in classes
        for m in chosen
    ]
    found = [read_facts(app.store, wish.key) for wish in wishes]
    done = [f is not None and (not checks or is_checked(f)) for f in found]
    if all(done):
        return MapsRequest(wishes, len(wishes), None)
    check_model_file(app, model_id=model_id)
    job_id = jobs.submit_job(
        app.store,
        kind="explain_many",
        project_id=model.project_id,
        payload={
            "model_id": model_id,
            "maps": [[w.image_id, w.method, w.target_class, w.key] for w in wishes],
            "settings": chosen,
            "checks": checks,
        },
        requested_by=requested_by,
    )
    return MapsRequest(wishes, sum(done), job_id)


def is_checked(facts: Mapping[str, Any]) -> bool:
    """Say whether a map's facts tell how it compares with chance and with random weights."""
    return facts.get("faithfulness") is not None and facts.get("randomisation") is not None


def explain_file(
    app: App,
    *,
    project_id: int,
    path: Path,
    model_id: int,
    method: str = "gradcam",
    target: str | None = None,
    requested_by: str = "",
    settings: Mapping[str, Any] | None = None,
    checks: bool = False,
) -> int:
    """Queue the map of an image file that need not belong to the project; return the job number.

    The finished job's result names the overlay: ``{"png": "exports/…png", "facts": {…}}``.
    """
    check_method(method)
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", "", "Check the path.")
    model = get_model(app.store, model_id=model_id, project_id=project_id)
    chosen = _checked(app, model, method, settings)
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
            "settings": chosen,
            "checks": checks,
        },
        requested_by=requested_by,
    )


def sample_images(store: Store, *, model_id: int, limit: int = 3) -> list[int]:
    """Return a few images in use that a model answered out of fold, for its checks.

    The first of each answer, and not the first of all: images often come in class by class. Where
    the model gives fewer answers than that, the next images fill up.
    """
    mine = (
        select(Prediction.image_id)
        .join(Image, Image.id == Prediction.image_id)
        .where(
            Prediction.model_id == model_id,
            Prediction.part.is_distinct_from("test"),
            Image.status == "ok",
        )
    )
    firsts = mine.with_only_columns(func.min(Prediction.image_id)).group_by(Prediction.class_id)
    with store.reading() as session:
        apart = sorted(session.scalars(firsts))
        if len(apart) < limit:
            apart += session.scalars(
                mine.where(Prediction.image_id.not_in(apart))
                .order_by(Prediction.image_id)
                .limit(limit - len(apart))
            ).all()
    return apart[:limit]


def _checked(
    app: App, model: ModelView, method: str, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return all settings of a method that is valid for a model."""
    check_method(method)
    check_offered(method, *_network(app, model))
    return clean_settings(method, settings)


def _reading(app: App, model: ModelView) -> str:
    """Return the sign of how images are read for a model: as when it was trained."""
    stored = model.settings.get("reading")
    if stored is None:
        stored = reading_rule(app.store, project_id=model.project_id).as_json()
    return reading_sign(stored)


def _target(model: ModelView, target_class: int | None) -> int | None:
    """Return a class of today as the model itself names it; raise when it knows no such class."""
    if target_class is None:
        return None
    found = _output_for(model, target_class)
    if found not in model.class_ids:
        raise InvalidInputError(
            f"The model “{model.name}” does not know this class.",
            "There is no evidence for it to show.",
            f"Choose one of: {', '.join(output.name for output in model.outputs)}.",
        )
    return found


def _output_for(model: ModelView, class_id: int) -> int:
    """Return the class by which the model itself answers for a class of today."""
    for output in model.outputs:
        if output.class_id == class_id and class_id not in model.class_ids:
            return model.class_ids[output.places[0]]
    return class_id


def _as_named_today(facts: dict[str, Any] | None, model: ModelView) -> dict[str, Any] | None:
    """Return the facts of a kept map with the names that its classes have now."""
    if facts is None or facts.get("class_ids") != model.class_ids:
        return facts
    then, now = str(facts["class"]), model.class_names[int(facts["target_index"])]
    predicted = model.class_names[model.class_ids.index(facts["predicted_class_id"])]
    facts = facts | {"class": now, "predicted": predicted}
    if now != then:
        said, says = f"speaks for {then}:", f"speaks for {now}:"
        facts["legend"] = facts["legend"] | legend(str(facts["sign"]), now)
        facts["note"] = str(facts["note"]).replace(said, says)
        facts["notes"] = [str(text).replace(said, says) for text in facts["notes"]]
    return facts


def _image_shas(store: Store, project_id: int, image_ids: Sequence[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    with store.reading() as session:
        for part in chunks(list(dict.fromkeys(image_ids))):
            rows = select(Image.id, Image.sha256).where(
                Image.id.in_(part), Image.project_id == project_id
            )
            found.update((row.id, row.sha256) for row in session.execute(rows))
    for image_id in image_ids:
        if image_id not in found:
            raise NotFoundError(f"There is no image number {image_id} in the model's project.")
    return found


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
