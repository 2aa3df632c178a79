"""Check the files of a project, and find linked ones that were moved, as jobs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.jobs.context import JobContext
from cnsapp.services.file_check import check_files
from cnsapp.services.relinking import relink
from cnsapp.services.training import queue_features
from cnsapp.tasks.pace import Pace


def check(app: App, job: JobContext) -> dict[str, Any]:
    """Check; payload: `full` (read every file wholly), `who`."""
    assert job.project_id is not None
    report = check_files(
        app,
        project_id=job.project_id,
        full=bool(job.payload.get("full", False)),
        who=str(job.payload.get("who") or "check"),
        progress=_Teller(job, "image"),
        check_cancelled=job.check_cancelled,
    )
    if report.found:
        queue_features(app.store, project_id=job.project_id)
    return report.as_json()


def find_moved(app: App, job: JobContext) -> dict[str, Any]:
    """Find moved files; payload: `folder`, `who`, `allowed_roots`."""
    assert job.project_id is not None
    roots = job.payload.get("allowed_roots")
    report = relink(
        app,
        project_id=job.project_id,
        folder=Path(job.payload["folder"]),
        who=str(job.payload.get("who") or "relink"),
        progress=_Teller(job, "file"),
        check_cancelled=job.check_cancelled,
        allowed_roots=None if roots is None else [Path(root) for root in roots],
    )
    if report.found:
        queue_features(app.store, project_id=job.project_id)
    return report.as_json()


class _Teller:
    def __init__(self, job: JobContext, what: str) -> None:
        self._job, self._what, self._pace = job, what, Pace(time.monotonic)

    def __call__(self, done: int, total: int, name: str) -> None:
        if total:
            line = self._pace.line(done, total, self._what)
            self._job.progress(done / total, f"{line}: {name}")
        else:
            self._job.progress(0.0, f"Listing the files: {done:,} so far")
