"""Import a folder, a zip or an upload as a job, or look first at what that would bring."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.imaging.tiling import TileSettings
from cnsapp.jobs.context import JobContext
from cnsapp.services.file_kinds import keep_kinds
from cnsapp.services.import_rows import Begun
from cnsapp.services.import_uploads import remove_upload
from cnsapp.services.importing import ImportReport, check_folder, import_folder, newest_rows
from cnsapp.services.training import queue_features
from cnsapp.tasks.pace import Pace


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Import what the payload names and return the report.

    Payload: `path`, and where given `labels`, `group_from`, `metadata`, `link`, `annotator`,
    `allowed_roots` (a list; missing or None allows all, as for commands), `tiles` (how slides are
    cut: `TileSettings.as_json`), and `dry_run`: read everything, change nothing, and report what
    an import would do.
    """
    payload = job.payload
    path = Path(payload["path"])
    roots = payload.get("allowed_roots")
    dry_run = bool(payload.get("dry_run", False))
    pace = Pace(time.monotonic)

    def report(done: float, total: int, name: str) -> None:
        if not total:
            job.progress(0.0, f"Listing the files: {int(done):,} so far")
        else:
            job.progress(done / total, f"{pace.line(done, total, 'file')}: {name}")

    assert job.project_id is not None
    act: Callable[..., ImportReport] = check_folder
    if not dry_run:
        begun = _begun(app, job, job.project_id)
        act = partial(import_folder, annotator=payload.get("annotator") or "import", begun=begun)
    result = act(
        app,
        project_id=job.project_id,
        path=path,
        labels=payload.get("labels"),
        group_from=payload.get("group_from"),
        metadata=payload.get("metadata"),
        link=bool(payload.get("link", False)),
        tiles=TileSettings.from_json(tiles) if (tiles := payload.get("tiles")) else None,
        progress=report,
        check_cancelled=job.check_cancelled,
        allowed_roots=None if roots is None else [Path(root) for root in roots],
    )
    remove_upload(app, path)
    if result.imported and not dry_run:
        keep_kinds(app.store, project_id=job.project_id)
        queue_features(app.store, project_id=job.project_id)
    return result.as_json()


def _begun(app: App, job: JobContext, project_id: int) -> Begun | None:
    """Return what an earlier start of this job noted before it was killed; None at the first."""
    is_first = False

    def note() -> dict[str, Any]:
        nonlocal is_first
        is_first = True
        return newest_rows(app.store, project_id=project_id).as_json()

    noted = Begun.from_json(job.step("begin", note))
    return None if is_first else noted
