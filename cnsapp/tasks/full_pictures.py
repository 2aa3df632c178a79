"""Decode the pictures of a run once; a file that cannot be read is left out, and said."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, UnreadableImageError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext
from cnsapp.ml.decoded import DecodedPictures
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.services.import_source import limits_of
from cnsapp.services.run_folders import decoded_folder
from cnsapp.tasks.features import Failures, time_left
from cnsapp.tasks.reading import read_ahead
from cnsapp.tasks.resources import Source, feature_key, read_pixels


def decode(
    app: App,
    job: JobContext,
    sources: Sequence[Source],
    rule: ReadingRule,
    size: int,
    *,
    span: tuple[float, float],
) -> tuple[NDArray[np.uint8], Failures]:
    """Return the pictures (N, S, S, 3) of these images, in order, and what could not be read.

    What an earlier run of the same images has decoded is used again.
    """
    pictures = DecodedPictures(decoded_folder(app.store), [feature_key(s) for s in sources], size)
    os.utime(pictures.file)  # in use: it is not cleared away
    failures, limits = Failures(), limits_of(app)
    todo = [(int(row), sources[row]) for row in pictures.missing]

    def read(item: tuple[int, Source]) -> Pixels:
        return make_view(read_pixels(item[1].path, rule, limits), size)

    def readable() -> Iterator[tuple[int, Pixels]]:
        for (row, source), picture in read_ahead(read, todo, lambda item: item[1].path):
            try:
                yield row, picture.result()
            except UnreadableImageError as error:
                failures.add(source, error)

    began = time.monotonic()
    had = len(sources) - len(todo)

    def tell(done: int, total: int) -> None:
        left = time_left(done - had, total - had, time.monotonic() - began)
        fraction = span[0] + (span[1] - span[0]) * done / max(total, 1)
        job.progress(fraction, f"{done:,} of {total:,} pictures decoded, {left}")

    if todo:
        job.progress(span[0], f"Decoding {len(todo):,} pictures at {size} px, once")
        try:
            pictures.fill(readable(), progress=tell, cancelled=job.is_stopping)
        except Cancelled:
            job.check_cancelled()
            raise
    return pictures.pixels(), failures
