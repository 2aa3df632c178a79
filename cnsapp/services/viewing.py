"""Looking closely at an image: what the viewer needs to know, and tiles of large pictures.

Tiles are cut on first need, by a process of its own, so that neither a gigabyte of pixels nor a
decoder's crash reaches the process that serves the pages.
"""

from __future__ import annotations

import logging
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.imaging import isolated
from cnsapp.imaging.channels import COLORS
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.pyramid import (
    Pyramid,
    clean_half_made,
    drop_pyramid,
    find_pyramid,
    tile_path,
)
from cnsapp.imaging.pyramid_cache import TileCache, note_use
from cnsapp.imaging.rule import MAX_CHANNELS, Channel, ReadingRule
from cnsapp.imaging.store import ImageFolder
from cnsapp.services.images import ImageDetail, get_image, image_path, reading_rule
from cnsapp.services.import_source import limits_of
from db.models import Project
from db.session import Store

log = logging.getLogger(__name__)
AT_ONCE = 2  # pictures cut at the same time; each may need a gigabyte
SIZES = (1e-4, 1e4)  # micrometres a pixel that can be meant


@dataclass(frozen=True)
class ChannelView:
    """A channel that the viewer can switch; `shown` is whether the stored picture has it."""

    index: int
    name: str
    color: str
    shown: bool


@dataclass(frozen=True)
class Closeup:
    """What the viewer needs to know of an image: pixels, their size in micrometres, channels."""

    width: int
    height: int
    um_per_px: float | None
    channels: tuple[ChannelView, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Tile:
    """A tile's file, and whether its address can be kept forever."""

    path: Path
    lasting: bool


def closeup(store: Store, *, image_id: int) -> Closeup:
    """Return what the viewer needs to know of an image; raise NotFoundError when there is none."""
    image = get_image(store, image_id=image_id)
    rule = reading_rule(store, project_id=image.project_id)
    own = image.facts.get("um_per_px")
    return Closeup(
        width=image.width,
        height=image.height,
        um_per_px=own or um_per_px(store, project_id=image.project_id),
        channels=_channels(rule, image.facts),
    )


def pyramid(app: App, *, image_id: int, channel: int | None = None) -> Pyramid | None:
    """Return the shape of an image's tiles, or None while they are being made.

    Parameters
    ----------
    channel
        Tiles of one channel in gray, by its index; None: of the picture.

    Raises
    ------
    NotFoundError
        There is no such image or channel, or its original is gone.
    UnreadableImageError
        The original cannot be read any more. The next call tries again.
    """
    source = _source(app, image_id, channel)
    found = find_pyramid(source.folder)
    if found is not None:
        note_use(source.folder)
        return found
    _maker.ask(source.folder, source, image_path(app.store, image_id=image_id))
    return None


def tile(
    app: App, *, image_id: int, level: int, x: int, y: int, channel: int | None = None
) -> Tile:
    """Return a tile that has been made; raise NotFoundError when it is not there."""
    source = _source(app, image_id, channel)
    shape = find_pyramid(source.folder)
    if shape is None or not shape.has(level, x, y):
        raise NotFoundError(f"There is no tile {x}, {y} of level {level} of image {image_id}.")
    path = tile_path(source.folder, level, x, y)
    if not path.is_file():
        drop_pyramid(source.folder)  # somebody deleted a part of it: all of it is made again
        raise NotFoundError(f"A tile of image {image_id} is missing; they are made again.")
    note_use(source.folder)
    return Tile(path, source.lasting)


def um_per_px(store: Store, *, project_id: int) -> float | None:
    """Return the project's micrometres a pixel, for files that do not say; None when not set."""
    with store.reading() as session:
        project = session.get(Project, project_id)
        value = project.settings.get("um_per_px") if project is not None else None
    return float(value) if value else None


def set_um_per_px(store: Store, *, project_id: int, value: float | None) -> None:
    """Set the micrometres a pixel of files that do not say; None takes the setting back.

    Raises
    ------
    InvalidInputError
        The value is no size that a pixel can have.
    NotFoundError
        There is no such project.
    """
    if value is not None and not (math.isfinite(value) and SIZES[0] <= value <= SIZES[1]):
        raise InvalidInputError(
            f"A pixel of {value:g} micrometres cannot be meant.",
            "Scale bars would be wrong.",
            f"Give a number from {SIZES[0]:g} to {SIZES[1]:,.0f}, such as 0.5.",
        )
    with store.writing() as session:
        project = session.get(Project, project_id)
        if project is None:
            raise NotFoundError(f"There is no project number {project_id}.")
        kept = {key: one for key, one in project.settings.items() if key != "um_per_px"}
        project.settings = kept if value is None else {**kept, "um_per_px": value}


@dataclass(frozen=True)
class _Source:
    folder: Path
    rule: ReadingRule
    limits: Limits
    gray: bool
    lasting: bool
    max_bytes: int  # of all tiles together


def _source(app: App, image_id: int, channel: int | None) -> _Source:
    image = get_image(app.store, image_id=image_id)
    rule = reading_rule(app.store, project_id=image.project_id)
    sign = rule.seen(image.facts)
    place = ImageFolder(app.store.root).thumb_path(image.sha256, sign)
    part = "" if channel is None else f".c{channel}"
    return _Source(
        folder=place.with_name(f"{place.stem}{part}.tiles"),
        rule=rule if channel is None else _alone(rule, image, channel),
        limits=limits_of(app),
        gray=channel is not None,
        max_bytes=app.settings.max_tile_cache_bytes,
        lasting=sign == image.seen,  # else the address is that of the picture before the change
    )


def _alone(rule: ReadingRule, image: ImageDetail, index: int) -> ReadingRule:
    """Return the rule that shows one channel in white, through its own window."""
    if index not in [channel.index for channel in _channels(rule, image.facts)]:
        raise NotFoundError(f"There is no channel {index + 1} of image {image.id} to be shown.")
    own = next((one for one in rule.channels if one.index == index), Channel(index, ""))
    return replace(rule, channels=(replace(own, color="#FFFFFF"),))


def _channels(rule: ReadingRule, facts: dict[str, Any]) -> tuple[ChannelView, ...]:
    n = int(facts.get("channels", 1))
    if n < 2:
        return ()
    colors = {one.index: one.color for one in rule.channels if one.index < n}
    shown = list(colors) or [0]
    offered = colors or dict(enumerate(COLORS[: min(n, MAX_CHANNELS)]))
    return tuple(
        ChannelView(index, f"Channel {index + 1}", color, index in shown)
        for index, color in offered.items()
    )


class _Maker:
    """Makes each pyramid once, however many ask for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.under_way: dict[Path, Future[Pyramid]] = {}
        self.threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tiles")

    def ask(self, folder: Path, source: _Source, original: Path) -> None:
        """Have it made; raise what the last attempt failed with, once."""
        with self.lock:
            job = self.under_way.get(folder)
            if job is not None and not job.done():
                return
            failed = self.under_way.pop(folder).exception() if job is not None else None
            if failed is not None:
                raise failed
            if find_pyramid(folder) is not None:  # it came while we asked
                return
            self.under_way[folder] = self.threads.submit(_make, folder, source, original)


def _make(folder: Path, source: _Source, original: Path) -> Pyramid:
    clean_half_made(folder.parent.parent)
    answer = isolated.call(
        "make_pyramid",
        original,
        rule=source.rule,
        limits=source.limits,
        target_dir=folder,
        gray=source.gray,
    )
    try:
        _cache_of(folder.parent.parent).add(folder, source.max_bytes)
    except OSError:  # the picture is there all the same
        log.warning("no room was made for the tiles in %s", folder.parent.parent, exc_info=True)
    return Pyramid(**answer.facts)


@lru_cache(maxsize=4)
def _cache_of(thumbs: Path) -> TileCache:
    return TileCache(thumbs)


_maker = _Maker()
