"""Explain: how sure the model is of an image, and a map of what it looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from cnsapp.bootstrap import App
from cnsapp.domain.maps import DEFAULT_METHOD, check_method
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import jobs
from cnsapp.services.explaining_sure import (
    Probabilities,
    in_test_set,
    map_probabilities,
    outside_test_set,
    probabilities,
)
from cnsapp.services.map_choices import (
    LABEL,
    PREDICTED,
    Target,
    as_named_today,
    checked_settings,
    class_named,
    methods,
    methods_for,
    reading_of,
    target_of,
    targets_of,
)
from cnsapp.services.map_files import map_key, picture_path, read_facts
from cnsapp.services.models import ModelView, check_model_file, get_model
from db.models import Image, Job, Prediction
from db.queries import chunks
from db.session import Store

__all__ = [
    "LABEL", "MOST_MAPS", "PREDICTED", "MapRequest", "MapWish", "MapsRequest", "Probabilities",
    "Target", "explain_file", "in_test_set", "is_checked", "map_key", "map_probabilities",
    "maps_there", "methods", "methods_for", "outside_test_set", "probabilities", "read_facts",
    "request_map", "request_maps", "sample_images", "targets_of",
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


def request_map(
    app: App,
    *,
    model_id: int,
    image_id: int,
    method: str = DEFAULT_METHOD,
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
    chosen = checked_settings(app, model, method, settings)
    sha256 = _image_shas(app.store, model.project_id, [image_id])[image_id]
    target = target_of(model, target_class)
    key = map_key(model.sha256, sha256, method, target, chosen, reading_of(app, model))
    facts = as_named_today(read_facts(app.store, key), model)
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
    methods: Sequence[str] = (DEFAULT_METHOD,),
    targets: Sequence[int | None] | Mapping[int, Sequence[int | None]] = (None,),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    checks: bool = False,
    requested_by: str = "",
) -> MapsRequest:
    """Ask for the maps of many images by some methods for some classes, in one job with progress.

    Maps that are there are not made again. An image that can not be read does not stop the rest.

    Parameters
    ----------
    targets
        Of all images, or by image.
    settings
        By method.
    checks
        Also measure what `request_map` can check.

    Raises
    ------
    CnsError
        As `request_map`; or there are more than `MOST_MAPS`.
    """
    apart = targets if isinstance(targets, Mapping) else dict.fromkeys(image_ids, targets)
    n = len(set(methods)) * sum(len(apart[image_id]) for image_id in image_ids)
    if n > MOST_MAPS:
        raise InvalidInputError(
            f"{n:,} maps are too many at once.",
            f"The worker would be busy for hours; the most is {MOST_MAPS:,}.",
            "Choose fewer images, methods or classes.",
        )
    model = get_model(app.store, model_id=model_id)
    wishes = _wishes(app, model, image_ids, methods, apart, settings or {})
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
            "settings": {
                m: checked_settings(app, model, m, (settings or {}).get(m)) for m in methods
            },
            "checks": checks,
        },
        requested_by=requested_by,
    )
    return MapsRequest(wishes, sum(done), job_id)


def maps_there(
    app: App,
    *,
    model_id: int,
    image_ids: Sequence[int],
    methods: Sequence[str],
    targets: Mapping[int, Sequence[int | None]],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[int, int]:
    """Return how many of an image's maps were made, for some images; parameters as above."""
    there = dict.fromkeys(image_ids, 0)
    model = get_model(app.store, model_id=model_id)
    for wish in _wishes(app, model, image_ids, methods, targets, settings or {}):
        there[wish.image_id] += picture_path(app.store, wish.key).is_file()
    return there


def _wishes(
    app: App,
    model: ModelView,
    image_ids: Sequence[int],
    methods: Sequence[str],
    targets: Mapping[int, Sequence[int | None]],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[MapWish]:
    """Return the maps of some images by all methods and classes, each once."""
    chosen = {m: checked_settings(app, model, m, settings.get(m)) for m in dict.fromkeys(methods)}
    shas, reading = _image_shas(app.store, model.project_id, image_ids), reading_of(app, model)
    named: dict[int | None, int | None] = {}

    def classes(image_id: int) -> list[int | None]:
        given = targets[image_id]
        named.update((one, target_of(model, one)) for one in given if one not in named)
        return list(dict.fromkeys(named[one] for one in given))

    return [
        MapWish(i, m, t, map_key(model.sha256, shas[i], m, t, chosen[m], reading))
        for i in dict.fromkeys(image_ids)
        for t in classes(i)
        for m in chosen
    ]


def is_checked(facts: Mapping[str, Any]) -> bool:
    """Say whether a map's facts tell how it compares with chance and with random weights."""
    return facts.get("faithfulness") is not None and facts.get("randomisation") is not None


def explain_file(
    app: App,
    *,
    project_id: int,
    path: Path,
    model_id: int,
    method: str = DEFAULT_METHOD,
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
    chosen = checked_settings(app, model, method, settings)
    target_class = None if target is None else class_named(model, target)
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
