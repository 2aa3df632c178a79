"""Make the demo project as a job."""

from __future__ import annotations

from typing import Any

from cnsapp.bootstrap import App
from cnsapp.jobs.context import JobContext
from cnsapp.services.demo import create_demo
from cnsapp.services.models import list_models
from cnsapp.services.training import active_training, queue_features, start_training


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Make the demo project, or find it, and return its id.

    Its first model is asked for as well, so that Review, Explain and Predict are alive too.
    """

    def report(done: int, total: int, name: str) -> None:
        job.progress(done / max(total, 1), name)

    project_id = create_demo(app, progress=report, check_cancelled=job.check_cancelled)
    has_model = bool(list_models(app.store, project_id=project_id, archived=True))
    if not has_model and active_training(app.store, project_id=project_id) is None:
        start_training(app, project_id=project_id, requested_by="demo")
    queue_features(app.store, project_id=project_id)
    return {"project_id": project_id}
