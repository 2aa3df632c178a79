"""Train a model: which way is the preset's."""

from __future__ import annotations

from typing import Any

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.jobs.context import JobContext
from cnsapp.services.controls import follow_training
from cnsapp.tasks.keep_model import find_result


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Train and return ``{"model_id", "metrics"}``."""
    if job.project_id is None:
        raise CnsError("The job names no project.", "", "Start it from the Train page.")
    made = find_result(app.store, job.id) or _train(app, job)
    if "model_id" in made:  # what simpler methods reach on the same images follows by itself
        follow_training(app.store, model_id=int(made["model_id"]))
    return made


def _train(app: App, job: JobContext) -> dict[str, Any]:
    if job.payload.get("preset", "quick") == "quick":
        from cnsapp.tasks.train_quick import run_quick

        return run_quick(app, job)
    from cnsapp.tasks.train_full import run_full

    return run_full(app, job)
