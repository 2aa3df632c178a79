"""What the changes to the training images would do to the user's own, before a run is started."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import CHANGES, DIALS, make_recipe
from cnsapp.errors import NotFoundError
from cnsapp.jobs.registry import get_kind
from cnsapp.services import jobs
from db.models import Image, Job
from db.session import Store
from db.types import utc_now

KIND = "preview"
ROWS, DRAWS = 3, 5  # images, and draws of each beside the image as it is
SIDE = 160  # pixels of a cell
KEPT = 60  # sheets, some 700 kB each
VERSION = 1  # raise it when sheets are drawn otherwise
NAMES = tuple(dial.name for dial in DIALS if dial.group == CHANGES)


@dataclass(frozen=True)
class Sheet:
    """A picture of images with their changes: there (`path`), on its way (`job_id`) or failed."""

    path: Path | None
    job_id: int | None = None
    error: str = ""


def request_sheet(
    app: App, *, project_id: int, options: Mapping[str, Any], seed: int = 0, requested_by: str = ""
) -> Sheet:
    """Return the sheet for these settings, queueing the work when it is not there yet.

    Parameters
    ----------
    options
        Settings of the preset "full"; only those that change images matter.
    seed
        Another one draws other images and other changes.

    Raises
    ------
    InvalidInputError
        A setting is unknown or out of its range.
    NotFoundError
        The project has no image that can be shown.
    """
    recipe = make_recipe("full", {k: v for k, v in options.items() if k in NAMES})
    changes = {name: getattr(recipe, name) for name in NAMES}
    image_ids = _some_images(app.store, project_id, seed)
    text = json.dumps([VERSION, image_ids, changes, seed], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    path = sheet_path(app.store, key)
    if path.is_file():
        return Sheet(path)
    known = _job_of(app.store, project_id, key)
    if known is not None:
        job = jobs.get_job(app.store, job_id=known)
        if job.is_active:
            return Sheet(None, known)
        if job.state == "failed":
            return Sheet(None, None, job.error or "The preview could not be made.")
    payload = {"key": key, "image_ids": image_ids, "changes": changes, "seed": seed}
    return Sheet(None, _queue(app.store, project_id, payload, requested_by))


def sheet_path(store: Store, key: str) -> Path:
    """Return where a sheet lies; the folder is a cache and may be deleted."""
    return store.path("thumbs", "previews", f"{key}.png")


def _some_images(store: Store, project_id: int, seed: int) -> list[int]:
    """Return a few images of the project, labelled ones first, others with another seed."""
    shown = Image.project_id == project_id, Image.status == "ok"
    with store.reading() as session:
        for wanted in ((*shown, Image.current_state == "label"), shown):
            first, last = session.execute(
                select(func.min(Image.id), func.max(Image.id)).where(*wanted)
            ).one()
            if first is None:
                continue
            found: list[int] = []
            for row in range(ROWS):  # spread over the project, by number: no counting of rows
                at = first + (last - first) * ((row + 0.37 * (seed + 1)) % ROWS) / ROWS
                image_id = session.scalar(
                    select(Image.id).where(*wanted, Image.id >= int(at)).order_by(Image.id).limit(1)
                )
                if image_id is not None and image_id not in found:
                    found.append(image_id)
            return found
    raise NotFoundError("This project has no image that could be shown.", "", "Import images.")


def _job_of(store: Store, project_id: int, key: str) -> int | None:
    """Return the newest job that makes (or failed to make) this sheet."""
    with store.reading() as session:
        rows = session.execute(
            select(Job.id, Job.payload)
            .where(Job.project_id == project_id, Job.kind == KIND)
            .order_by(Job.id.desc())
            .limit(20)
        )
        return next((job_id for job_id, payload in rows if payload.get("key") == key), None)


def _queue(store: Store, project_id: int, payload: dict[str, Any], requested_by: str) -> int:
    """Queue a sheet; those that the same person asked for before and nobody began are dropped."""
    get_kind(KIND)
    with store.writing() as session:
        session.execute(
            update(Job)
            .where(
                Job.project_id == project_id,
                Job.kind == KIND,
                Job.state == "queued",
                Job.requested_by == requested_by,
            )
            .values(state="cancelled", finished_at=utc_now())
        )
        return jobs.add_job(
            session, kind=KIND, project_id=project_id, payload=payload, requested_by=requested_by
        )
