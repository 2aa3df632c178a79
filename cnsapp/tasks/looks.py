"""Sort a project's images by looks, from the features that are kept: similar, clusters, map."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import DEFAULT_BACKBONE
from cnsapp.errors import CnsError
from cnsapp.jobs.context import JobContext
from cnsapp.ml import looks
from cnsapp.ml.features import FeatureStore
from cnsapp.ml.streams import batches
from cnsapp.services import looks as service
from cnsapp.services.images import reading_rule
from cnsapp.services.looks_files import sign_of, write_index
from cnsapp.tasks.features import TrainingWaits, Turn, list_sources
from cnsapp.tasks.resources import Source, extractor_of, feature_key, feature_store

CHUNK = 2000  # feature rows in memory at once


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Make the index anew and put it in the place of the old one; give way to a training run."""
    if job.project_id is None:
        raise CnsError("The job names no project.", "", "Start it from a project's page.")
    turn = Turn(app, job)

    def check() -> None:
        job.check_cancelled()
        turn.look()

    try:
        return _make(app, job, job.project_id, check)
    except TrainingWaits:
        return {"goes_on_as": service.queue_looks(app.store, project_id=job.project_id)}


def _make(app: App, job: JobContext, project_id: int, check: Callable[[], None]) -> dict[str, Any]:
    began = time.monotonic()
    job.progress(0.01, "Looking for the features")
    extractor = extractor_of(app, DEFAULT_BACKBONE)
    kept = feature_store(app, extractor)
    rule = reading_rule(app.store, project_id=project_id)
    found = sorted(list_sources(app, project_id, rule), key=lambda source: source.image_id)
    missing = set(kept.missing([feature_key(source) for source in found]))
    sources = [source for source in found if feature_key(source) not in missing]
    unread = [source.image_id for source in found if feature_key(source) in missing]
    if not sources:
        raise CnsError(
            "There are no features of this project's images yet.",
            "Images are sorted by what the network makes of them.",
            "Import images, or wait until their features are computed.",
        )
    n_columns = extractor.layout.n_network  # without the colour: a stain is no likeness
    rows, explained = _project(kept, sources, n_columns, job, check)
    job.progress(0.35, f"Clusters of {len(rows):,} images")
    clusters, ratio = looks.cluster(rows)
    check()
    job.progress(0.4, f"A map of {len(rows):,} images")
    places, method = looks.make_map(rows, check)
    job.progress(0.97, "Writing")
    ids = np.array([source.image_id for source in sources], np.int64)
    signs = np.array([sign_of(source.sha256, source.seen) for source in sources], np.int64)
    write_index(
        app.store,
        project_id=project_id,
        arrays={
            "ids": ids, "signs": signs, "rows": rows, "clusters": clusters, "ratio": ratio,
            "places": places, "unread": np.array(unread, np.int64),
        },
        facts={
            "features": extractor.spec_id,
            "map_method": method,
            "explained": explained,
        },
    )  # fmt: skip
    return {
        "images": len(ids),
        "without_features": len(unread),
        "clusters": int(clusters.max()) + 1,
        "dimensions": rows.shape[1],
        "map": method,
        "seconds": round(time.monotonic() - began, 1),
    }


def _project(
    kept: FeatureStore,
    sources: Sequence[Source],
    n_columns: int,
    job: JobContext,
    check: Callable[[], None],
) -> tuple[looks.Floats, float]:
    """Return the unit rows of all images, and the share of the variance that they hold."""

    def load(part: Sequence[Source]) -> looks.Floats:
        check()
        return kept.load([feature_key(source) for source in part])[:, 0, :n_columns]

    some = [sources[i] for i in looks.sample_of(len(sources))]
    job.progress(0.03, f"Axes of {len(some):,} images")
    learnt_from = np.concatenate([load(part) for part in batches(some, CHUNK)])
    projection = looks.Projection.fit(learnt_from)
    del learnt_from
    rows = np.empty((len(sources), projection.axes.shape[1]), np.float32)
    done = 0
    for part in batches(sources, CHUNK):
        rows[done : done + len(part)] = projection.apply(load(part))
        done += len(part)
        job.progress(0.1 + 0.25 * done / len(sources), f"{done:,} of {len(sources):,} images")
    return rows, projection.explained
