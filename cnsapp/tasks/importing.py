"""Import a folder, a zip or an upload as a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.jobs.context import JobContext
from cnsapp.services.import_uploads import remove_upload
from cnsapp.services.importing import import_folder
from cnsapp.services.training import queue_features


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Import what the payload names and return the report.

    Payload: `path`, and where given `labels`, `group_from`, `link`, `annotator`, `allowed_roots`
    (a list; missing or None allows all, as for commands).
    """
    payload = job.payload
    path = Path(payload["path"])
    roots = payload.get("allowed_roots")

    def report(done: int, total: int, name: str) -> None:
        job.progress(done / max(total, 1), f"{done:,} of {total:,} files: {name}")

    assert job.project_id is not None
    result = import_folder(
        app,
        project_id=job.project_id,
        path=path,
        labels=payload.get("labels"),
        group_from=payload.get("group_from"),
        link=bool(payload.get("link", False)),
        annotator=payload.get("annotator") or "import",
        progress=report,
        check_cancelled=job.check_cancelled,
        allowed_roots=None if roots is None else [Path(root) for root in roots],
    )
    remove_upload(app, path)
    if result.imported:
        queue_features(app.store, project_id=job.project_id)
    return result.as_json()
