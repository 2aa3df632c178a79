"""Check a model against simpler methods on the same images and folds, and against other stains.

Features are kept by image, each result is stored as soon as it is there, and a training that waits
goes first: what was done is found when the check goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, NotFoundError
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.ml.controls_quick import options_of
from cnsapp.ml.controls_run import (
    CONTROLS,
    LAST,
    LOGISTIC,
    SVM,
    TITLES,
    Inputs,
    control_warnings,
    run_control,
)
from cnsapp.services import jobs
from cnsapp.services.models import ModelView, get_model
from cnsapp.tasks.controls_features import handmade_features, last_layer_features
from cnsapp.tasks.controls_rows import ControlRows, control_rows
from cnsapp.tasks.features import compute
from cnsapp.tasks.resources import extractor_of, feature_key, feature_store
from cnsapp.tasks.stain_shift import stain_shift
from cnsapp.tasks.train_quick import load_stages
from db.models import Job, Model
from db.session import Store

GOES_FIRST = ("train", "search", "features", "looks")
LOOK_SECONDS = 2.0  # between two looks whether one of them waits
HAND, LAST_LAYER, QUICK, FITS = (0.01, 0.25), (0.25, 0.4), (0.4, 0.45), (0.45, 0.75)
SHIFT = (0.75, 0.99)


class OthersWait(Exception):
    """More urgent work waits behind the check, which should end and go on later."""


class _Turn:
    """Stops a check that was cancelled, or that more urgent work waits behind."""

    def __init__(self, app: App, job: JobContext) -> None:
        self._app, self._job, self._next = app, job, 0.0

    def look(self) -> None:
        self._job.check_cancelled()
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        with self._app.store.reading() as session:
            waits = select(Job.id).where(
                Job.kind.in_(GOES_FIRST),
                Job.state == "queued",
                Job.paused.is_(False),
                Job.id > self._job.id,
            )
            if session.scalar(waits.limit(1)) is not None:
                raise OthersWait


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Compute what is missing of a model's controls; return ``{"model_id", ...}``."""
    model_id = int(job.payload["model_id"])
    try:
        model = get_model(app.store, model_id=model_id)
    except NotFoundError:
        if job.payload.get("automatic"):
            return {"model_id": model_id, "gone": True}
        raise
    turn = _Turn(app, job)
    try:
        return _Check(app, job, model, turn.look).run()
    except OthersWait:
        payload = {k: v for k, v in job.payload.items() if k != "again"}
        rest = jobs.submit_job(
            app.store, kind="controls", project_id=job.project_id, payload=payload
        )
        return {"model_id": model_id, "goes_on_as": rest}


class _Check:
    """One check, from the rows to the figures of the model."""

    def __init__(
        self, app: App, job: JobContext, model: ModelView, look: Callable[[], None]
    ) -> None:
        self._app, self._job, self._model, self._look = app, job, model, look
        self._detail: dict[str, Any] = dict(model.metrics.get("controls_detail") or {})

    def run(self) -> dict[str, Any]:
        job = self._job
        job.progress(0.0, "Looking up images, labels and folds of the model")
        rows = control_rows(self._app, self._model)
        if job.payload.get("again"):
            self._detail = {}
        self._detail["notes"] = list(rows.notes)
        todo = [key for key in CONTROLS if not isinstance(self._detail.get(key), dict)]
        if todo:
            inputs = self._inputs(rows, todo)
            self._controls(rows, inputs, todo)
        shift = None if job.payload.get("again") else self._model.metrics.get("stain_shift")
        if shift is None:
            shift = stain_shift(self._app, job, self._model, rows, self._look, SHIFT)
        self._detail["complete"] = True
        found = self._store({"stain_shift": shift})
        job.progress(1.0, "Done")
        return {
            "model_id": self._model.id,
            "controls": {key: self._detail[key]["balanced_accuracy"] for key in CONTROLS
                         if key in self._detail},
            "warnings": found,
        }  # fmt: skip

    def _inputs(self, rows: ControlRows, todo: list[str]) -> Inputs:
        """Return what the controls read; without the network where its weights are gone."""
        app, job, model, sources = self._app, self._job, self._model, rows.sources
        hand = last = None
        if {SVM, LOGISTIC} & set(todo):
            hand = handmade_features(app, job, sources, rows.rule, self._look, HAND)
            self._detail["handmade_features"] = {"n": hand.n_new, "seconds": hand.seconds}
        if LAST in todo:
            try:
                last = last_layer_features(
                    app, job, sources, rows.rule, self._look, LAST_LAYER, model.backbone
                )
                self._detail["last_layer_features"] = {"n": last.n_new, "seconds": last.seconds}
            except CnsError as error:
                self._note(f"Without the last layer: {error.what}")
        quick = colour = None
        try:
            compute(app, job, sources, model.backbone, rule=rows.rule, span=QUICK, pause=self._look)
            extractor = extractor_of(app, model.backbone)
            keys, stages = [feature_key(s) for s in sources], extractor.backbone.row.head_stages
            kept = feature_store(app, extractor)
            quick, colour, _ = load_stages(kept, keys, extractor, stages)
        except CnsError as error:
            self._note(f"Without the features of the network: {error.what}")
        return Inputs(
            colour=colour,
            handmade=None if hand is None else hand.rows,
            last_layer=None if last is None else last.rows,
            quick=quick,
            options=options_of(model.settings.get("options", {})),
        )

    def _controls(self, rows: ControlRows, inputs: Inputs, todo: list[str]) -> None:
        for done, key in enumerate(todo):
            if not inputs.suffice(key):
                continue
            fraction = FITS[0] + (FITS[1] - FITS[0]) * done / len(todo)
            self._job.progress(fraction, TITLES[key])
            self._detail[key] = as_json(
                run_control(key, rows.task, inputs, rows.answers, self._look)
            )
            self._store({})

    def _note(self, sentence: str) -> None:
        self._detail["notes"].append(sentence)

    def _store(self, more: Mapping[str, Any]) -> list[str]:
        """Write what is known so far into the model's figures; return the warnings."""
        store, detail = self._app.store, self._detail
        known = {key: detail[key] for key in CONTROLS if key in detail}
        warnings = control_warnings(self._model.metrics.get("balanced_accuracy"), known)
        earlier = set(detail.get("warnings", []))
        detail["warnings"] = warnings

        def change(metrics: dict[str, Any]) -> dict[str, Any]:
            said = [
                line
                for line in metrics.get("warnings", [])
                if line not in earlier and not _is_about_colour(line, known)
            ]
            numbers = {key: found["balanced_accuracy"] for key, found in known.items()}
            return {
                **metrics,
                **more,
                "controls": {**(metrics.get("controls") or {}), **numbers},
                "controls_detail": dict(detail),
                "warnings": list(dict.fromkeys([*said, *warnings])),
            }

        change_metrics(store, self._model.id, change)
        return warnings


def _is_about_colour(line: str, known: Mapping[str, Any]) -> bool:
    """Whether a sentence of the training is replaced by one of the check."""
    return "colour_only" in known and line.startswith("Colour alone reaches")


def change_metrics(
    store: Store, model_id: int, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Change the figures of a model in one transaction; nothing where it is gone."""
    with store.writing() as session:
        row = session.get(Model, model_id, with_for_update=True)
        if row is not None:
            row.metrics = as_json(change(dict(row.metrics)))
