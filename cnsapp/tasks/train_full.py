"""Fine-tune the whole network: pictures once, networks epoch by epoch, scores, file, rows.

Every part can be repeated. What is settled (labels, who learns from what) and every finished epoch
lie in the run's folder (`services.run_folders`), so that a run that was killed, paused or stopped
by a full disk goes on from there, and ends with the same figures.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import DEFAULT_BACKBONE, Recipe, make_recipe
from cnsapp.errors import Cancelled, CnsError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.ml.backbones import build_backbone
from cnsapp.ml.bundle import package_versions, save_bundle
from cnsapp.ml.device import choose_device, describe_device
from cnsapp.ml.finetune import Finetuner
from cnsapp.ml.finetune_types import FitData
from cnsapp.ml.finetuned import FittedNetwork
from cnsapp.services.images import reading_rule
from cnsapp.services.jobs import get_job
from cnsapp.services.run_folders import remove_run_folder, run_folder
from cnsapp.services.scores import scores_json
from cnsapp.services.split_uses import note_use
from cnsapp.services.tidying import model_path
from cnsapp.tasks.full_fit import Answers, Fitting
from cnsapp.tasks.full_pictures import decode
from cnsapp.tasks.full_report import (
    Scored,
    metrics_of,
    prediction_rows,
    score_held_out,
    score_test,
    simple_controls,
)
from cnsapp.tasks.full_run import FullRun, adopt, load_run, save_run, settle
from cnsapp.tasks.full_telling import Telling
from cnsapp.tasks.keep_model import find_result, record_model
from cnsapp.tasks.snapshot import take_snapshot
from cnsapp.weights_files import get_facts
from db.models import Model, SplitUse

DECODE_SPAN = (0.01, 0.06)
PURPOSE = "the score of a new model"


def run_full(app: App, job: JobContext) -> dict[str, Any]:
    """Train and return ``{"model_id", "metrics"}``."""
    try:
        made = _FullTraining(app, job).run()
    except Cancelled:
        if job.is_unwanted:
            remove_run_folder(app.store, job.id)
        raise
    remove_run_folder(app.store, job.id)
    return made


class _FullTraining:
    """One run, from the labels to the rows of its model."""

    def __init__(self, app: App, job: JobContext) -> None:
        self._app, self._job = app, job
        self._options = dict(job.payload.get("options", {}))
        self._backbone = str(job.payload.get("backbone", DEFAULT_BACKBONE))
        self._recipe: Recipe = make_recipe(str(job.payload["preset"]), self._options)
        self._folder: Path = run_folder(app.store, job.id)
        self._weights = app.store.path("weights")

    def run(self) -> dict[str, Any]:
        """Train, score, record."""
        self._job.progress(0.0, "Loading the network")
        wish = self._recipe.device
        self._device = choose_device(self._app.settings.device if wish == "auto" else wish)
        run, pixels = self._settled()
        self._say_where(run)
        telling = Telling(self._job, run.parts, self._recipe.epochs)
        answers: list[Answers] = []
        network: FittedNetwork | None = None
        for number, part in enumerate(run.parts):
            telling.begin(number)
            published = number == len(run.parts) - 1
            kept = None if published else Answers.load(self._folder / f"{part.name}.npz")
            if kept is None:
                kept, network = self._fit(run, number, pixels, telling)
            answers.append(kept)
        assert network is not None  # the last one is always asked for its weights
        self._job.progress(0.97, "Scores and controls")
        return self._record(run, answers, network, pixels)

    def _settled(self) -> tuple[FullRun, NDArray[np.uint8]]:
        """Return the run as it was settled, or settle it now; with its pictures."""
        run = load_run(self._folder)
        if run is None:
            began = time.monotonic()
            rule = reading_rule(self._app.store, project_id=int(self._job.project_id or 0))
            snapshot = take_snapshot(
                self._app, int(self._job.project_id or 0), rule, column=self._recipe.column
            )
            size = self._image_size()
            sources = [i.source for i in [*snapshot.learning, *snapshot.testing]]
            pixels, failures = decode(self._app, self._job, sources, rule, size, span=DECODE_SPAN)
            kept = snapshot.without(failures)
            wanted = settle(
                snapshot, kept, self._recipe, rule, size=size, device=self._device.name,
                seconds=time.monotonic() - began,
            )  # fmt: skip
            before = adopt(self._app, self._job, wanted)
            run = load_run(self._folder) if before is not None else None
            if run is not None:
                self._job.point(f"Goes on from the epochs that job {before} had finished.")
                return run, self._pictures_again(run)
            run = wanted
            save_run(self._folder, run)
            return run, pixels
        return run, self._pictures_again(run)

    def _pictures_again(self, run: FullRun) -> NDArray[np.uint8]:
        """Return the pictures of a run that goes on; a file that is gone since costs nothing."""
        sources = [image.source for image in run.images]
        rule = ReadingRule.from_json(run.rule)
        pixels, failures = decode(self._app, self._job, sources, rule, run.size, span=DECODE_SPAN)
        lost = failures.image_ids & {run.images[i].source.image_id for i in run.used_rows()}
        if lost:
            raise CnsError(
                f"{len(lost)} pictures of this run can no longer be read, for example "
                f"{failures.files[0]['file']}: {failures.files[0]['reason']}",
                "Their decoded copies were cleared away while the run waited.",
                "Put the files back and start the training again, or train on what is left.",
            )
        return pixels

    def _image_size(self) -> int:
        asked = self._recipe.image_size or get_facts(self._backbone, self._weights).input_size
        if asked:
            return asked
        return build_backbone(self._backbone, self._weights).row.preprocessing.size

    def _say_where(self, run: FullRun) -> None:
        if run.device == self._device.name:
            return
        self._job.point(
            f"The run began on {run.device} and goes on on: {describe_device(self._device)} "
            "Speed and the last digits of the figures may differ."
        )

    def _fit(
        self, run: FullRun, number: int, pixels: NDArray[np.uint8], telling: Telling
    ) -> tuple[Answers, FittedNetwork]:
        part = run.parts[number]
        published = number == len(run.parts) - 1
        data = FitData(
            pixels, run.labels, part.train, part.validation, run.class_ids, run.class_names,
            run.units(range(len(run.images))),
        )  # fmt: skip
        self._job.progress(DECODE_SPAN[1], f"Loading the network on the {self._device.name}")
        tuner = Finetuner(
            self._backbone, data, self._recipe, self._device, self._folder / part.name,
            weights_dir=self._weights, on_batch=telling.batch, cancelled=self._job.is_stopping,
        )  # fmt: skip
        fitting = Fitting(self._job, part, tuner, telling)
        if number == 0:
            fitting.test_once()
        records = fitting.epochs()
        network = fitting.finish(records)
        test = run.test if published else run.test[:0]
        answers = fitting.answers(network, records, pixels, test)
        if not published:  # the published one's weights are still needed
            answers.save(self._folder / f"{part.name}.npz")
            tuner.forget()
        return answers, network

    def _record(
        self,
        run: FullRun,
        answers: list[Answers],
        network: FittedNetwork,
        pixels: NDArray[np.uint8],
    ) -> dict[str, Any]:
        """Write the file, then the rows of predictions and model; once a job, whatever comes."""
        app, job, seed = self._app, self._job, self._recipe.seed
        scored = score_held_out(run, answers, seed)
        controls = simple_controls(run, scored, pixels)
        metrics = metrics_of(run, scored, answers, controls, self._device_notes(run))
        test = score_test(run, answers[-1], seed)
        rows = prediction_rows(run, scored, "fold")
        if test is not None:
            if self._recipe.score_test:
                metrics["test"] = self._test_figures(run, test)
            rows += prediction_rows(run, test, "test")
        metrics = as_json(metrics | {"device": self._device.name})
        job.check_cancelled()
        job.progress(0.98, "Saving the model")
        settings = self._settings(run)
        bundle = network.bundle(
            threshold=self._recipe.threshold, data_fingerprint=run.fingerprint,
            settings=settings, metrics=metrics,
        )  # fmt: skip
        path = model_path(job.id, uuid.uuid4().hex)
        sha256 = save_bundle(app.store.path(path), bundle)
        made = record_model(
            app.store,
            Model(
                project_id=job.project_id,
                job_id=job.id,
                name=self._recipe.name,
                preset=self._recipe.preset,
                backbone=self._backbone,
                path=path,
                sha256=sha256,
                metrics=metrics,
                class_ids=run.class_ids,
                settings=settings,
                split_id=run.split_id,
                ready=False,
            ),
            rows,
        )
        if made is None:  # another worker was quicker with the same job
            app.store.path(path).unlink(missing_ok=True)
        elif test is not None:
            self._name_the_look(made)
        return find_result(app.store, job.id) or {}

    def _settings(self, run: FullRun) -> dict[str, Any]:
        found: dict[str, Any] = as_json(
            {
                "preset": self._recipe.preset,
                "options": self._options,
                "recipe": self._recipe.as_json(),
                "backbone": self._backbone,
                "reading": run.rule,
                "threshold": self._recipe.threshold,
                "last_event_id": run.last_event_id,
                "n_images": run.n_images,
                "fingerprint": run.fingerprint,
                "ties": run.ties,
                "class_names": run.class_names,
                "device": describe_device(self._device),
                "versions": package_versions(),
            }
        )
        return found

    def _device_notes(self, run: FullRun) -> list[str]:
        if run.device == self._device.name:
            return []
        return [f"The run began on {run.device} and ended on {self._device.name}."]

    def _test_figures(self, run: FullRun, test: Scored) -> dict[str, Any]:
        assert run.split_id is not None
        who = get_job(self._app.store, job_id=self._job.id).requested_by
        with self._app.store.writing() as session:
            n = note_use(
                session, split_id=run.split_id, job_id=self._job.id, who=who, purpose=PURPOSE
            )
        return scores_json(test.evaluation, run.class_ids, run.class_names) | {
            "ece": test.calibration_error,
            "n_uses": n,
        }

    def _name_the_look(self, model_id: int) -> None:
        with self._app.store.writing() as session:
            session.execute(
                update(SplitUse)
                .where(SplitUse.job_id == self._job.id, SplitUse.purpose == PURPOSE)
                .values(model_id=model_id)
            )
