"""Make the suggestions of a project anew from its labels and the features that are kept."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.domain.metrics import evaluate
from cnsapp.domain.recipe import DEFAULT_BACKBONE
from cnsapp.domain.suggestions import figures_of
from cnsapp.domain.together import known_groups, tied_groups
from cnsapp.errors import CnsError
from cnsapp.jobs.context import JobContext
from cnsapp.ml.suggest import Guesses, suggest
from cnsapp.services import suggestion_runs
from cnsapp.services.looks_label import CLEAR_ACTION
from cnsapp.services.queue_rules import RANDOM_ACTION
from cnsapp.services.split_rows import fold, picture_keys
from cnsapp.services.splits import test_ids
from cnsapp.tasks.resources import extractor_of, feature_store, key_of
from cnsapp.tasks.suggest_rows import begin_run, finish_run, store_guesses
from db.models import Image, LabelEvent
from db.queries import chunks
from db.session import Store

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
KEPT_BYTES = 600_000_000  # of feature rows kept in memory between two refreshes
PART = 2000  # feature rows read at once
LEAST_AT_RANDOM = 50  # of the queue's random share, from which they have figures of their own


@dataclass(frozen=True)
class Labelled:
    """A labelled image as the head learns from it."""

    image_id: int
    class_id: int
    group: str | None
    name: str
    accepted: bool  # accepted among many, or corrected after that: no test of suggestions
    at_random: bool  # it was picked at random, not because a model doubted it
    easy: bool  # one of a cluster's clear images: on these any model is right


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
    image_ids, pictures, features = features_of(app, job)
    place = {image_id: at for at, image_id in enumerate(image_ids.tolist())}
    labels = [label for label in labels if label.image_id in place]
    class_ids = sorted({label.class_id for label in labels})
    if len(class_ids) < 2:
        return _nothing(newest, "The labelled images have no features yet.")
    job.progress(0.4, f"Learning from {len(labels):,} labels")
    rows = np.array([place[label.image_id] for label in labels])
    y = np.array([class_ids.index(label.class_id) for label in labels])
    first, stands_for = one_of_each(pictures[rows], y)
    if len(np.unique(y[first])) < 2:
        return _nothing(newest, "The same pictures have different labels: nothing can be learnt.")
    guesses = suggest(
        features,
        rows[first],
        y[first],
        len(class_ids),
        groups=[labels[i].group for i in first],
        names=[labels[i].name for i in first],
    )
    job.check_cancelled()
    copies = np.flatnonzero(stands_for >= 0)  # they are told what a head without them said
    guesses.probabilities[rows[copies]] = guesses.probabilities[rows[first[stands_for[copies]]]]
    figures = score(guesses, [labels[i] for i in first], y[first], class_ids, rows)
    figures |= {"scheme": guesses.scheme, "n_learnt": guesses.n_learnt}
    job.progress(0.5, f"Storing {len(image_ids):,} suggestions")
    run_id = begin_run(app.store, job, len(labels), len(image_ids), newest, class_ids)
    told = dict(zip(rows.tolist(), y.tolist(), strict=True))
    store_guesses(app.store, job, run_id, image_ids, guesses.probabilities, class_ids, told)
    finish_run(app.store, run_id, figures, time.monotonic() - began)
    # who labelled meanwhile was told that a refresh is under way, but this one does not know it
    suggestion_runs.refresh_if_due(app.store, project_id=job.project_id, but=job.id)
    return {
        "suggested": len(image_ids),
        "labels": len(labels),
        "run_id": run_id,
        "newest_event": newest,
    }


def one_of_each(pictures: Ints, y: Ints) -> tuple[Ints, Ints]:
    """Return which labelled images to learn from, and which of these the copies stand for.

    Copies of one picture would be learnt from and judged by at once. Where their labels differ, one
    is wrong, and none is learnt from.

    Parameters
    ----------
    pictures
        (L,) number of each image's picture.
    y
        (L,) class of each.

    Returns
    -------
    Places (M,) of those to learn from; for each image the place in that list of its copy, or -1
    where it is in the list itself or its picture is left out.
    """
    of_picture: dict[int, list[int]] = {}
    for at, picture in enumerate(pictures.tolist()):
        of_picture.setdefault(picture, []).append(at)
    first: list[int] = []
    stands_for = np.full(len(y), -1)
    for same in of_picture.values():
        if len(set(y[same].tolist())) == 1:
            stands_for[same[1:]] = len(first)
            first.append(same[0])
    return np.array(first, np.int64), stands_for


def _nothing(newest: int, reason: str) -> dict[str, Any]:
    return {"suggested": 0, "reason": reason, "newest_event": newest}


def read_labels(store: Store, project_id: int) -> tuple[int, list[Labelled]]:
    """Return the newest label event, and the labelled images; read in this order.

    Images of a locked test set are not among them: they are suggested for, and never learnt from.
    Groups are those of a training: “P07” and “p07” are one, and so are two that share a picture.
    """
    with store.reading() as session:
        newest = session.scalar(select(func.max(LabelEvent.id))) or 0
        rows = session.execute(
            select(
                Image.id,
                Image.current_class_id,
                Image.group_key,
                Image.file_name,
                LabelEvent.action,
                Image.sha256,
            )
            .join(LabelEvent, LabelEvent.id == Image.current_event_id)
            .where(
                Image.project_id == project_id,
                Image.status == "ok",
                Image.current_state == "label",
            )
            .order_by(Image.id)
        ).all()
        together = _accepted_together(session, project_id)
        locked = test_ids(session, project_id)
        pictures = picture_keys(session, project_id, [r[0] for r in rows], [r[5] for r in rows])
    folded: dict[str, str] = {}
    groups = [fold(row[2], folded) for row in rows]
    if any(pictures):
        groups, _ = tied_groups(groups, pictures)
    return newest, [
        Labelled(
            i,
            cls,
            group,
            name,
            accepted=i in together,
            at_random=action.startswith(RANDOM_ACTION),
            easy=action.startswith(CLEAR_ACTION),
        )
        for (i, cls, _, name, action, _), group in zip(rows, groups, strict=True)
        if cls is not None and i not in locked
    ]


def _accepted_together(session: Session, project_id: int) -> set[int]:
    """Return the images whose suggestion was accepted among many at once, also those corrected.

    Nobody looked at each of these, so they would confirm themselves, and of those that somebody
    looked at later only the wrong ones got another label. One that was accepted by itself is a
    judgement like a label by hand: without these, corrections alone would be left to judge by.
    """
    rows = session.execute(
        select(LabelEvent.image_id, LabelEvent.action).where(
            LabelEvent.project_id == project_id,
            LabelEvent.source == "suggestion",
            LabelEvent.kind == "label",
        )
    ).all()
    n = Counter(action for _, action in rows)
    return {image_id for image_id, action in rows if n[action] > 1}


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


def features_of(app: App, job: JobContext) -> tuple[Ints, Ints, NDArray[np.float16]]:
    """Return the images of the job's project that have features, and the rows of these.

    Returns
    -------
    Ids (N,) ascending; the number of each one's picture (N,), the same for copies; rows (N, D).
    """
    project_id = job.project_id or 0
    extractor = extractor_of(app, DEFAULT_BACKBONE)
    files = feature_store(app, extractor)
    columns = extractor.layout.columns(extractor.backbone.row.head_stages)
    listed = list_keys(app.store, project_id)
    keys = [key for _, key in listed]
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
    used = [(image_id, places[key]) for image_id, key in listed if key in places]
    table = np.array(used, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1], rows[table[:, 1]]


def list_keys(store: Store, project_id: int) -> list[tuple[int, str]]:
    """Return the images in use, ascending, with the names of their features.

    `tasks.features.list_sources` also reads what is known of each file: a second for 100,000.
    """
    with store.reading() as session:
        rows = session.execute(
            select(Image.id, Image.sha256, Image.seen)
            .where(Image.project_id == project_id, Image.status == "ok")
            .order_by(Image.id)
        ).all()
    return [(i, key_of(sha256, seen)) for i, sha256, seen in rows]


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return chunks(keys, PART)


# --- figures ---


def score(
    guesses: Guesses, labels: Sequence[Labelled], y: Ints, class_ids: list[int], rows: Ints
) -> dict[str, Any]:
    """Return how good the guesses are, by labels that no model proposed and no fold had seen.

    The clear images of clusters do not judge either: of colorectal tiles that were guessed at 0.95
    and more from these alone, a quarter was wrong where the clear ones themselves were nearly all
    right.
    """
    held = np.isfinite(guesses.held_out).all(axis=1)
    easy = np.array([label.easy for label in labels])
    accepted = np.array([label.accepted for label in labels])
    unlabelled = np.ones(len(guesses.probabilities), bool)
    unlabelled[rows] = False
    sure = guesses.probabilities[unlabelled].max(axis=1)

    def judged(which: NDArray[np.bool_]) -> dict[str, Any]:
        groups = [label.group for label, use in zip(labels, which, strict=True) if use]
        chances, true = guesses.held_out[which], y[which]
        found = evaluate(true, chances.argmax(axis=1), len(class_ids), known_groups(groups))
        return figures_of(found, chances, true, sure, class_ids)

    figures = judged(held & ~accepted & ~easy)
    at_random = held & ~accepted & ~easy & np.array([label.at_random for label in labels])
    figures["n_at_random"] = int(at_random.sum())
    if at_random.sum() >= LEAST_AT_RANDOM:
        figures["at_random"] = judged(at_random)
    figures["n_accepted"], figures["n_easy"] = int(accepted.sum()), int(easy.sum())
    return figures
