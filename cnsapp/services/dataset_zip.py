"""The labelled images of a project as one zip to download. The work is in `tasks.exporting`."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.services import jobs
from cnsapp.services.exports import DatasetExported, export_dataset
from cnsapp.services.jobs import JobView
from cnsapp.services.projects import get_project

KIND = "export"


def start_export(
    app: App, *, project_id: int, keep_metadata: bool = False, requested_by: str = ""
) -> int:
    """Queue the zip of a project's labelled images; return the job number."""
    return jobs.submit_job(
        app.store,
        kind=KIND,
        project_id=project_id,
        payload={"keep_metadata": keep_metadata},
        requested_by=requested_by,
    )


def latest_export(app: App, *, project_id: int) -> JobView | None:
    """Return the newest job that makes or made a zip of this project, or None."""
    found = jobs.list_jobs(app.store, project_id=project_id, kinds=[KIND], limit=1)
    return jobs.get_job(app.store, job_id=found[0].id) if found else None


def zip_of(app: App, job: JobView) -> Path | None:
    """Return the file that a finished job made, or None when it is there no more."""
    path = app.store.path("exports", str(job.result.get("zip") or "-"))
    return path if path.is_file() else None


def make_zip(
    app: App,
    *,
    project_id: int,
    job_id: int,
    keep_metadata: bool,
    progress: Callable[[int, str], None] | None = None,
    check_cancelled: Callable[[], None] | None = None,
) -> tuple[str, DatasetExported]:
    """Write the zip below `exports` in place of the project's former one.

    Returns
    -------
    The name of the file, and what is in it.

    Raises
    ------
    CnsError
        As `export_dataset`.
    """
    folder = app.store.path("exports", f"dataset-{project_id}-{job_id}")
    for left in (folder, *folder.parent.glob(f".{folder.name}.*.partial")):  # of a killed worker
        shutil.rmtree(left, ignore_errors=True)
    done = export_dataset(
        app,
        project_id=project_id,
        out=folder,
        keep_metadata=keep_metadata,
        progress=progress,
        check_cancelled=check_cancelled,
    )
    target = app.store.path("exports", f"{_file_name(app, project_id)}-{project_id}-{job_id}.zip")
    partial = target.with_suffix(".partial")
    try:
        _pack(folder, partial)
        for former in target.parent.glob("*.zip"):
            if re.search(rf"-{project_id}-\d+\.zip$", former.name):
                former.unlink(missing_ok=True)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return target.name, replace(done, path=str(target))


def _pack(folder: Path, target: Path) -> None:
    """Pack a folder and remove each file once it is packed: the disk need not hold both."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())
            path.unlink()


def _file_name(app: App, project_id: int) -> str:
    name = get_project(app.store, project=project_id).name
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:60] or "dataset"
