"""Where a fine-tuning run keeps what it has finished, and when that is cleared away."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from sqlalchemy import select

from db.models import Job
from db.session import Store

RUNS = "models/runs"  # below the data folder; not in backups
DECODED = "features/decoded"  # pictures at network size, shared by the runs of a project
KEEP_FAILED = 7 * 86_400.0  # seconds in which a failed run can be started again and goes on
KEEP_DECODED = 2 * 86_400.0
_FOLDER = re.compile(r"job-(\d{1,15})")


def run_folder(store: Store, job_id: int) -> Path:
    """Return the folder of a run, which may not exist."""
    return store.path(RUNS, f"job-{job_id}")


def decoded_folder(store: Store) -> Path:
    """Return the folder of the decoded pictures, which may not exist."""
    return store.path(DECODED)


def remove_run_folder(store: Store, job_id: int) -> None:
    """Remove what a run kept: its model is recorded, or it was cancelled."""
    shutil.rmtree(run_folder(store, job_id), ignore_errors=True)


def left_behind(store: Store) -> list[Path]:
    """Return run folders and decoded pictures that nobody needs any more.

    Those of a failed run stay a week: started again, it goes on from there. A folder whose job is
    unknown stays, since the database may have been put back from elsewhere.
    """
    folders = {
        int(named[1]): path
        for path in _children(store.path(RUNS))
        if (named := _FOLDER.fullmatch(path.name))
    }
    with store.reading() as session:
        rows = session.execute(select(Job.id, Job.state).where(Job.id.in_(folders)))
        states = dict(rows.all())
    found = [
        path
        for job_id, path in folders.items()
        if states.get(job_id) in ("done", "cancelled")
        or (states.get(job_id) == "failed" and _age(path) > KEEP_FAILED)
    ]
    decoded = _children(store.path(DECODED))
    return found + [path for path in decoded if _age(path) > KEEP_DECODED]


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
