"""How a model's score falls when its images are stained or lit otherwise.

Every image is judged by what has not seen it: the head of its fold, fitted again (the same rows and
seed give the same head), or the network itself on the images that were held back from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.jobs.context import JobContext
from cnsapp.ml.bundle import load_bundle
from cnsapp.ml.controls_fit import NOT_SCORED, Check, Task
from cnsapp.ml.controls_quick import fold_logits, options_of
from cnsapp.ml.controls_run import pick_groups
from cnsapp.ml.features import FeatureExtractor, FeatureStore, Floats
from cnsapp.ml.held_out import QuickOptions
from cnsapp.ml.preprocess import CLEAN, Pixels
from cnsapp.ml.stain_shift import MOST_IMAGES, SHIFTS, Shift, curve, shifted
from cnsapp.services.models import ModelView, check_model_file
from cnsapp.tasks.controls_features import pictures_of
from cnsapp.tasks.controls_rows import ControlRows, is_held_out_once
from cnsapp.tasks.resources import extractor_of, feature_key, feature_store, predictor_of
from cnsapp.tasks.train_quick import load_stages

Ints = NDArray[np.int64]
CHUNK = 32  # images between two looks at "cancel"
AS_BEFORE = 0.98  # share of answers that a refitted head must give again to be the one that judged
FOLDS_ONLY = (
    "Scored by folds, a fine-tuned model keeps only its published network, which has seen every "
    "image: other stains cannot be tried on it. Train with `evaluate=holdout` for that."
)


def stain_shift(
    app: App,
    job: JobContext,
    model: ModelView,
    rows: ControlRows,
    look: Check,
    span: tuple[float, float],
) -> dict[str, Any]:
    """Return the curve as plain data (see `cnsapp.ml.stain_shift.curve`), or why there is none."""
    began = time.monotonic()
    task = rows.task
    asked = np.flatnonzero((task.folds != NOT_SCORED) & (rows.answers != NOT_SCORED))
    chosen = task.some(asked, MOST_IMAGES)
    tell = _teller(job, span)
    if model.metrics.get("head") == "network":
        if not is_held_out_once(model):
            return {"n": 0, "why_not": FOLDS_ONLY}
        again, answers = _by_network(app, model, rows, chosen, look, tell)
    else:
        try:
            again, answers = _by_heads(app, model, rows, chosen, look, tell)
        except CnsError as error:
            return {"n": 0, "why_not": str(error)}
    same = float((again == rows.answers[chosen]).mean())
    groups = pick_groups(task, chosen)
    found = curve(
        task.labels[chosen], answers, rows.answers[chosen], task.n_classes, groups, task.seed
    )
    return found | {
        "answers_again": same,
        "note": "" if same >= AS_BEFORE else (
            f"Judged again without any change, {1 - same:.0%} of the answers differ from those of "
            "the training, since labels, groups or program versions have changed."
        ),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _teller(job: JobContext, span: tuple[float, float]) -> Callable[[int], None]:
    def tell(done: int) -> None:
        share = done / len(SHIFTS)
        job.progress(
            span[0] + (span[1] - span[0]) * share,
            f"Other stains and light: {done} of {len(SHIFTS)}",
        )

    return tell


def _pictures(app: App, rows: ControlRows, chosen: Ints, size: int, look: Check) -> list[Pixels]:
    todo = [(feature_key(rows.sources[i]), rows.sources[i]) for i in chosen]
    found = []
    for _, picture in pictures_of(app, todo, size, rows.rule):
        look()
        found.append(picture)
    return found


def _by_network(
    app: App,
    model: ModelView,
    rows: ControlRows,
    chosen: Ints,
    look: Check,
    tell: Callable[[int], None],
) -> tuple[Ints, dict[Shift, Ints]]:
    loaded = predictor_of(app, model)
    pictures = _pictures(app, rows, chosen, loaded.size, look)
    keys = [feature_key(rows.sources[i]) for i in chosen]

    def ask(images: list[Pixels]) -> Ints:
        said = []
        for start in range(0, len(images), CHUNK):
            look()
            with loaded.lock:
                said.append(loaded.predictor.predict(images[start : start + CHUNK]).argmax(1))
        return np.concatenate(said)

    answers = {}
    for done, shift in enumerate(SHIFTS):
        tell(done)
        answers[shift] = ask(shifted(pictures, keys, shift))
    return ask(pictures), answers


def _by_heads(
    app: App,
    model: ModelView,
    rows: ControlRows,
    chosen: Ints,
    look: Check,
    tell: Callable[[int], None],
) -> tuple[Ints, dict[Shift, Ints]]:
    extractor = extractor_of(app, model.backbone)
    if model.settings.get("features") != extractor.spec_id:
        raise CnsError(
            "The features of this model are not those of today's network or version.",
            "The heads of its folds cannot be fitted again.",
            "Train again to see how it bears other stains.",
        )
    stages, kept = extractor.backbone.row.head_stages, feature_store(app, extractor)
    columns = extractor.layout.columns(stages)
    keys = [feature_key(source) for source in rows.sources]
    x, _, _ = load_stages(kept, keys, extractor, stages)
    mine = [keys[i] for i in chosen]
    views = load_bundle(check_model_file(app, model_id=model.id), model.sha256).predict_views
    _extract(app, rows, chosen, mine, extractor, kept, views, look, tell)
    changed: dict[Shift, Floats] = {
        shift: kept.load(mine, [_name(shift, view) for view in views])[:, :, columns]
        for shift in SHIFTS
    }
    answered = None if views == (CLEAN,) else kept.load(keys, views)[:, :, columns]
    again = np.full(len(chosen), NOT_SCORED)
    answers = {shift: np.full(len(chosen), NOT_SCORED) for shift in SHIFTS}
    options = options_of(model.settings.get("options", {}))
    for train, held in rows.task.parts():
        look()
        mask = np.isin(chosen, held)
        if not mask.any():
            continue
        said = _fold_answers(rows.task, x, answered, chosen, mask, train, changed, options)
        again[mask] = said[0]
        for place, shift in enumerate(SHIFTS):
            answers[shift][mask] = said[1 + place]
    return again, answers


def _fold_answers(
    task: Task,
    x: Floats,
    answered: Floats | None,
    chosen: Ints,
    mask: NDArray[np.bool_],
    train: Ints,
    changed: dict[Shift, Floats],
    options: QuickOptions,
) -> Ints:
    """Return what one fold's head says (1 + shifts, n): of the images as they are, then shifted."""
    read = x[:, :1] if answered is None else answered  # (N, W, D): the views of a prediction
    parts = [read[chosen[mask]]] + [changed[shift][mask] for shift in SHIFTS]
    logits = fold_logits(
        task, task.labels, train, x[train], np.concatenate(parts), options, read[train]
    )
    return np.asarray(logits.argmax(1).reshape(len(parts), -1), np.int64)


def _name(shift: Shift, view: str) -> str:
    return shift.view if view == CLEAN else f"{shift.view}-{view}"


def _extract(
    app: App,
    rows: ControlRows,
    chosen: Ints,
    keys: list[str],
    extractor: FeatureExtractor,
    kept: FeatureStore,
    views: Sequence[str],
    look: Check,
    tell: Callable[[int], None],
) -> None:
    """Compute the features of shifted images that are not kept yet."""
    pictures: list[Pixels] = []
    for done, shift in enumerate(SHIFTS):
        tell(done)
        missing = {key for view in views for key in kept.missing(keys, _name(shift, view))}
        if not missing:
            continue
        if not pictures:
            pictures = _pictures(app, rows, chosen, extractor.preprocessing.size, look)
        todo = [i for i, key in enumerate(keys) if key in missing]
        for start in range(0, len(todo), CHUNK):
            look()
            part = todo[start : start + CHUNK]
            names = [keys[i] for i in part]
            images = shifted([pictures[i] for i in part], names, shift)
            found = extractor.extract_views(images, views, names)
            for v, view in enumerate(views):
                kept.put(names, _name(shift, view), found[:, v])
