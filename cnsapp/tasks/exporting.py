"""Make the zip of a project's labelled images as a job."""

from __future__ import annotations

from typing import Any

from cnsapp.bootstrap import App
from cnsapp.jobs.context import JobContext
from cnsapp.services.dataset_zip import make_zip
from cnsapp.services.images import counts

SHOWN_REFUSED = 100  # of the files that a result lists by name


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Write the zip; return its name, how many images are in it, and what was left out of them.

    Payload: `keep_metadata`.
    """
    assert job.project_id is not None
    total = counts(app.store, project_id=job.project_id).labelled

    def report(done: int, name: str) -> None:
        job.progress(min(done / max(total, 1), 1.0), f"{done:,} of {total:,} images: {name}")

    name, done = make_zip(
        app,
        project_id=job.project_id,
        job_id=job.id,
        keep_metadata=bool(job.payload.get("keep_metadata", False)),
        progress=report,
        check_cancelled=job.check_cancelled,
    )
    facts = done.as_json()
    facts |= {"zip": name, "n_refused": len(done.refused), "refused": done.refused[:SHOWN_REFUSED]}
    return facts
