"""Compute the features of a project's images once, right after import, so that Train is quick."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import case, select

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import DEFAULT_BACKBONE
from cnsapp.errors import CnsError, UnreadableImageError
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext
from cnsapp.ml.features import FeatureStore
from cnsapp.ml.preprocess import TRAIN_VIEWS, Pixels, make_view
from cnsapp.ml.streams import batches, prefetch
from cnsapp.services import jobs, suggestion_runs
from cnsapp.services.images import reading_rule
from cnsapp.services.import_source import limits_of
from cnsapp.services.looks import follow_features
from cnsapp.tasks.quality import Measuring
from cnsapp.tasks.reading import read_ahead
from cnsapp.tasks.resources import (
    Source,
    extractor_of,
    feature_key,
    feature_store,
    read_pixels,
)
from db.models import Image, Job

CHUNK = 32  # images between two looks at "cancel" and two writes to disk
LOOK_SECONDS = 2.0  # between two looks whether a training run waits behind us


@dataclass
class Failures:
    """Images that could not be read, with the reason."""

    files: list[dict[str, str]] = field(default_factory=list)
    image_ids: set[int] = field(default_factory=set)

    def add(self, source: Source, error: CnsError) -> None:
        """Note one."""
        self.files.append({"file": source.name, "reason": error.what})
        self.image_ids.add(source.image_id)


class TrainingWaits(Exception):
    """A training run waits behind the job, which should end and go on later."""


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Compute what is missing, labelled images first; give way to a training run that waits."""
    project_id = _project_of(job)
    backbone = str(job.payload.get("backbone", DEFAULT_BACKBONE))
    turn = Turn(app, job)
    try:
        rule = reading_rule(app.store, project_id=project_id)
        sources = list_sources(app, project_id, rule)
        quality = Measuring(app, project_id, sources)

        def pause() -> None:
            quality.flush()
            turn.look()

        n, failures = compute(
            app, job, sources, backbone, rule=rule, span=(0.0, 0.95), pause=pause,
            look=quality.look,
        )  # fmt: skip
        quality.finish(job, rule, turn.look)
    except TrainingWaits:
        rest = jobs.submit_job(app.store, kind="features", project_id=project_id)
        return {"computed": None, "goes_on_as": rest}
    follow_features(app.store, project_id=project_id)
    if n:
        suggestion_runs.refresh_soon(app.store, project_id=project_id)
    return {"computed": n, "failed": failures.files[:200]}


def list_sources(app: App, project_id: int, rule: ReadingRule) -> list[Source]:
    """Return the readable images of a project as the rule reads them, labelled ones first."""
    first = case((Image.current_state == "label", 0), else_=1)
    with app.store.reading() as session:
        rows = session.execute(
            select(Image.id, Image.sha256, Image.stored_path, Image.file_name, Image.facts)
            .where(Image.project_id == project_id, Image.status == "ok")
            .order_by(first, Image.id)
        )
        return [
            Source(i, sha, app.store.path(path), name, rule.seen(facts))
            for i, sha, path, name, facts in rows.yield_per(1000)
        ]


def compute(
    app: App,
    job: JobContext,
    sources: Sequence[Source],
    backbone: str,
    *,
    rule: ReadingRule,
    span: tuple[float, float] = (0.0, 1.0),
    pause: Callable[[], None] | None = None,
    look: Callable[[Source, Pixels], None] | None = None,
    views: Sequence[str] = TRAIN_VIEWS,
) -> tuple[int, Failures]:
    """Compute the features that these images lack; return how many and what could not be read.

    `rule` is how the images are read, `span` the part of the job's progress that this takes.
    `look` is shown every picture that is decoded, from several threads. `views` are those that
    are computed (`cnsapp.ml.preprocess.make_view`).
    """
    job.progress(span[0], "Looking for images without features")
    extractor = extractor_of(app, backbone)
    kept = feature_store(app, extractor)
    todo = _missing(kept, {feature_key(s): s for s in sources}, views)
    failures = Failures()
    reading = _read(todo, extractor.preprocessing.size, rule, limits_of(app), failures, look)
    began, done, had = time.monotonic(), 0, len(sources) - len(todo)
    for keys, pictures in prefetch(reading, ahead=2):
        job.check_cancelled()
        if pause is not None:
            pause()
        if keys:
            rows = extractor.extract_views(pictures, views, keys)
            for v, view in enumerate(views):
                kept.put(keys, view, rows[:, v])
        done = min(done + CHUNK, len(todo))
        fraction = span[0] + (span[1] - span[0]) * (had + done) / len(sources)
        job.progress(fraction, _message(had, done, len(sources), time.monotonic() - began))
    return len(todo) - len(failures.files), failures


def _missing(
    kept: FeatureStore, sources: dict[str, Source], views: Sequence[str]
) -> list[tuple[str, Source]]:
    absent: dict[str, None] = {}
    for view in views:
        absent |= dict.fromkeys(kept.missing(list(sources), view))
    return [(key, sources[key]) for key in sources if key in absent]


def _read(
    todo: Sequence[tuple[str, Source]],
    size: int,
    rule: ReadingRule,
    limits: Limits,
    failures: Failures,
    look: Callable[[Source, Pixels], None] | None = None,
) -> Iterator[tuple[list[str], list[Pixels]]]:
    """Yield chunks of keys and pictures at network size; what cannot be read is noted."""

    def read(wanted: tuple[str, Source]) -> Pixels:
        pixels = read_pixels(wanted[1].path, rule, limits)
        if look is not None:
            look(wanted[1], pixels)
        return make_view(pixels, size)

    for part in batches(read_ahead(read, todo, lambda wanted: wanted[1].path), CHUNK):
        keys, pictures = [], []
        for (key, source), picture in part:
            try:
                pictures.append(picture.result())
            except UnreadableImageError as error:
                failures.add(source, error)
                continue
            keys.append(key)
        yield keys, pictures


class Turn:
    """Notices a training run that waits in the same queue: it must not wait for an hour of us."""

    def __init__(self, app: App, job: JobContext) -> None:
        self._app, self._job, self._next = app, job, 0.0

    def look(self) -> None:
        """Raise when a training run waits."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        with self._app.store.reading() as session:
            waits = select(Job.id).where(
                Job.kind.in_(("train", "search")),
                Job.state == "queued",
                Job.paused.is_(False),
                Job.id > self._job.id,
            )
            if session.scalar(waits.limit(1)) is not None:
                raise TrainingWaits


def time_left(done: int, total: int, seconds: float) -> str:
    """Return how long the rest takes at the present rate, in words."""
    left = (total - done) * seconds / max(done, 1)
    if left < 2:
        return "a moment left"
    return f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left"


def _message(had: int, done: int, total: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-6)
    left = time_left(done, total - had, seconds)
    return f"Features of {had + done:,} of {total:,} images, {rate:.0f} a second, {left}"


def _project_of(job: JobContext) -> int:
    if job.project_id is None:
        raise CnsError("The job names no project.", "", "Start it from a project's page.")
    return job.project_id
