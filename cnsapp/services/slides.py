"""Whole slides of a project: finding them among files, a preview of their tiles, a list."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw
from sqlalchemy import func, select

from cnsapp.bootstrap import App
from cnsapp.errors import NotFoundError, UnreadableImageError
from cnsapp.imaging import slide_work
from cnsapp.imaging.candidates import Candidate
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.slide_base import Pixels, SlideFacts
from cnsapp.imaging.tiling import Tile, TileSettings, plan_tiles
from cnsapp.imaging.tissue import Mask, find_tissue, outline
from cnsapp.imaging.window import WindowMissingError, fit_window
from cnsapp.services.images import MAX_ID, reading_rule
from cnsapp.services.import_source import Source, find_source, limits_of, opened_source
from db.models import Image, Slide
from db.session import Store

LOOK_SIDE = 2048  # px: tissue is found at this size, 10 µm a pixel on a section of 2 cm
PREVIEW_SIDE = 1000
INK = (15, 110, 132)  # the accent


@dataclass(frozen=True)
class SlideView:
    """A slide of a project. `settings` are those its tiles were cut with."""

    id: int
    name: str
    sha256: str
    width: int
    height: int
    um_per_px: float | None
    group: str | None
    settings: TileSettings
    complete: bool
    n_tiles: int  # of these settings
    n_labelled: int
    path: Path | None  # None: it came from a zip or an upload and was not kept
    facts: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None


@dataclass(frozen=True)
class Plan:
    """What a slide looks like, where its tissue is, and the tiles that it would give."""

    facts: SlideFacts
    thumbnail: Pixels  # uint8 (H, W, 3)
    tissue: Mask  # bool (H, W)
    tiles: list[Tile]


@dataclass(frozen=True)
class SlidePreview:
    """A picture of a slide with its tissue and tiles; `reason` when it cannot be cut so."""

    name: str
    png: bytes
    n_tiles: int
    reason: str
    facts: SlideFacts | None
    n_slides: int


def set_aside(app: App, source: Source) -> tuple[list[Candidate], Source]:
    """Return the whole slides among the files of an import, and the source without them.

    The data files of a MIRAX slide, in the folder of its name, are no files of their own.
    """
    limits = limits_of(app)
    slides = [c for c in source.candidates if slide_work.is_slide(c.path, limits)]
    if not slides:
        return [], source
    taken = {c.name for c in slides}
    data = tuple(
        c.name[: -len(c.path.suffix)] + "/" for c in slides if c.path.suffix.casefold() == ".mrxs"
    )
    rest = [c for c in source.candidates if c.name not in taken and not c.name.startswith(data)]
    return slides, replace(source, candidates=rest)


def plan_slide(
    path: Path, rule: ReadingRule, limits: Limits, settings: TileSettings, max_tiles: int
) -> Plan:
    """Look at a slide and return where its tiles would be.

    Raises
    ------
    UnreadableImageError
        It cannot be read, or not be cut with these settings.
    WindowMissingError
        The project has no window for its samples yet.
    """
    facts, thumbnail = slide_work.look_at(path, rule, limits, LOOK_SIDE)
    tissue = find_tissue(thumbnail)
    return Plan(facts, thumbnail, tissue, plan_tiles(facts, tissue, settings, max_tiles))


def preview_slides(
    app: App,
    *,
    project_id: int,
    path: Path,
    settings: TileSettings,
    allowed_roots: Sequence[Path] | None = None,
) -> SlidePreview | None:
    """Return the first slide of a folder with its tiles drawn in; None when there is no slide."""
    rule = reading_rule(app.store, project_id=project_id)
    real = find_source(app, path, allowed_roots)
    with opened_source(app, real, allowed_roots) as source:
        slides, _ = set_aside(app, source)
        if not slides:
            return None
        first, n = slides[0], len(slides)
        limits = limits_of(app)
        try:
            facts, thumbnail = _look(first.path, rule, limits)
        except UnreadableImageError as error:
            return SlidePreview(first.name, b"", 0, str(error), None, n)
    tissue = find_tissue(thumbnail)
    tiles, reason = [], ""
    try:
        tiles = plan_tiles(facts, tissue, settings.checked(), app.settings.max_slide_tiles)
    except UnreadableImageError as error:
        reason = str(error)
    picture = drawn(thumbnail, tissue, tiles, facts)
    return SlidePreview(first.name, picture, len(tiles), reason, facts, n)


def _look(path: Path, rule: ReadingRule, limits: Limits) -> tuple[SlideFacts, Pixels]:
    try:
        return slide_work.look_at(path, rule, limits, LOOK_SIDE)
    except WindowMissingError as missing:
        own = measured_rule(path, rule, limits, missing.kind)
        return slide_work.look_at(path, own, limits, LOOK_SIDE)


def measured_rule(path: Path, rule: ReadingRule, limits: Limits, kind: str) -> ReadingRule:
    """Return the rule with a window for a kind of samples, measured on a slide."""
    found = slide_work.sample_range(path, rule, limits)
    if found is None:
        raise UnreadableImageError("The slide holds no finite value: every sample is NaN.")
    if rule.windows_from == "percentile":
        return rule.with_window(kind, *fit_window(kind, found.p_low, found.p_high))
    return rule.with_window(kind, *fit_window(kind, found.low, found.high))


def drawn(thumbnail: Pixels, tissue: Mask, tiles: Sequence[Tile], facts: SlideFacts) -> bytes:
    """Return a PNG of the slide with the border of its tissue and the frames of its tiles."""
    scale = min(1.0, PREVIEW_SIDE / max(thumbnail.shape[:2]))
    size = (max(1, round(thumbnail.shape[1] * scale)), max(1, round(thumbnail.shape[0] * scale)))
    picture = Picture.fromarray(thumbnail).resize(size, Picture.Resampling.BICUBIC)
    mask = np.asarray(Picture.fromarray(tissue).resize(size))
    pixels = np.asarray(picture).copy()
    pixels[outline(mask)] = (226, 122, 30)
    picture = Picture.fromarray(pixels)
    pen = ImageDraw.Draw(picture, "RGBA")
    across, down = size[0] / facts.width, size[1] / facts.height
    for tile in tiles:
        box = (
            tile.x * across,
            tile.y * down,
            (tile.x + tile.side) * across - 1,
            (tile.y + tile.side) * down - 1,
        )
        pen.rectangle(box, fill=(*INK, 38), outline=(*INK, 255))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def thumb_path(root: Path, sha256: str) -> Path:
    """Return where the picture of a project's slide lies; it holds no label and no macro."""
    return root / "thumbs" / "slides" / f"{sha256}.jpg"


def list_slides(store: Store, *, project_id: int) -> list[SlideView]:
    """Return the slides of a project with their numbers of tiles and labels, by name."""
    with store.reading() as session:
        rows = session.scalars(
            select(Slide).where(Slide.project_id == project_id).order_by(Slide.file_name, Slide.id)
        ).all()
        counts = {
            row[0]: (int(row[1]), int(row[2] or 0))
            for row in session.execute(
                select(
                    Image.slide_id,
                    func.count(),
                    func.count().filter(Image.current_state == "label"),
                )
                .where(
                    Image.slide_id.in_([row.id for row in rows]),
                    Image.project_id == project_id,
                    Image.status == "ok",
                )
                .group_by(Image.slide_id)
            )
        }
        return [_view(row, *counts.get(row.id, (0, 0))) for row in rows]


def count_slides(store: Store, *, project_id: int) -> int:
    """Return how many slides a project has."""
    with store.reading() as session:
        slides = select(func.count()).select_from(Slide).where(Slide.project_id == project_id)
        return session.scalar(slides) or 0


def slide_sha256(store: Store, *, slide_id: int) -> str:
    """Return the hash of a slide's file; raise NotFoundError when there is no such slide."""
    with store.reading() as session:
        row = session.get(Slide, slide_id) if 0 < slide_id < MAX_ID else None
        if row is None:
            raise NotFoundError(f"There is no slide number {slide_id}.")
        return row.sha256


def get_slide(store: Store, *, project_id: int, slide_id: int) -> SlideView:
    """Return one slide; raise NotFoundError when the project has none of this number."""
    found = [s for s in list_slides(store, project_id=project_id) if s.id == slide_id]
    if not found:
        raise NotFoundError(f"The project has no slide number {slide_id}.")
    return found[0]


def latest_settings(store: Store, *, project_id: int) -> TileSettings:
    """Return how the project's newest slide was cut; the defaults where it has none."""
    with store.reading() as session:
        settings = session.scalar(
            select(Slide.settings)
            .where(Slide.project_id == project_id)
            .order_by(Slide.created_at.desc(), Slide.id.desc())
            .limit(1)
        )
    return TileSettings.from_json((settings or {}).get("cut"))


def _view(row: Slide, n_tiles: int, n_labelled: int) -> SlideView:
    return SlideView(
        id=row.id,
        name=row.file_name,
        sha256=row.sha256,
        width=row.width,
        height=row.height,
        um_per_px=row.um_per_px,
        group=row.group_key,
        settings=TileSettings.from_json(row.settings.get("cut")),
        complete=bool(row.settings.get("complete")),
        n_tiles=n_tiles,
        n_labelled=n_labelled,
        path=Path(row.stored_path) if row.stored_path else None,
        facts=row.facts,
        created_at=row.created_at,
    )
