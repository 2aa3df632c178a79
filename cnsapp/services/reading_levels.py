"""Which values a project's deep and multi-channel files hold: what windows are chosen from."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.imaging import isolated
from cnsapp.imaging.channels import ChannelRange
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.looks import FileLevels
from cnsapp.imaging.rule_changes import FileKind
from cnsapp.imaging.window import SampleRange, fit_window
from cnsapp.services.import_source import limits_of
from cnsapp.services.reading import READABLE, get_reading
from db.models import Image
from db.session import Store

FILES = 12  # looked into for the levels of a project
NEAR = 200  # rows after an example that are looked through for more of its kind


@dataclass(frozen=True)
class Levels:
    """The values of one kind of samples over some of the project's files.

    Parameters
    ----------
    low, high
        Smallest and largest value.
    p_low, p_high
        The lowest 0.1 and the highest 99.9 percentile of a file.
    n_files
        How many files were looked into.
    """

    kind: str
    low: float
    high: float
    p_low: float
    p_high: float
    n_files: int = 1

    @property
    def by_range(self) -> tuple[float, float]:
        """The window that an import would fix for them by their range."""
        return fit_window(self.kind, self.low, self.high)

    @property
    def by_percentile(self) -> tuple[float, float]:
        """The window that an import would fix for them by percentiles."""
        return (self.p_low, self.p_high) if self.p_low < self.p_high else self.by_range


@dataclass(frozen=True)
class Found:
    """What was found in a project's files."""

    levels: dict[str, Levels]  # by kind of samples
    channels: list[ChannelRange]  # each channel over the files, with the first file's names


def find_levels(app: App, *, project_id: int, page: str) -> Future[Found]:
    """Look into some files of a project, in the background, and remember what was found.

    The same future is returned until images come or go, or another page of stacks is asked for.
    """
    reading = get_reading(app.store, project_id=project_id)
    files = [kind for kind in reading.kinds if kind.is_deep or kind.has_channels]
    key = (str(app.store.engine.url), project_id)
    sign = (page, tuple((tuple(sorted(k.facts.items())), k.n, k.examples) for k in files))
    with _lock:
        known = _kept.get(key)
        if known is not None and known[0] == sign:
            return known[1]
        paths = [path for _, path in pick_images(app.store, project_id, files, FILES)]
        future = _looking.submit(_look_into, paths, limits_of(app), page)
        _kept[key] = (sign, future)
        return future


_lock = threading.Lock()
_looking = ThreadPoolExecutor(1, "levels")
_kept: dict[tuple[str, int], tuple[Any, Future[Found]]] = {}


def pick_images(
    store: Store, project_id: int, kinds: Sequence[FileKind], n: int
) -> list[tuple[int, Path]]:
    """Return (id, path) of up to `n` images of these kinds, taking turns between the kinds."""
    by_kind = [_images_of(store, project_id, kind, n) for kind in kinds]
    picked: list[tuple[int, Path]] = []
    for turn in range(n):
        picked += [found[turn] for found in by_kind if turn < len(found)]
    return picked[:n]


def _images_of(store: Store, project_id: int, kind: FileKind, n: int) -> list[tuple[int, Path]]:
    """Return images of a kind: its examples, and where they are few its neighbours."""
    if not kind.examples:
        return []
    columns = select(Image.id, Image.stored_path, Image.facts, Image.seen, Image.sha256).where(
        Image.project_id == project_id, Image.status.in_(READABLE)
    )
    with store.reading() as session:
        rows = session.execute(columns.where(Image.id.in_(kind.examples)).order_by(Image.id)).all()
        near = columns.where(Image.id > kind.examples[0]).order_by(Image.id).limit(NEAR)
        rows = [*rows, *session.execute(near).all()]
    pictures: dict[str, tuple[int, Path]] = {}
    for row in rows:
        same = all(row.facts.get(name) == value for name, value in kind.facts.items() if value)
        if same and row.seen == kind.seen:
            pictures.setdefault(row.sha256, (row.id, store.path(row.stored_path)))
    return list(pictures.values())[:n]


def _look_into(paths: Sequence[Path], limits: Limits, page: str) -> Found:
    alike: dict[str, dict[Path, list[SampleRange | ChannelRange]]] = {}
    channels: dict[int, ChannelRange] = {}
    for path in paths:
        try:
            answer = isolated.call("levels", path, limits=limits, page=page)
            found = FileLevels.from_json(answer.facts)
        except CnsError:
            continue  # what cannot be read says so where it is shown
        for values in (found.colors, *found.channels):
            if values is not None and values.kind != "uint8":
                alike.setdefault(values.kind, {}).setdefault(path, []).append(values)
        if len(found.channels) > 1:
            for channel in found.channels:
                before = channels.get(channel.index)
                channels[channel.index] = _joined(before, channel) if before else channel
    levels = {kind: _levels(kind, by_file) for kind, by_file in alike.items()}
    return Found(levels, [channels[index] for index in sorted(channels)])


def _levels(kind: str, by_file: dict[Path, list[SampleRange | ChannelRange]]) -> Levels:
    found = [values for file in by_file.values() for values in file]
    return Levels(
        kind,
        min(v.low for v in found), max(v.high for v in found),
        min(v.p_low for v in found), max(v.p_high for v in found),
        len(by_file),
    )  # fmt: skip


def _joined(first: ChannelRange, more: ChannelRange) -> ChannelRange:
    return ChannelRange(
        first.index, first.name, first.color, first.kind,
        min(first.low, more.low), max(first.high, more.high),
        min(first.p_low, more.p_low), max(first.p_high, more.p_high),
    )  # fmt: skip
