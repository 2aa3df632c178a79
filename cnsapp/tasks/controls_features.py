"""The features that controls read: by hand, and of the last layer; computed once, kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, UnreadableImageError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext
from cnsapp.ml import handmade
from cnsapp.ml.features import FeatureExtractor, FeatureStore, Floats
from cnsapp.ml.preprocess import CLEAN, Pixels, make_view
from cnsapp.ml.streams import batches
from cnsapp.services.import_source import limits_of
from cnsapp.tasks.features import time_left
from cnsapp.tasks.reading import read_ahead
from cnsapp.tasks.resources import Source, feature_key, read_pixels

CHUNK = 32  # images between two writes to disk


@dataclass(frozen=True)
class Kept:
    """Rows of all images, and the seconds spent on the `n_new` that were not kept yet."""

    rows: Floats
    n_new: int
    seconds: float


def handmade_features(
    app: App,
    job: JobContext,
    sources: Sequence[Source],
    rule: ReadingRule,
    check: Callable[[], None],
    span: tuple[float, float],
) -> Kept:
    """Return colour and texture by hand, (N, D)."""
    names = handmade.columns().names
    kept = FeatureStore(app.store.path("features"), handmade.spec_id(), len(names))

    def describe(pictures: Sequence[Pixels]) -> Floats:
        return np.stack([handmade.describe(picture) for picture in pictures])

    return _kept(
        app, job, sources, rule, check, span, kept, describe, handmade.SIDE, "Colour and texture"
    )


def last_layer_features(
    app: App,
    job: JobContext,
    sources: Sequence[Source],
    rule: ReadingRule,
    check: Callable[[], None],
    span: tuple[float, float],
    backbone: str,
    extractor: FeatureExtractor | None = None,
) -> Kept:
    """Return the means of the frozen backbone's last stage, (N, D), of the clean view."""
    if extractor is None:
        job.progress(span[0], "Loading the whole network")
        # not kept in memory: a training has no use for the last stages
        extractor = FeatureExtractor(backbone, None, app.store.path("weights"), whole=True)
    kept = last_layer_store(app.store.path("features"), extractor)
    whole = extractor

    def last(pictures: Sequence[Pixels]) -> Floats:
        return last_layer_of(whole, whole.extract(list(pictures)))

    size = extractor.preprocessing.size
    return _kept(app, job, sources, rule, check, span, kept, last, size, "Last layer")


def last_layer_store(folder: Path, whole: FeatureExtractor) -> FeatureStore:
    """Return where the last layer of a whole network is kept."""
    name = hashlib.sha256(f"last layer of {whole.spec_id}".encode()).hexdigest()[:16]
    _, start, stop = whole.layout.stages[-1]
    return FeatureStore(folder, name, (stop - start) // 2)


def last_layer_of(whole: FeatureExtractor, rows: Floats) -> Floats:
    """Return the means (N, D) of the last stage of feature rows (N, columns)."""
    _, start, stop = whole.layout.stages[-1]
    return rows[:, start : start + (stop - start) // 2]


def _kept(
    app: App,
    job: JobContext,
    sources: Sequence[Source],
    rule: ReadingRule,
    check: Callable[[], None],
    span: tuple[float, float],
    kept: FeatureStore,
    make: Callable[[Sequence[Pixels]], Floats],
    size: int,
    what: str,
) -> Kept:
    by_key = {feature_key(source): source for source in sources}
    todo = [(key, by_key[key]) for key in kept.missing(list(by_key))]
    began, done, had = time.monotonic(), 0, len(by_key) - len(todo)
    for part in batches(pictures_of(app, todo, size, rule), CHUNK):
        check()
        keys, pictures = [key for key, _ in part], [picture for _, picture in part]
        kept.put(keys, CLEAN, make(pictures))
        done += len(part)
        left = time_left(done, len(todo), time.monotonic() - began)
        fraction = span[0] + (span[1] - span[0]) * (had + done) / len(by_key)
        job.progress(fraction, f"{what} of {had + done:,} of {len(by_key):,} images, {left}")
    seconds = time.monotonic() - began if todo else 0.0
    return Kept(kept.load([feature_key(s) for s in sources])[:, 0], len(todo), round(seconds, 1))


def pictures_of(
    app: App, todo: Sequence[tuple[str, Source]], size: int, rule: ReadingRule
) -> Iterator[tuple[str, Pixels]]:
    """Yield keys and pictures at network size, read a few ahead.

    Raises
    ------
    CnsError
        A picture can no longer be read: then the comparison would not be on the same images.
    """
    limits = limits_of(app)

    def read(wanted: tuple[str, Source]) -> Pixels:
        return make_view(read_pixels(wanted[1].path, rule, limits), size)

    for (key, source), picture in read_ahead(read, todo, lambda wanted: wanted[1].path):
        try:
            yield key, picture.result()
        except UnreadableImageError as error:
            raise CnsError(
                f"{source.name} can no longer be read: {error.what}",
                "Simpler methods are judged on the very images that the model was scored on.",
                "Put the file back, or exclude it and train again.",
            ) from error
