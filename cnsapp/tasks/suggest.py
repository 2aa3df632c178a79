"""Make the suggestions of a project anew from its labels and the features that are kept."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, select

from cnsapp.bootstrap import App
from cnsapp.domain.metrics import evaluate
from cnsapp.domain.presets import DEFAULT_BACKBONE
from cnsapp.domain.suggestions import figures_of
from cnsapp.errors import CnsError
from cnsapp.jobs.context import JobContext
from cnsapp.ml.suggest import Guesses, suggest
from cnsapp.services.images import reading_rule
from cnsapp.tasks.features import list_sources
from cnsapp.tasks.resources import extractor_of, feature_key, feature_store
from db.models import Image, LabelEvent, Suggestion, SuggestionRun
from db.queries import chunks, upsert
from db.session import Store

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
PAUSE = 0.002  # seconds between transactions, for those who label
KEPT_BYTES = 600_000_000  # of feature rows kept in memory between two refreshes
PART = 2000  # feature rows read at once
RANDOM_PICK = "random-"  # how the actions of the queue's random share begin


@dataclass(frozen=True)
class Labelled:
    """A labelled image as the head learns from it."""

    image_id: int
    class_id: int
    group: str | None
    name: str
    accepted: bool  # the label is a suggestion that somebody accepted: no test of suggestions
    at_random: bool  # it was picked at random, not because a model doubted it


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Fit the head, guess every image that has features, store guesses and figures."""
    if job.project_id is None:
        raise CnsError("The job names no project.", "", "Start it from a project's page.")
    began = time.monotonic()
    job.progress(0.02, "Looking for labels and features")
    newest, labels = read_labels(app.store, job.project_id)
    class_ids = sorted({label.class_id for label in labels})
    if len(class_ids) < 2:
        return _nothing(newest, "Suggestions need labels of at least two classes.")
    image_ids, features = features_of(app, job)
    place = {image_id: at for at, image_id in enumerate(image_ids.tolist())}
    labels = [label for label in labels if label.image_id in place]
    class_ids = sorted({label.class_id for label in labels})
    if len(class_ids) < 2:
        return _nothing(newest, "The labelled images have no features yet.")
    job.progress(0.4, f"Learning from {len(labels):,} labels")
    rows = np.array([place[label.image_id] for label in labels])
    y = np.array([class_ids.index(label.class_id) for label in labels])
    guesses = suggest(
        features,
        rows,
        y,
        len(class_ids),
        groups=[label.group for label in labels],
        names=[label.name for label in labels],
    )
    job.check_cancelled()
    figures = score(guesses, labels, y, class_ids, rows)
    figures["scheme"] = guesses.scheme
    job.progress(0.5, f"Storing {len(image_ids):,} suggestions")
    run_id = begin_run(app.store, job, len(labels), len(image_ids), newest, class_ids)
    told = dict(zip(rows.tolist(), y.tolist(), strict=True))
    store_guesses(app.store, job, run_id, image_ids, guesses.probabilities, class_ids, told)
    finish_run(app.store, job.project_id, run_id, figures, time.monotonic() - began)
    return {
        "suggested": len(image_ids),
        "labels": len(labels),
        "run_id": run_id,
        "newest_event": newest,
    }


def _nothing(newest: int, reason: str) -> dict[str, Any]:
    return {"suggested": 0, "reason": reason, "newest_event": newest}


def read_labels(store: Store, project_id: int) -> tuple[int, list[Labelled]]:
    """Return the newest label event, and the labelled images; read in this order."""
    with store.reading() as session:
        newest = session.scalar(select(func.max(LabelEvent.id))) or 0
        rows = session.execute(
            select(
                Image.id,
                Image.current_class_id,
                Image.group_key,
                Image.file_name,
                Image.current_source,
                LabelEvent.action,
            )
            .join(LabelEvent, LabelEvent.id == Image.current_event_id)
            .where(
                Image.project_id == project_id,
                Image.status == "ok",
                Image.current_state == "label",
            )
            .order_by(Image.id)
        ).all()
    return newest, [
        Labelled(i, cls, group, name, source == "suggestion", action.startswith(RANDOM_PICK))
        for i, cls, group, name, source, action in rows
        if cls is not None
    ]


# --- features, kept between refreshes ---


class _Kept:
    """Feature rows of the projects that were refreshed last, in memory as 16-bit floats."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, tuple[dict[str, int], NDArray[np.float16]]] = OrderedDict()

    def get(self, name: str) -> tuple[dict[str, int], NDArray[np.float16]] | None:
        with self._lock:
            return self._rows.get(name)

    def put(self, name: str, places: dict[str, int], rows: NDArray[np.float16]) -> None:
        with self._lock:
            self._rows.pop(name, None)
            self._rows[name] = (places, rows)
            while len(self._rows) > 1 and self._size() > KEPT_BYTES:
                self._rows.popitem(last=False)
            if self._size() > KEPT_BYTES:
                self._rows.clear()

    def _size(self) -> int:
        return sum(rows.nbytes for _, rows in self._rows.values())


_kept = _Kept()


def features_of(app: App, job: JobContext) -> tuple[Ints, Floats]:
    """Return the images of the job's project that have features, ascending, and their rows."""
    project_id = job.project_id or 0
    extractor = extractor_of(app, DEFAULT_BACKBONE)
    files = feature_store(app, extractor)
    columns = extractor.layout.columns(extractor.backbone.row.head_stages)
    rule = reading_rule(app.store, project_id=project_id)
    sources = sorted(list_sources(app, project_id, rule), key=lambda source: source.image_id)
    keys = [feature_key(source) for source in sources]
    name = f"{app.store.root}/{project_id}/{extractor.spec_id}"
    places, rows = _kept.get(name) or ({}, np.zeros((0, len(columns)), np.float16))
    new = list(dict.fromkeys(key for key in keys if key not in places))
    lacking = set(files.missing(new))
    new = [key for key in new if key not in lacking]
    if new:
        parts = [rows]
        for part in _parts(new):
            job.check_cancelled()
            parts.append(files.load(part)[:, 0][:, columns].astype(np.float16))
        rows = np.concatenate(parts)
        places = {**places, **{key: len(places) + at for at, key in enumerate(new)}}
        _kept.put(name, places, rows)
    used = [(source, places[key]) for source, key in zip(sources, keys, strict=True)
            if key in places]  # fmt: skip
    ids = np.array([source.image_id for source, _ in used], np.int64)
    at = np.array([place for _, place in used], np.int64)
    return ids, rows[at].astype(np.float32)


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return chunks(keys, PART)


# --- figures ---


def score(
    guesses: Guesses, labels: Sequence[Labelled], y: Ints, class_ids: list[int], rows: Ints
) -> dict[str, Any]:
    """Return how good the guesses are, by labels that no model proposed and no fold had seen."""
    held = np.isfinite(guesses.held_out).all(axis=1)
    accepted = np.array([label.accepted for label in labels])
    unlabelled = np.ones(len(guesses.probabilities), bool)
    unlabelled[rows] = False
    sure = guesses.probabilities[unlabelled].max(axis=1)

    def judged(which: NDArray[np.bool_]) -> dict[str, Any]:
        groups = [label.group for label, use in zip(labels, which, strict=True) if use]
        chances, true = guesses.held_out[which], y[which]
        found = evaluate(true, chances.argmax(axis=1), len(class_ids), groups)
        return figures_of(found, chances, true, sure, class_ids)

    figures = judged(held & ~accepted)
    at_random = held & ~accepted & np.array([label.at_random for label in labels])
    if at_random.sum() >= 50:
        figures["at_random"] = judged(at_random)
    figures["n_accepted"] = int(accepted.sum())
    return figures


# --- the rows ---


def begin_run(
    store: Store, job: JobContext, n_labels: int, n_images: int, newest: int, class_ids: list[int]
) -> int:
    """Return the row of this job's refresh; a job that runs again goes on with its own."""
    with store.writing() as session:
        mine = select(SuggestionRun).where(SuggestionRun.job_id == job.id)
        there: SuggestionRun | None = session.scalars(mine).first()
        row = there or SuggestionRun(project_id=job.project_id, job_id=job.id)
        row.n_labels, row.n_images, row.newest_event = n_labels, n_images, newest
        row.class_ids, row.figures = class_ids, {}  # no figures: it is not finished
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
    order = np.argsort(-probabilities, axis=1)[:, :3]
    best = np.take_along_axis(probabilities, order, axis=1)
    known = np.array(class_ids)
    done = 0
    for part in chunks(range(len(image_ids))):
        if done:
            time.sleep(PAUSE)
            job.check_cancelled()
        values = [
            {
                "image_id": int(image_ids[i]),
                "project_id": job.project_id,
                "run_id": run_id,
                "class_id": int(known[order[i, 0]]),
                "confidence": float(best[i, 0]),
                "margin": float(best[i, 0] - best[i, 1]),
                "loss": _loss(probabilities[i, told[i]]) if i in told else None,
                "top": [[int(known[k]), round(float(p), 4)] for k, p in
                        zip(order[i], best[i], strict=True)],
            }
            for i in part
        ]  # fmt: skip
        with store.writing() as session:
            upsert(session, Suggestion, values, ["image_id"])
        done += len(part)


def _loss(probability: float) -> float:
    return float(-np.log(max(probability, 1e-12)))


def finish_run(
    store: Store, project_id: int, run_id: int, figures: dict[str, Any], seconds: float
) -> None:
    """Drop guesses of images that are gone or have no features, and make the run the newest."""
    stale = select(Suggestion.image_id).where(
        Suggestion.project_id == project_id, Suggestion.run_id != run_id
    )
    while True:
        with store.reading() as session:
            ids = session.scalars(stale.limit(500)).all()
        if not ids:
            break
        with store.writing() as session:
            session.execute(delete(Suggestion).where(Suggestion.image_id.in_(ids)))
        time.sleep(PAUSE)
    with store.writing() as session:
        row = session.get_one(SuggestionRun, run_id)
        row.figures, row.seconds = figures, seconds
