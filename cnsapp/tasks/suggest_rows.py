"""The rows of a refresh of the suggestions: written in short transactions, seen when whole.

A run is invisible until its last row is written. A worker that is killed meanwhile leaves the old
figures; when the job goes on it finds its run, and writes what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select

from cnsapp.jobs.context import JobContext
from cnsapp.services.suggestion_runs import UNFINISHED
from db.models import Suggestion, SuggestionRun
from db.queries import chunks, upsert
from db.session import Store

Ints = NDArray[np.int64]
PAUSE = 0.002  # seconds between transactions, for those who label
NOTICED = 0.005  # a change of a probability below which a row is not written again


def begin_run(
    store: Store, job: JobContext, n_labels: int, n_images: int, newest: int, class_ids: list[int]
) -> int:
    """Return the row of this job's refresh; a job that runs again goes on with its own."""
    with store.writing() as session:
        mine = select(SuggestionRun).where(SuggestionRun.job_id == job.id)
        there: SuggestionRun | None = session.scalars(mine).first()
        row = there or SuggestionRun(project_id=job.project_id, job_id=job.id)
        row.n_labels, row.n_images, row.newest_event = n_labels, n_images, newest
        row.class_ids, row.figures, row.seconds = class_ids, {}, UNFINISHED
        session.add(row)
        session.flush()
        return row.id


def store_guesses(
    store: Store,
    job: JobContext,
    run_id: int,
    image_ids: Ints,
    probabilities: NDArray[np.float64],
    class_ids: list[int],
    told: dict[int, int],
) -> None:
    """Write the guesses in short transactions; `told` is the label of each labelled row."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :3]
    best = np.take_along_axis(probabilities, order, axis=1)
    known = np.array(class_ids)
    loss = np.full(len(image_ids), np.nan)
    for i, k in told.items():
        loss[i] = -np.log(max(probabilities[i, k], 1e-12))
    now = _Rows(known[order[:, 0]], best[:, 0], best[:, 0] - best[:, 1], loss)
    before = _rows_before(store, job.project_id or 0)
    there = set(image_ids.tolist())
    _drop(store, [i for i in before if i not in there])
    written = now.differing(image_ids, before)
    for part in chunks(written.tolist()):
        job.check_cancelled()
        values = [
            {
                "image_id": int(image_ids[i]),
                "project_id": job.project_id,
                "run_id": run_id,
                "class_id": int(now.class_ids[i]),
                "confidence": float(now.confidence[i]),
                "margin": float(now.margin[i]),
                "loss": None if np.isnan(loss[i]) else float(loss[i]),
                "top": [[int(known[k]), round(float(p), 4)] for k, p in
                        zip(order[i], best[i], strict=True)],
            }
            for i in part
        ]  # fmt: skip
        with store.writing() as session:
            upsert(session, Suggestion, values, ["image_id"])
        time.sleep(PAUSE)


@dataclass(frozen=True)
class _Rows:
    """What the rows of suggestions hold, column by column; the loss is NaN without a label."""

    class_ids: Ints
    confidence: NDArray[np.float64]
    margin: NDArray[np.float64]
    loss: NDArray[np.float64]

    def differing(self, image_ids: Ints, before: dict[int, tuple[Any, ...]]) -> Ints:
        """Return the places of what must be written: what is new or has changed noticeably."""
        nothing = (0, 0.0, 0.0, None)
        old = np.array([before.get(i, nothing) for i in image_ids.tolist()], np.float64)
        lost = np.abs(np.exp(-self.loss) - np.exp(-old[:, 3])) < NOTICED
        same = (
            (self.class_ids == old[:, 0])
            & (np.abs(self.confidence - old[:, 1]) < NOTICED)
            & (np.abs(self.margin - old[:, 2]) < 2 * NOTICED)
            & (lost | (np.isnan(self.loss) & np.isnan(old[:, 3])))
        )
        return np.flatnonzero(~same)


def _rows_before(store: Store, project_id: int) -> dict[int, tuple[Any, ...]]:
    columns = (Suggestion.class_id, Suggestion.confidence, Suggestion.margin, Suggestion.loss)
    mine = select(Suggestion.image_id, *columns).where(Suggestion.project_id == project_id)
    with store.reading() as session:
        return {row[0]: tuple(row[1:]) for row in session.execute(mine)}


def _drop(store: Store, image_ids: Sequence[int]) -> None:
    """Drop the guesses of images that are gone or have no features."""
    for part in chunks(image_ids):
        with store.writing() as session:
            session.execute(delete(Suggestion).where(Suggestion.image_id.in_(part)))
        time.sleep(PAUSE)


def finish_run(store: Store, run_id: int, figures: dict[str, Any], seconds: float) -> None:
    """Make the run the newest that readers see."""
    with store.writing() as session:
        row = session.get_one(SuggestionRun, run_id)
        row.figures, row.seconds = figures, seconds
