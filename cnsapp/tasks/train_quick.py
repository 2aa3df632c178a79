"""Train a quick model: labels as they are now, features that lack, head, file, rows.

Every part can be repeated: features are kept by image, the file is whole before its row, and the
row is written once a job. A run whose worker was killed starts again and finds what was done.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import DEFAULT_BACKBONE
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.ml.bundle import make_bundle, package_versions, save_bundle
from cnsapp.ml.features import N_COLOUR, FeatureExtractor, FeatureLayout, FeatureStore, Floats
from cnsapp.ml.preprocess import TRAIN_VIEWS
from cnsapp.ml.quick import QuickOptions, QuickProgress, QuickResult, train_quick
from cnsapp.services.images import reading_rule
from cnsapp.services.scores import scores_json
from cnsapp.services.tidying import model_path
from cnsapp.tasks.features import compute
from cnsapp.tasks.keep_model import find_result, record_model
from cnsapp.tasks.resources import extractor_of, feature_key, feature_store
from cnsapp.tasks.snapshot import Snapshot, take_snapshot
from db.models import Model

HEAD_STARTS = 0.75  # part of the progress that missing features take
LOADED = 2000  # images whose stages are all in memory at once


def run_quick(app: App, job: JobContext) -> dict[str, Any]:
    """Train and return ``{"model_id", "metrics"}``."""
    project_id = int(job.project_id or 0)
    backbone = str(job.payload.get("backbone", DEFAULT_BACKBONE))
    began = time.monotonic()
    job.progress(0.0, "Loading the network")
    extractor = extractor_of(app, backbone)
    rule = reading_rule(app.store, project_id=project_id)
    snapshot = take_snapshot(app, project_id, rule)
    sources = [image.source for image in snapshot.images]
    n_new, failures = compute(app, job, sources, backbone, rule=rule, span=(0.02, HEAD_STARTS))
    snapshot = snapshot.without(failures)
    result = _learn(app, job, snapshot, extractor, HEAD_STARTS if n_new else 0.1)
    metrics = as_json(_metrics(result, snapshot, time.monotonic() - began))
    job.check_cancelled()
    job.progress(0.98, "Saving the model")
    return _keep(app, job, snapshot, result, metrics, extractor, rule)


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
    made = record_model(
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
