"""Train a quick model: labels as they are now, features that lack, head, test score, file, rows.

The locked test set is not learnt from and takes part in no choice: it is answered once, by the
finished head.

Every part can be repeated: features are kept by image, the file is whole before its row, and the
row is written once a job. A run whose worker was killed starts again and finds what was done.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.domain.calibration import expected_calibration_error
from cnsapp.domain.metrics import Evaluation, evaluate
from cnsapp.domain.recipe import DEFAULT_BACKBONE, Recipe, make_recipe
from cnsapp.domain.together import known_groups
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.ml.bundle import make_bundle, package_versions, save_bundle
from cnsapp.ml.features import N_COLOUR, FeatureExtractor, FeatureLayout, FeatureStore, Floats
from cnsapp.ml.finetuned import views_of
from cnsapp.ml.preprocess import CLEAN, TRAIN_VIEWS
from cnsapp.ml.quick import QuickOptions, QuickProgress, QuickResult, train_quick
from cnsapp.services.images import reading_rule
from cnsapp.services.jobs import get_job
from cnsapp.services.scores import scores_json
from cnsapp.services.split_uses import note_use
from cnsapp.services.tidying import model_path
from cnsapp.tasks.features import compute
from cnsapp.tasks.keep_model import find_result, record_model
from cnsapp.tasks.resources import extractor_of, feature_key, feature_store
from cnsapp.tasks.snapshot import Labelled, Snapshot, take_snapshot
from db.models import Model, SplitUse

HEAD_STARTS = 0.75  # part of the progress that missing features take
PURPOSE = "the score of a new model"
LOADED = 2000  # images whose stages are all in memory at once


@dataclass(frozen=True)
class _Run:
    """What a run is about, from its labels to its rows."""

    app: App
    job: JobContext
    recipe: Recipe
    snapshot: Snapshot
    rule: ReadingRule
    extractor: FeatureExtractor

    @property
    def views(self) -> tuple[str, ...]:
        """Views averaged at prediction, and in every figure."""
        return views_of(self.recipe)

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages that the head reads."""
        return self.extractor.backbone.row.head_stages


@dataclass(frozen=True)
class _Tested:
    """What the finished model says of the locked test set: (N, K) probabilities, its figures."""

    images: list[Labelled]
    probabilities: NDArray[np.float64]
    evaluation: Evaluation
    calibration_error: float | None


def run_quick(app: App, job: JobContext) -> dict[str, Any]:
    """Train and return ``{"model_id", "metrics"}``."""
    project_id = int(job.project_id or 0)
    backbone = str(job.payload.get("backbone", DEFAULT_BACKBONE))
    recipe = make_recipe("quick", job.payload.get("options", {}))
    began = time.monotonic()
    job.progress(0.0, "Loading the network")
    extractor = extractor_of(app, backbone)
    rule = reading_rule(app.store, project_id=project_id)
    snapshot = take_snapshot(app, project_id, rule, column=recipe.column)
    sources = [image.source for image in snapshot.images]
    views = tuple(dict.fromkeys([*TRAIN_VIEWS, *views_of(recipe)]))
    n_new, failures = compute(
        app, job, sources, backbone, rule=rule, span=(0.02, HEAD_STARTS), views=views
    )
    run = _Run(app, job, recipe, snapshot.without(failures), rule, extractor)
    result = _learn(run, HEAD_STARTS if n_new else 0.1)
    tested = _test(run, result)
    metrics = _metrics(result, run.snapshot, time.monotonic() - began)
    if tested is not None and recipe.score_test:
        metrics["test"] = _test_figures(run, tested, result)
    job.check_cancelled()
    job.progress(0.98, "Saving the model")
    return _keep(run, result, tested, as_json(metrics))


def _learn(run: _Run, start: float) -> QuickResult:
    """Choose and fit a head on what may be learnt from."""
    job, recipe, images = run.job, run.recipe, run.snapshot.learning
    keys = [feature_key(i.source) for i in images]
    kept = feature_store(run.app, run.extractor)
    network, colour, layout = load_stages(kept, keys, run.extractor, run.stages)
    answered = None
    if run.views != (CLEAN,):
        answered, _, _ = load_stages(kept, keys, run.extractor, run.stages, run.views)
    has_groups = any(i.group for i in images)

    def report(at: QuickProgress) -> None:
        job.check_cancelled()
        fraction = start + (0.97 - start) * at.done / max(at.total, 1)
        values = {} if at.balanced_accuracy is None else {
            "step": at.done, "balanced_accuracy": at.balanced_accuracy,
        }  # fmt: skip
        job.progress(fraction, at.message, **values)

    return train_quick(
        network,
        colour,
        _places(run.snapshot, images),
        [i.group for i in images] if has_groups else None,
        [i.source.name for i in images],
        [c.id for c in run.snapshot.classes],
        QuickOptions(head=recipe.head, threshold=recipe.threshold, predict_views=run.views),
        report,
        seed=recipe.seed,
        layout=layout,
        stages=run.stages,
        class_names=[c.name for c in run.snapshot.classes],
        plan=run.snapshot.plan_folds(
            scheme=recipe.scheme or None, n_folds=recipe.n_folds, seed=recipe.seed
        ),
        answered=answered,
        pictures=[i.picture for i in images],
    )


def _places(snapshot: Snapshot, images: Sequence[Labelled]) -> NDArray[np.int64]:
    """Return the position of each image's class among those that are learnt."""
    place = {c.id: k for k, c in enumerate(snapshot.classes)}
    return np.array([place[i.class_id] for i in images], dtype=np.int64)


def _test(run: _Run, result: QuickResult) -> _Tested | None:
    """Answer the locked test set by the finished model; None where there is none."""
    known = set(result.class_ids)
    images = [image for image in run.snapshot.testing if image.class_id in known]
    if not images:
        return None
    keys = [feature_key(i.source) for i in images]
    kept = feature_store(run.app, run.extractor)
    x, _, _ = load_stages(kept, keys, run.extractor, run.stages, run.views)
    p = result.answer(x)
    y = np.array([result.class_ids.index(i.class_id) for i in images], dtype=np.int64)
    order = np.argsort(-p, axis=1, kind="stable")
    groups = [i.group for i in images]
    k = len(result.class_ids)
    found = evaluate(
        y, order[:, 0], k, known_groups(groups), run.recipe.seed,
        second=order[:, 1] if k > 2 else None,
    )  # fmt: skip
    return _Tested(images, p, found, expected_calibration_error(p, y))


def _test_figures(run: _Run, tested: _Tested, result: QuickResult) -> dict[str, Any]:
    """Note that the test set was looked at, and return its figures with the number of looks."""
    assert run.snapshot.split_id is not None  # only a split has a test set
    who = get_job(run.app.store, job_id=run.job.id).requested_by
    with run.app.store.writing() as session:
        n = note_use(
            session, split_id=run.snapshot.split_id, job_id=run.job.id, who=who, purpose=PURPOSE
        )
    return scores_json(tested.evaluation, result.class_ids, result.class_names) | {
        "ece": tested.calibration_error,
        "n_uses": n,
    }


def load_stages(
    kept: FeatureStore,
    keys: Sequence[str],
    extractor: FeatureExtractor,
    stages: Sequence[str],
    views: Sequence[str] = TRAIN_VIEWS,
) -> tuple[Floats, Floats, FeatureLayout]:
    """Return what the head reads, part by part: all stages of 100,000 images fill the memory.

    Returns
    -------
    Network features (N, V, D) of these stages, colour of the first view (N, 6), and where each
    stage lies.
    """
    columns = extractor.layout.columns(stages)
    network = np.empty((len(keys), len(views), len(columns)), np.float32)
    colour = np.empty((len(keys), N_COLOUR), np.float32)
    for start in range(0, len(keys), LOADED):
        part = slice(start, start + LOADED)
        rows, colour[part] = extractor.layout.split(kept.load(keys[part], views))
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
        "score_of": "folds",
        "head": result.head_kind,
        "test": None,
        "scheme": result.scheme,
        "n_folds": found["n_folds"],
        "views": list(result.predict_views),
        "controls": {names.get(k, k): v for k, v in result.controls.items()},
        "warnings": warnings,
        "temperature": result.temperature,
        "ece": result.calibration_error,
        "strength": result.strength,
        "stages": list(result.stages),
        "n_trained": len(snapshot.learning),
        "seconds": round(seconds, 2),
    }


def _keep(
    run: _Run, result: QuickResult, tested: _Tested | None, metrics: dict[str, Any]
) -> dict[str, Any]:
    """Write the file, then the rows of predictions and model; once a job, whatever comes."""
    app, job, snapshot = run.app, run.job, run.snapshot
    settings = as_json(
        {
            "preset": "quick",
            "options": job.payload.get("options", {}),
            "recipe": run.recipe.as_json(),
            "reading": run.rule.as_json(),
            "threshold": result.threshold,
            "last_event_id": snapshot.last_event_id,
            "n_images": len(snapshot.images),
            "fingerprint": snapshot.fingerprint(),
            "ties": snapshot.ties,
            "class_names": result.class_names,
            "features": run.extractor.spec_id,
            "versions": package_versions(),
        }
    )
    bundle = make_bundle(
        result, run.extractor, data_fingerprint=snapshot.fingerprint(), settings=settings
    )
    path = model_path(job.id, uuid.uuid4().hex)
    sha256 = save_bundle(app.store.path(path), bundle)
    rows = _prediction_rows(snapshot.learning, result.probabilities, result, "fold")
    if tested is not None:
        rows += _prediction_rows(tested.images, tested.probabilities, result, "test")
    made = record_model(
        app.store,
        Model(
            project_id=job.project_id,
            job_id=job.id,
            name=run.recipe.name,
            preset="quick",
            backbone=run.extractor.backbone.row.id,
            path=path,
            sha256=sha256,
            metrics=metrics,
            class_ids=result.class_ids,
            settings=settings,
            split_id=snapshot.split_id,
            ready=False,
        ),
        rows,
    )
    if made is None:  # another worker was quicker with the same job
        app.store.path(path).unlink(missing_ok=True)
    elif tested is not None:
        with app.store.writing() as session:
            session.execute(
                update(SplitUse)
                .where(SplitUse.job_id == job.id, SplitUse.purpose == PURPOSE)
                .values(model_id=made)
            )
    return find_result(app.store, job.id) or {}


def _prediction_rows(
    images: Sequence[Labelled], probabilities: NDArray[np.float64], result: QuickResult, part: str
) -> list[dict[str, Any]]:
    """Return answers of what had not seen the images; those that could not be held out have none.

    `part` is `fold` or `test`: only answers of folds have a fold.
    """
    folds = result.folds if part == "fold" else [None] * len(images)
    rows = []
    for image, p, fold in zip(images, probabilities, folds, strict=True):
        if np.isnan(p).any():
            continue
        best = int(p.argmax())
        rows.append(
            {
                "image_id": image.source.image_id,
                "class_id": result.class_ids[best],
                "probability": float(p[best]),
                "part": part,
                "fold": None if fold is None else int(fold),
                "probabilities": [round(float(value), 6) for value in p],
                "label_class_id": image.class_id,
                "event_id": image.event_id,
            }
        )
    return rows
