"""Remove what nobody needs any more: unused uploads and maps, files of unrecorded models, old runs.

A fresh worker calls it. Whatever might still be wanted stays: better a file too many.
"""

from __future__ import annotations

import re
import shutil
import time
from functools import partial
from pathlib import Path

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.imaging.journal import clean_orphans
from cnsapp.imaging.store import ImageFolder
from cnsapp.jobs.states import ACTIVE
from cnsapp.services.import_rows import known_bytes
from cnsapp.services.import_source import remove_abandoned
from cnsapp.services.import_uploads import PREFIX
from cnsapp.services.map_room import make_room
from cnsapp.services.models import discard_unready
from cnsapp.services.run_folders import left_behind
from db.models import Job, Model

HOUR, DAY = 3600.0, 86_400.0  # seconds
MODEL = re.compile(r"job-(\d{1,15})-[0-9a-f]{32}\.safetensors")
HALF = ".safetensors.tmp-"  # a model file that was being written


def model_path(job_id: int, token: str) -> str:
    """Return where the model of a job goes, relative to the data folder."""
    return f"models/job-{job_id}-{token}.safetensors"


def tidy(app: App) -> int:
    """Remove old left-overs and return how many files and folders there were."""
    _discard_half_models(app)
    folder = ImageFolder(app.store.root)
    folder.clean_leftovers()
    clean_orphans(folder, partial(known_bytes, app.store))
    remove_abandoned(app)
    left = [*_unused_uploads(app), *_unrecorded_models(app), *left_behind(app.store)]
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(left) + make_room(app)


def _unused_uploads(app: App) -> list[Path]:
    """Return uploads older than a day, such as those only looked at, that no job waits for."""
    with app.store.reading() as session:
        waiting = session.scalars(select(Job.payload).where(Job.state.in_(ACTIVE))).all()
    needed = [Path(str(payload.get("path", ""))).resolve() for payload in waiting]
    uploads = app.store.path("uploads").glob(f"{PREFIX}*")
    return [
        folder
        for folder in uploads
        if _is_older(folder, DAY)
        and not any(path.is_relative_to(folder.resolve()) for path in needed)
    ]


def _unrecorded_models(app: App) -> list[Path]:
    """Return files older than an hour whose run was killed before it could record its model.

    The job must be known and over: a database that was put back from elsewhere may lack both job
    and model, and then the file may be all that is left of them.
    """
    with app.store.reading() as session:
        recorded = set(session.scalars(select(Model.path)))
        over = set(session.scalars(select(Job.id).where(Job.state.not_in(ACTIVE))))
    left = []
    for path in app.store.path("models").iterdir():
        named = MODEL.fullmatch(path.name)
        is_left = HALF in path.name or (
            named is not None
            and int(named[1]) in over
            and path.relative_to(app.store.root).as_posix() not in recorded
        )
        if is_left and _is_older(path, HOUR):
            left.append(path)
    return left


def _discard_half_models(app: App) -> None:
    over = select(Job.id).where(Job.state.not_in(ACTIVE))
    half = select(Model.job_id).where(Model.ready.is_(False), Model.job_id.in_(over))
    with app.store.reading() as session:
        job_ids = {job_id for job_id in session.scalars(half) if job_id is not None}
    for job_id in job_ids:
        discard_unready(app.store, job_id=job_id)


def _is_older(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime > seconds
    except OSError:
        return False
