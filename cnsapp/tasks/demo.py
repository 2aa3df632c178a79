"""Make the demo project as a job."""

from __future__ import annotations

from typing import Any

from cnsapp.bootstrap import App
from cnsapp.jobs.context import JobContext
from cnsapp.services.demo import create_demo
from cnsapp.services.training import queue_features


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Make the demo project, or find it, and return its id."""

    def report(done: int, total: int, name: str) -> None:
        job.progress(done / max(total, 1), name)

    project_id = create_demo(app, progress=report, check_cancelled=job.check_cancelled)
    queue_features(app.store, project_id=project_id)
    return {"project_id": project_id}
