"""How many labels, and how much of somebody's time, the queue, clusters and suggestions save.

A simulated person who knows the right classes labels real tissue; the heads, the vectors, the rules
of the queue, the clusters and their previews are the product's own, and her labels go through its
services into a store. A click or key costs her 0.8 s, a tile looked at 0.25 s.

What to believe of it: how many clusters there are, how many of their images count as clear and how
many previews there are was chosen while looking at crc5-he, the set that is scored, though with
other starts of k-means; and it is a set that suits them, since its classes look different. The note
of the row says what comes out on the other sets, where nothing was chosen: where looks do not tell
classes apart hardly any cluster shows six pictures of one class, so that little is labelled, and of
that little more is wrong. She never errs and never hesitates, which no person does.

CNS_TEST_DATA names the folder of sets, as for `accuracy`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from benchmarks.accuracy import cached_features, read_set
from benchmarks.rows import Row
from cnsapp.domain.calibration import fit_temperature, softmax
from cnsapp.domain.metrics import balanced_accuracy, confusion_matrix
from cnsapp.domain.queue import spread_order, start_strategy, uncertain_diverse
from cnsapp.domain.splits import grouped_folds
from cnsapp.ml.features import FeatureExtractor
from cnsapp.ml.heads import class_weights, fit_head
from cnsapp.ml.looks import Projection, cluster
from cnsapp.services import looks, projects
from db.models import Image
from db.queries import add_to_tally
from db.session import Store, open_store
from tests.looks import index_of
from tests.places import data_folder

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
SET = "crc5-he"
BATCH = 25
SEEDS = 8
STRENGTH = 0.01  # the middle of what a quick model chooses among
CLICK, SCAN = 0.8, 0.25  # seconds
FEW = 10  # clear images below which a cluster is not worth her looking; such come last in the list
STARTS = range(1, 11)  # of k-means: not 0, which the product takes
OTHERS = ("papsmear-herlev7", "bladder-endoscopy", "bccd-wbc5")
SURE, PREVIEW = 0.95, 24  # confidence of accepted suggestions; how many she looks at before


@dataclass(frozen=True)
class Tissue:
    """A set with what the product knows of each image: head columns, vectors; and the truth."""

    features: Floats  # (N, D)
    vectors: Floats  # (N, d) unit rows
    y: Ints

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return int(self.y.max()) + 1

    def fit(self, labelled: Ints, labels: Ints, images: Ints) -> NDArray[np.float64]:
        """Return logits (len(images), K) of the product's head, fitted to the labelled ones."""
        weight = class_weights(labels, self.n_classes)
        head = fit_head(self.features[labelled], labels, weight, STRENGTH, self.n_classes)
        z = (self.features[images] - head.mean) / head.std
        logits = np.asarray(z @ head.weight.T + head.bias, np.float64)
        unknown = np.setdiff1d(np.arange(self.n_classes), labels)
        logits[:, unknown] = -1e4
        return logits


def read_tissue(folder: Path) -> Tissue:
    """Return the set with its features, kept between runs like those of `accuracy`."""
    files, labels, _ = read_set(folder)
    extractor = FeatureExtractor()
    cache = Path(tempfile.gettempdir()) / "cnsapp-annotating"
    rows, _ = cached_features(extractor, files, ["clean"], cache)
    network, _ = extractor.layout.split(rows)
    clean = network[:, 0]
    columns = extractor.layout.columns(extractor.backbone.row.head_stages)
    vectors = Projection.fit(clean).apply(clean)
    return Tissue(clean[:, columns], vectors, np.unique(labels, return_inverse=True)[1])


def picks(tissue: Tissue, pool: Ints, got: list[int], seed: int) -> list[int]:
    """Return the next batch of the product's queue, as places in the pool."""
    y = tissue.y[pool[got]]
    left = np.setdiff1d(np.arange(len(pool)), got)
    n = min(BATCH, len(left))
    if start_strategy(np.bincount(y, minlength=tissue.n_classes)) == "spread":
        return [int(i) for i in spread_order(tissue.vectors[pool], got, n)]
    chances = np.sort(softmax(tissue.fit(pool[got], y, pool[left])), axis=1)
    doubt = chances[:, -1] - chances[:, -2]
    chosen = uncertain_diverse(doubt, tissue.vectors[pool[left]], n, seed=1000 * seed + len(got))
    return [int(left[i]) for i, _ in chosen]


def labels_to_goal(tissue: Tissue, seed: int, *, queue: bool) -> int:
    """Return the labels after which the head reaches 95 % of what it does with the whole pool.

    70 % of the images are the pool, 30 % are scored; the goal counts from the first of three
    batches in a row that reach it.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(tissue.y))
    pool, test = np.split(order, [int(0.7 * len(order))])
    goal = 0.95 * score(tissue, pool, test)
    got: list[int] = []
    reached = 0
    while len(got) + BATCH <= len(pool):
        if queue:
            got += picks(tissue, pool, got, seed)
        else:
            left = np.setdiff1d(np.arange(len(pool)), got)
            got += [int(i) for i in random.choice(left, BATCH, replace=False)]
        reached = reached + 1 if score(tissue, pool[got], test) >= goal else 0
        if reached == 3:
            return len(got) - 2 * BATCH
    return len(got)


def score(tissue: Tissue, train: Ints, test: Ints) -> float:
    """Return the balanced accuracy on the test images of a head fitted to the others."""
    said = tissue.fit(train, tissue.y[train], test).argmax(1)
    found = balanced_accuracy(confusion_matrix(tissue.y[test], said, tissue.n_classes))
    return found or 0.0


@dataclass(frozen=True)
class Work:
    """What came of labelling a set by its clusters: seconds, labels, and how many are wrong."""

    seconds: float
    n: int
    wrong: int
    given: dict[int, int]  # place in the set -> class

    @property
    def rate(self) -> float:
        """Labels a second, as a multiple of labelling one by one."""
        return self.n / self.seconds * (SCAN + CLICK) if self.seconds else 0.0

    @property
    def share(self) -> float:
        """Share of wrong labels."""
        return self.wrong / self.n if self.n else 0.0


def by_clusters(store: Store, tissue: Tissue, start: int) -> Work:
    """Label the clear images of every cluster whose previews are of one class; skip the others."""
    names = [f"class {k}" for k in range(tissue.n_classes)]
    project = projects.create_project(store, name=f"start {start}", classes=names).id
    classes = [c.id for c in projects.list_classes(store, project_id=project)]
    _add_images(store, project, len(tissue.y))
    numbers, ratio = cluster(tissue.vectors, seed=start)
    ids = index_of(store, project, tissue.vectors, clusters=numbers, ratio=ratio)
    truth = dict(zip(ids, tissue.y.tolist(), strict=True))
    version = looks.status(store, project_id=project).version or ""
    seconds = 0.0
    for one in looks.clusters(store, project_id=project):
        if one.n_clear_unlabelled < FEW:
            break
        seconds += len(one.previews) * SCAN
        seen = {truth[i] for i in one.previews}
        if len(seen) > 1:
            continue
        seconds += CLICK
        looks.label_clear(
            store, project_id=project, annotator="ada", version=version, cluster_id=one.id,
            class_id=classes[seen.pop()],
        )  # fmt: skip
    items = looks.list_items(store, image_ids=ids)
    given = {at: classes.index(item.class_id) for at, item in enumerate(items) if item.class_id}
    wrong = sum(int(tissue.y[at]) != said for at, said in given.items())
    return Work(seconds, len(given), wrong, given)


def _add_images(store: Store, project_id: int, n: int) -> None:
    """Add images without files."""
    rows = [
        {"project_id": project_id, "sha256": f"{i:064x}", "file_name": f"tile{i}.jpg", "width": 224,
         "height": 224, "stored_path": f"images/{i}.jpg", "n_bytes": 1}
        for i in range(n)
    ]  # fmt: skip
    with store.writing() as session:
        session.execute(insert(Image), rows)
        add_to_tally(session, project_id, {"images": n})


def accepted(tissue: Tissue, work: Work, seed: int) -> Work:
    """Accept what a model of these labels is sure of, once; return what that adds."""
    known = np.array(sorted(work.given))
    y = np.array([work.given[int(i)] for i in known])
    left = np.setdiff1d(np.arange(len(tissue.y)), known)
    held_out = np.full((len(known), tissue.n_classes), np.nan)
    plan = grouped_folds(y, None, n_folds=5, seed=seed, scheme="random")
    for fold in range(5):
        test = plan.folds == fold
        if test.any():
            held_out[test] = tissue.fit(known[~test], y[~test], known[test])
    chances = softmax(tissue.fit(known, y, left), fit_temperature(held_out, y))
    sure, said = chances.max(1) >= SURE, chances.argmax(1)
    wrong = int((said != tissue.y[left])[sure].sum())
    given = dict(zip(left[sure].tolist(), said[sure].tolist(), strict=True))
    return Work(PREVIEW * SCAN + 3 * CLICK, len(given), wrong, given)  # open, look, accept, confirm


def label_set(tissue: Tissue) -> list[Work]:
    """Label a set by its clusters, once for each start of k-means."""
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as name:
        store = open_store(f"sqlite:///{Path(name) / 'cns.sqlite'}", Path(name))
        try:
            return [by_clusters(store, tissue, start) for start in STARTS]
        finally:
            store.engine.dispose()


def in_words(name: str, tissue: Tissue, works: list[Work]) -> str:
    """Say what came of a set: labels, those wrong of all of them, the rate."""
    n, wrong = sum(w.n for w in works), sum(w.wrong for w in works)
    seconds = sum(w.seconds for w in works)
    rate = Work(seconds, n, wrong, {}).rate
    share = f"{wrong / n:.1%} wrong" if n else "none"
    return f"{name} {n / len(works):.0f} of {len(tissue.y)}, {share}, {rate:.1f} times"


def measure() -> list[Row]:
    """Return the rows; not measured where the set is not there."""
    folder = data_folder()
    names = (
        f"labels for 95 % of full accuracy, queue against chance ({SET})",
        f"labels a second by clear images of clusters, one by one = 1 ({SET})",
        f"wrong labels among them ({SET})",
    )
    if not (folder / SET / "labels.csv").is_file():
        why = f"no {SET} below CNS_TEST_DATA"
        return [
            Row(names[0], None, "", 0.6, "at most", why),
            Row(names[1], None, "", 7, "at least", why),
            Row(names[2], None, "", 0.01, "at most", why),
        ]
    tissue = read_tissue(folder / SET)
    queue = [labels_to_goal(tissue, seed, queue=True) for seed in range(SEEDS)]
    chance = [labels_to_goal(tissue, seed, queue=False) for seed in range(SEEDS)]
    return [
        Row(
            names[0], float(np.mean(queue) / np.mean(chance)), "", 0.6, "at most",
            f"{np.mean(queue):.0f} against {np.mean(chance):.0f} labels, means of {SEEDS} seeds",
        ),
        *cluster_rows(tissue, folder, names[1:]),
    ]  # fmt: skip


def cluster_rows(tissue: Tissue, folder: Path, names: Sequence[str]) -> list[Row]:
    """Return rate and wrong labels, with what suggestions add and how other sets fare."""
    works = label_set(tissue)
    rates, shares = [w.rate for w in works], [w.share for w in works]
    more = [accepted(tissue, work, seed) for seed, work in enumerate(works)]
    n_more = sum(w.n for w in more)
    added = (
        f"suggestions above {SURE} accepted once then: {n_more / len(more):.0f} more, "
        f"{sum(w.wrong for w in more) / max(n_more, 1):.1%} of them wrong"
    )
    others = []
    for name in OTHERS:
        if (folder / name / "labels.csv").is_file():
            other = read_tissue(folder / name)
            others.append(in_words(name, other, label_set(other)))
    return [
        Row(
            names[0], float(np.mean(rates)), "", 7, "at least",
            f"{np.mean([w.n for w in works]):.0f} of {len(tissue.y)} labelled, mean of "
            f"{len(works)} starts, lowest {min(rates):.1f}; other sets: {'; '.join(others)}",
        ),
        Row(
            names[1], float(np.mean(shares)), "", 0.01, "at most",
            f"highest of {len(works)} starts {max(shares):.1%}; {added}",
        ),
    ]  # fmt: skip
