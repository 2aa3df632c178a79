"""Train a quick model: labels as they are now, features that lack, head, file, rows.

Every part can be repeated: features are kept by image, the file is whole before its row, and the
row is written once a job. A run whose worker was killed starts again and finds what was done.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy import func, insert, select, update

from cnsapp.bootstrap import App
from cnsapp.domain.names import name_key
from cnsapp.domain.presets import DEFAULT_BACKBONE
from cnsapp.domain.readiness import NEEDED_PER_CLASS, ClassCount, assess
from cnsapp.errors import CnsError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.ml.bundle import make_bundle, package_versions, save_bundle
from cnsapp.ml.features import N_COLOUR, FeatureExtractor, FeatureLayout, FeatureStore, Floats
from cnsapp.ml.preprocess import TRAIN_VIEWS
from cnsapp.ml.quick import QuickOptions, QuickProgress, QuickResult, train_quick
from cnsapp.services.images import reading_rule
from cnsapp.services.label_import import PAUSE
from cnsapp.services.models import discard_unready
from cnsapp.services.projects import ClassView, list_classes
from cnsapp.services.scores import scores_json
from cnsapp.services.tidying import model_path
from cnsapp.tasks.features import Failures, compute
from cnsapp.tasks.resources import Source, extractor_of, feature_key, feature_store
from db.models import Image, LabelEvent, Model, Prediction
from db.queries import chunks
from db.session import Store

HEAD_STARTS = 0.75  # part of the progress that missing features take
LOADED = 2000  # images whose stages are all in memory at once


@dataclass(frozen=True)
class Labelled:
    """An image with its label at the start of the run."""

    source: Source
    class_id: int
    event_id: int
    group: str | None


@dataclass(frozen=True)
class Snapshot:
    """The labels that a run learns from, every picture once; later ones do not change it."""

    images: list[Labelled]
    classes: list[ClassView]  # those that are learnt, in the order of the project
    warnings: list[str]
    last_event_id: int

    def without(self, failures: Failures) -> Snapshot:
        """Leave out the images that cannot be read; raise CnsError when too few are left."""
        if not failures.files:
            return self
        left = [i for i in self.images if i.source.image_id not in failures.image_ids]
        first = failures.files[0]
        unread = (
            f"{len(failures.files)} labelled images could not be read and were left out, for "
            f"example {first['file']}: {first['reason']}"
        )
        try:
            rest = _checked(left, self.classes, self.last_event_id)
        except CnsError as error:
            raise CnsError(f"{unread} {error.what}", error.why, error.remedy) from error
        warnings = [*self.warnings, *rest.warnings, unread]
        return replace(rest, warnings=list(dict.fromkeys(warnings)))

    def fingerprint(self) -> str:
        """Return a hash of which image bytes were labelled as which class."""
        pairs = sorted(f"{i.source.sha256}:{i.class_id}" for i in self.images)
        return hashlib.sha256("\n".join(pairs).encode()).hexdigest()


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Train and return ``{"model_id", "metrics"}``."""
    if job.project_id is None:
        raise CnsError("The job names no project.", "", "Start it from the Train page.")
    made = find_result(app.store, job.id)
    if made is not None:
        return made
    backbone = str(job.payload.get("backbone", DEFAULT_BACKBONE))
    began = time.monotonic()
    job.progress(0.0, "Loading the network")
    extractor = extractor_of(app, backbone)
    rule = reading_rule(app.store, project_id=job.project_id)
    snapshot = take_snapshot(app, job.project_id, rule)
    sources = [image.source for image in snapshot.images]
    n_new, failures = compute(app, job, sources, backbone, rule=rule, span=(0.02, HEAD_STARTS))
    snapshot = snapshot.without(failures)
    result = _learn(app, job, snapshot, extractor, HEAD_STARTS if n_new else 0.1)
    metrics = as_json(_metrics(result, snapshot, time.monotonic() - began))
    job.check_cancelled()
    job.progress(0.98, "Saving the model")
    return _keep(app, job, snapshot, result, metrics, extractor, rule)


def find_result(store: Store, job_id: int) -> dict[str, Any] | None:
    """Return what a run that was killed after its last transaction had made, or None."""
    with store.reading() as session:
        row = session.execute(
            select(Model.id, Model.metrics).where(Model.job_id == job_id, Model.ready.is_(True))
        ).one_or_none()
    return None if row is None else {"model_id": row[0], "metrics": row[1]}


def take_snapshot(app: App, project_id: int, rule: ReadingRule) -> Snapshot:
    """Return the labels of now; raise CnsError when they do not suffice (any more)."""
    with app.store.reading() as session:
        last_event_id = session.scalar(select(func.max(LabelEvent.id))) or 0
        rows = session.execute(
            select(
                Image.id,
                Image.sha256,
                Image.stored_path,
                Image.file_name,
                Image.facts,
                Image.current_class_id,
                Image.current_event_id,
                Image.group_key,
            )
            .where(
                Image.project_id == project_id,
                Image.status == "ok",
                Image.current_state == "label",
            )
            .order_by(Image.id)
        ).all()
    images = [
        Labelled(
            Source(i, sha, app.store.path(path), name, rule.seen(facts)),
            int(c or 0),
            int(event or 0),
            name_key(group) if group else None,  # “P07” and “p07 ” are one patient
        )
        for i, sha, path, name, facts, c, event, group in rows
    ]
    # read after the labels: a class that is added meanwhile is known then
    classes = list_classes(app.store, project_id=project_id)
    unique, warnings = one_of_each(images)
    snapshot = _checked(unique, classes, last_event_id)
    return replace(snapshot, warnings=[*snapshot.warnings, *warnings])


def one_of_each(images: list[Labelled]) -> tuple[list[Labelled], list[str]]:
    """Return one image for each bytes, and what to say about the others.

    Copies would be learnt from and scored on at once. A picture whose copies are labelled
    differently is left out whole: one of the labels is wrong.
    """
    of_bytes: dict[str, list[Labelled]] = {}
    for image in images:
        of_bytes.setdefault(image.source.sha256, []).append(image)
    agreed = {sha: same for sha, same in of_bytes.items() if len({i.class_id for i in same}) == 1}
    n_copies = sum(len(same) - 1 for same in agreed.values())
    n_torn = len(of_bytes) - len(agreed)
    warnings = []
    if n_copies:
        warnings.append(
            f"Images whose bytes are the same count once: {n_copies} copies were left out of "
            "training and score."
        )
    if n_torn:
        torn = next(same for sha, same in of_bytes.items() if sha not in agreed)
        warnings.append(
            f"Same picture, different labels: {n_torn} left out, for example "
            f"{torn[0].source.name} and {torn[1].source.name}. Make their labels agree."
        )
    return [same[0] for same in agreed.values()], warnings


def _checked(images: list[Labelled], classes: list[ClassView], last_event_id: int) -> Snapshot:
    of_class: dict[int, list[Labelled]] = {c.id: [] for c in classes}
    for image in images:
        of_class[image.class_id].append(image)
    groups = {c: {i.group for i in of_class[c]} - {None} for c in of_class}
    counts = [ClassCount(c.name, len(of_class[c.id]), len(groups[c.id])) for c in classes]
    verdict = assess(counts, len(images), len(set().union(*groups.values())))
    if not verdict.ok:
        raise CnsError(" ".join(verdict.problems), "", "Label more images, then train again.")
    learnt = [c for c in classes if len(of_class[c.id]) >= NEEDED_PER_CLASS]
    ids = {c.id for c in learnt}
    # of groups the plan of the folds will speak, which knows more
    warnings = [line for line in verdict.warnings if line not in verdict.about_groups]
    return Snapshot([i for i in images if i.class_id in ids], learnt, warnings, last_event_id)


def _learn(
    app: App,
    job: JobContext,
    snapshot: Snapshot,
    extractor: FeatureExtractor,
    start: float,
) -> QuickResult:
    keys = [feature_key(i.source) for i in snapshot.images]
    stages = extractor.backbone.row.head_stages
    network, colour, layout = load_stages(feature_store(app, extractor), keys, extractor, stages)
    place = {c.id: k for k, c in enumerate(snapshot.classes)}
    has_groups = any(i.group for i in snapshot.images)

    def report(at: QuickProgress) -> None:
        job.check_cancelled()
        fraction = start + (0.97 - start) * at.done / max(at.total, 1)
        values = {} if at.balanced_accuracy is None else {
            "step": at.done, "balanced_accuracy": at.balanced_accuracy,
        }  # fmt: skip
        job.progress(fraction, at.message, **values)

    given = job.payload.get("options", {})
    names = ("n_folds", "threshold", "scheme")
    return train_quick(
        network,
        colour,
        np.array([place[i.class_id] for i in snapshot.images], dtype=np.int64),
        [i.group for i in snapshot.images] if has_groups else None,
        [i.source.name for i in snapshot.images],
        [c.id for c in snapshot.classes],
        QuickOptions(**{name: given[name] for name in names if name in given}),
        report,
        seed=int(given.get("seed", 0)),
        layout=layout,
        stages=stages,
        class_names=[c.name for c in snapshot.classes],
    )


def load_stages(
    kept: FeatureStore, keys: Sequence[str], extractor: FeatureExtractor, stages: Sequence[str]
) -> tuple[Floats, Floats, FeatureLayout]:
    """Return what the head reads, part by part: all stages of 100,000 images fill the memory.

    Returns
    -------
    Network features (N, V, D) of these stages, clean colour (N, 6), and where each stage lies.
    """
    columns = extractor.layout.columns(stages)
    network = np.empty((len(keys), len(TRAIN_VIEWS), len(columns)), np.float32)
    colour = np.empty((len(keys), N_COLOUR), np.float32)
    for start in range(0, len(keys), LOADED):
        part = slice(start, start + LOADED)
        rows, colour[part] = extractor.layout.split(kept.load(keys[part], TRAIN_VIEWS))
        network[part] = rows[:, :, columns]
    return network, colour, _only(extractor.layout, stages)


def _only(layout: FeatureLayout, names: Sequence[str]) -> FeatureLayout:
    """Return the layout of rows that hold these stages alone."""
    found, stop = [], 0
    for name, a, b in layout.stages:
        if name in names:
            found.append((name, stop, stop + b - a))
            stop += b - a
    return FeatureLayout(tuple(found))


def _metrics(result: QuickResult, snapshot: Snapshot, seconds: float) -> dict[str, Any]:
    found = result.metrics_json()
    names = {"colour": "colour_only"}
    warnings = list(dict.fromkeys([*snapshot.warnings, *result.warnings]))
    return scores_json(result.evaluation, result.class_ids, result.class_names) | {
        "scheme": result.scheme,
        "n_folds": found["n_folds"],
        "controls": {names.get(k, k): v for k, v in result.controls.items()},
        "warnings": warnings,
        "temperature": result.temperature,
        "ece": result.calibration_error,
        "strength": result.strength,
        "stages": list(result.stages),
        "n_trained": len(snapshot.images),
        "seconds": round(seconds, 2),
    }


def _keep(
    app: App,
    job: JobContext,
    snapshot: Snapshot,
    result: QuickResult,
    metrics: dict[str, Any],
    extractor: FeatureExtractor,
    rule: ReadingRule,
) -> dict[str, Any]:
    """Write the file, then the rows of predictions and model; once a job, whatever comes."""
    settings = as_json(
        {
            "preset": "quick",
            "options": job.payload.get("options", {}),
            "reading": rule.as_json(),
            "threshold": result.threshold,
            "last_event_id": snapshot.last_event_id,
            "n_images": len(snapshot.images),
            "fingerprint": snapshot.fingerprint(),
            "class_names": result.class_names,
            "features": extractor.spec_id,
            "versions": package_versions(),
        }
    )
    bundle = make_bundle(
        result, extractor, data_fingerprint=snapshot.fingerprint(), settings=settings
    )
    path = model_path(job.id, uuid.uuid4().hex)
    sha256 = save_bundle(app.store.path(path), bundle)
    made = _record(
        app.store,
        Model(
            project_id=job.project_id,
            job_id=job.id,
            name=str(job.payload.get("options", {}).get("name") or ""),
            preset="quick",
            backbone=extractor.backbone.row.id,
            path=path,
            sha256=sha256,
            metrics=metrics,
            class_ids=result.class_ids,
            settings=settings,
            ready=False,
        ),
        _prediction_rows(snapshot, result),
    )
    if made is None:  # another worker was quicker with the same job
        app.store.path(path).unlink(missing_ok=True)
    return find_result(app.store, job.id) or {}


def _record(store: Store, model: Model, rows: list[dict[str, Any]]) -> int | None:
    """Write predictions in short transactions, then let the model be seen; return its number.

    In one transaction 100,000 rows would hold up for seconds whoever labels meanwhile.
    """
    discard_unready(store, job_id=model.job_id or 0)
    with store.writing() as session:
        session.add(model)
        session.flush()
    for part in chunks(rows):
        with store.writing() as session:
            session.execute(insert(Prediction), [row | {"model_id": model.id} for row in part])
        time.sleep(PAUSE)
    seen = select(func.count()).select_from(Model).where(Model.ready.is_(True))
    with store.writing() as session:
        if not session.scalar(seen.where(Model.job_id == model.job_id)):
            n = session.scalar(seen.where(Model.project_id == model.project_id)) or 0
            session.execute(
                update(Model)
                .where(Model.id == model.id)
                .values(ready=True, name=model.name or f"Quick {n + 1}")
            )
            return model.id
    discard_unready(store, job_id=model.job_id or 0)
    return None


def _prediction_rows(snapshot: Snapshot, result: QuickResult) -> list[dict[str, Any]]:
    """Return the out-of-fold answers; images that could not be held out have none."""
    rows = []
    for image, p, fold in zip(snapshot.images, result.probabilities, result.folds, strict=True):
        if np.isnan(p).any():
            continue
        best = int(p.argmax())
        rows.append(
            {
                "image_id": image.source.image_id,
                "class_id": result.class_ids[best],
                "probability": float(p[best]),
                "fold": int(fold),
                "probabilities": [round(float(value), 6) for value in p],
                "label_class_id": image.class_id,
                "event_id": image.event_id,
            }
        )
    return rows
