"""Predict: apply a model to new images. The work is in `cnsapp.tasks.predict`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError
from cnsapp.imaging.tiling import TileSettings
from cnsapp.services import jobs
from cnsapp.services.import_source import find_source
from cnsapp.services.models import check_model_file, current_model, get_model
from cnsapp.services.slides import get_slide

MAX_THUMBS = 1000  # the gallery shows the first ones; the table has them all


@dataclass(frozen=True)
class Results:
    """A finished prediction: the table as in the CSV, and what could not be read."""

    job_id: int
    model_id: int
    rows: pd.DataFrame
    csv_path: Path
    failed: list[tuple[str, str]]  # (file, reason) of the first ones
    n_failed: int
    thumbs: list[Path | None]  # one a row; None beyond the first MAX_THUMBS
    slides: list[SlideResult] = field(default_factory=list)


@dataclass(frozen=True)
class SlideResult:
    """A whole slide among what was predicted; its tiles are the rows with its `file` and a place.

    `number` names its picture; `own` says that it is a slide of the project, whose labelled tiles
    were predicted out of fold.
    """

    number: int
    name: str
    width: int
    height: int
    um_per_px: float | None
    n: int
    own: bool


def start_prediction(
    app: App,
    *,
    project_id: int,
    path: Path,
    model_id: int | None = None,
    requested_by: str = "",
    allowed_roots: list[Path] | None = None,
    tiles: TileSettings | None = None,
) -> int:
    """Queue the prediction of a folder, zip or image file; return the job number.

    Parameters
    ----------
    model_id
        The current model of the project when None.
    allowed_roots
        Folders below which `path` must lie (besides the uploads); None = anywhere.
    tiles
        How whole slides are cut; None: as the project's own slides were, else by the defaults.

    Raises
    ------
    CnsError
        The path is not there or not allowed, there is no model, or its file was altered.
    """
    real = find_source(app, path, allowed_roots)
    if model_id is None:
        model = current_model(app.store, project_id=project_id)
    else:
        model = get_model(app.store, model_id=model_id, project_id=project_id)
    check_model_file(app, model_id=model.id)
    return jobs.submit_job(
        app.store,
        kind="predict",
        project_id=project_id,
        payload={
            "path": str(real),
            "model_id": model.id,
            "allowed_roots": None if allowed_roots is None else list(map(str, allowed_roots)),
            "tiles": None if tiles is None else tiles.checked().as_json(),
        },
        requested_by=requested_by,
    )


def start_slide_prediction(
    app: App, *, project_id: int, slide_id: int, model_id: int, requested_by: str = ""
) -> int:
    """Queue the prediction of the tiles of a slide of the project; return the job number.

    Labelled tiles that the model was trained on get their out-of-fold prediction, the others that
    of the model itself.

    Raises
    ------
    CnsError
        There is no such slide or model, the slide has no tiles, or the model's file was altered.
    """
    slide = get_slide(app.store, project_id=project_id, slide_id=slide_id)
    if not slide.n_tiles:
        raise InvalidInputError(
            f"{slide.name} has no tiles.", "All of them are excluded.", "Import the slide again."
        )
    model = get_model(app.store, model_id=model_id, project_id=project_id)
    check_model_file(app, model_id=model.id)
    return jobs.submit_job(
        app.store,
        kind="predict",
        project_id=project_id,
        payload={"path": slide.name, "slide_id": slide.id, "model_id": model.id},
        requested_by=requested_by,
    )


def read_results(app: App, *, job_id: int) -> Results:
    """Return the table of a finished prediction; raise CnsError when it is not there.

    The table is read once and shared: filter and sort it into copies, do not change it.
    """
    job = jobs.get_job(app.store, job_id=job_id)
    if job.kind != "predict":
        raise NotFoundError(f"Job {job_id} is not a prediction.")
    if job.state != "done":
        raise CnsError(f"Prediction {job_id} is not done: {job.error or job.state}.")
    csv_path = app.store.path(str(job.result["csv"]))
    if not csv_path.is_file():
        raise NotFoundError(
            f"The table of prediction {job_id} is gone: {csv_path}.", "", "Predict again."
        )
    rows = _table(csv_path, csv_path.stat().st_mtime_ns)
    return Results(
        job_id=job_id,
        model_id=int(job.result["model_id"]),
        rows=rows,
        csv_path=csv_path,
        failed=[(str(f["file"]), str(f["reason"])) for f in job.result.get("failed", [])],
        n_failed=int(job.result.get("n_failed", len(job.result.get("failed", [])))),
        thumbs=_thumbs(app, job_id, len(rows)),
        slides=[
            SlideResult(
                number=number,
                name=str(slide["file"]),
                width=int(slide["width"]),
                height=int(slide["height"]),
                um_per_px=slide.get("um_per_px"),
                n=int(slide["n"]),
                own="slide_id" in slide,
            )
            for number, slide in enumerate(job.result.get("slides", []))
        ],
    )


@lru_cache(maxsize=4)  # the page asks again at each click
def _table(csv_path: Path, _changed: int) -> pd.DataFrame:
    return pd.read_csv(
        csv_path,
        encoding="utf-8-sig",
        dtype={"file": str, "sha256": str, "predicted": str, "decision": str},
        keep_default_na=False,
    )


def result_name(job_id: int) -> str:
    """Return the name of a prediction's table below `exports`."""
    return f"prediction-{job_id}.csv"


def thumb_path(app: App, job_id: int, row: int) -> Path:
    """Return where the small picture of a row lies (row 0 is the first)."""
    return app.store.path("thumbs", "predictions", str(job_id), f"{row}.jpg")


def slide_picture(app: App, job_id: int, number: int) -> Path:
    """Return where the picture of a predicted slide lies; it holds no label and no macro."""
    return app.store.path("thumbs", "predictions", str(job_id), f"slide-{number}.jpg")


def _thumbs(app: App, job_id: int, n: int) -> list[Path | None]:
    paths = [thumb_path(app, job_id, row) for row in range(min(n, MAX_THUMBS))]
    found: list[Path | None] = [path if path.is_file() else None for path in paths]
    return found + [None] * (n - len(found))


def name_of_row(row: Any) -> str:
    """Return what to call a row of the table: its file, or a tile's place and then its slide.

    The place comes first: there is little room, and the tiles of a slide differ in it alone.
    """
    x, y = str(getattr(row, "x", "")), str(getattr(row, "y", ""))
    if not x.isdigit() or not y.isdigit():  # an image of its own, or a table without places
        return str(row.file)
    return f"x {int(x):,}, y {int(y):,} · {str(row.file).rpartition('/')[2]}"


def summary(results: Results) -> list[dict[str, Any]]:
    """Return how many images were predicted as each class, the largest first."""
    counts = results.rows["predicted"].value_counts()
    return [{"class": str(name), "n": int(n)} for name, n in counts.items()]
