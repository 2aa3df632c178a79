"""Draw a sheet of images with the changes that training would make to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import make_recipe
from cnsapp.errors import CnsError, UnreadableImageError
from cnsapp.jobs.context import JobContext
from cnsapp.ml.augment import preview
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.services.augment_preview import DRAWS, KEPT, SIDE, sheet_path
from cnsapp.services.images import reading_rule
from cnsapp.services.import_source import limits_of
from cnsapp.tasks.resources import read_pixels
from db.models import Image

NETWORK_SIDE = 224  # pixels: the changes are made at network size, then shrunk to be seen
GAP = 6  # pixels between cells


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Draw one sheet and return its key."""
    payload = job.payload
    rule = reading_rule(app.store, project_id=int(job.project_id or 0))
    with app.store.reading() as session:
        wanted = select(Image.stored_path).where(Image.id.in_(payload["image_ids"]))
        paths = [app.store.path(path) for path in session.scalars(wanted.order_by(Image.id))]
    recipe = make_recipe("full", payload["changes"])
    rows, reason = [], ""
    for number, path in enumerate(paths):
        job.check_cancelled()
        try:
            view = make_view(read_pixels(path, rule, limits_of(app)), NETWORK_SIDE)
        except UnreadableImageError as error:
            reason = str(error)
            continue
        rows.append([view, *preview(view, recipe, DRAWS, int(payload["seed"]) + number)])
    if not rows:
        raise CnsError("None of the images chosen for the preview could be read.", reason)
    _save(sheet_path(app.store, str(payload["key"])), _sheet(rows))
    return {"key": payload["key"]}


def _sheet(rows: list[list[Pixels]]) -> Pixels:
    """Return rows of pictures side by side (RGBA), the image as it is in front."""
    step = SIDE + GAP
    height, width = len(rows) * step - GAP, len(rows[0]) * step + GAP
    sheet = np.zeros((height, width, 4), np.uint8)  # the gaps are transparent
    for r, row in enumerate(rows):
        for c, pixels in enumerate(row):
            small = Picture.fromarray(pixels).resize((SIDE, SIDE), Picture.Resampling.LANCZOS)
            left = c * step + (2 * GAP if c else 0)  # the image as it is stands apart
            sheet[r * step : r * step + SIDE, left : left + SIDE] = np.asarray(
                small.convert("RGBA")
            )
    return sheet


def _save(path: Path, sheet: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Picture.fromarray(sheet).save(partial, "PNG", compress_level=3)
    partial.replace(path)
    old = sorted(path.parent.glob("*.png"), key=lambda p: p.stat().st_mtime)[:-KEPT]
    for sheet_file in old:
        sheet_file.unlink(missing_ok=True)
