"""Measure images beside their features, while they are decoded anyway, then look for duplicates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from cnsapp.bootstrap import App
from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.quality import measure
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext
from cnsapp.ml.preprocess import Pixels
from cnsapp.ml.streams import batches
from cnsapp.services.import_source import limits_of
from cnsapp.services.quality_scan import QualityRow, keep_measures, refresh, unmeasured
from cnsapp.services.split_rows import assign_new
from cnsapp.tasks.resources import Source, feature_key, read_pixels

CHUNK = 64  # images between two looks at "cancel" and two writes


class Measuring:
    """Measures the images of a project that were not measured yet, as the rule reads them."""

    def __init__(self, app: App, project_id: int, sources: Sequence[Source]) -> None:
        self._app, self._project_id = app, project_id
        missing = unmeasured(
            app.store, project_id=project_id, seen={s.image_id: s.seen for s in sources}
        )
        self._todo: dict[str, list[Source]] = {}  # images with the same bytes are measured once
        for source in sources:
            if source.image_id in missing:
                self._todo.setdefault(feature_key(source), []).append(source)
        self._done: deque[QualityRow] = deque()  # filled by the threads that read

    def look(self, source: Source, pixels: Pixels) -> None:
        """Measure a picture that was decoded, where it lacks that."""
        same = self._todo.pop(feature_key(source), None)
        if same is None:
            return
        measures, signature = measure(pixels)
        kept = measures.as_json()
        self._done.extend(QualityRow(s.image_id, s.seen, kept, signature) for s in same)

    def flush(self) -> None:
        """Store what was measured meanwhile."""
        rows = [self._done.popleft() for _ in range(len(self._done))]
        if rows:
            keep_measures(self._app.store, project_id=self._project_id, rows=rows)

    def finish(self, job: JobContext, rule: ReadingRule, pause: Callable[[], None]) -> None:
        """Measure the images whose features were there already, then derive flags and pairs."""
        self.flush()
        left = [sources[0] for sources in self._todo.values()]
        limits = limits_of(self._app)
        for k, part in enumerate(batches(left, CHUNK)):
            job.check_cancelled()
            pause()
            for source in part:
                try:
                    self.look(source, read_pixels(source.path, rule, limits))
                except UnreadableImageError:
                    continue  # the import and the features name it
            self.flush()
            n = min((k + 1) * CHUNK, len(left))
            job.progress(0.95, f"Quality of {n:,} of {len(left):,} images")
        refresh(
            self._app.store,
            project_id=self._project_id,
            progress=lambda message: job.progress(0.97, message),
        )
        assign_new(self._app.store, self._project_id)  # by now it is known what shows the same
