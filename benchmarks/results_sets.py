"""The sets and divisions of `benchmarks.results`, and what its rows read of their images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.accuracy import read_set
from benchmarks.progress import say
from cnsapp.domain.recipe import DEFAULT_BACKBONE, Recipe, make_recipe
from cnsapp.domain.splits import RANDOM, grouped_folds
from cnsapp.domain.together import joined, tied_groups
from cnsapp.imaging import quality
from cnsapp.imaging.duplicates import find_pairs, low_frequencies
from cnsapp.ml import handmade
from cnsapp.ml.controls_fit import Task
from cnsapp.ml.features import FeatureExtractor, FeatureStore, Floats
from cnsapp.ml.preprocess import CLEAN, Pixels
from cnsapp.tasks.controls_features import last_layer_of, last_layer_store

SEED = 0
CHUNK = 32


@dataclass(frozen=True)
class Division:
    """A set and how it is cut into five folds; `tied` joins groups that share a picture."""

    name: str
    says: str
    scheme: str | None = None
    tied: bool = False

    @property
    def key(self) -> str:
        """For files."""
        how = "random" if self.scheme == RANDOM else "tied" if self.tied else "product"
        return f"{self.name}-{how}"


SETS = (
    Division("crc5-he", "stratified 5-fold, tiles at random", RANDOM),
    Division("crc5-he", "5-fold by blocks of file names, as the product does without groups"),
    Division("bladder-endoscopy", "5-fold by patient"),
    Division(
        "bladder-endoscopy",
        "5-fold by patient; patients with one picture between them are one, as the product does",
        tied=True,
    ),
    Division("papsmear-herlev7", "5-fold by capture"),
)


@dataclass
class Bench:
    """One data set under one division into folds, with what its rows read."""

    division: Division
    files: list[Path]
    class_names: list[str]
    task: Task
    work: Path
    epochs: int | None = None  # of the fine-tuning; None is the preset's own

    @property
    def recipe(self) -> Recipe:
        """Return the dials of the fine-tuning."""
        return make_recipe("full", {} if self.epochs is None else {"epochs": self.epochs})

    @property
    def key(self) -> str:
        """For files."""
        return self.division.key

    @property
    def sign(self) -> str:
        """Of the images, labels and folds: a row of another sign is computed anew."""
        rows = [f.name for f in self.files], self.task.labels.tolist(), self.task.folds.tolist()
        return hashlib.sha256(json.dumps([rows, handmade.spec_id()]).encode()).hexdigest()[:16]

    def divided(self, seed: int) -> Bench:
        """Return the same images in other folds."""
        task = self.task
        plan = grouped_folds(
            task.labels, task.groups, n_folds=5, seed=seed, names=task.names,
            scheme=self.division.scheme,
        )  # fmt: skip
        return replace(self, task=replace(task, folds=plan.folds, seed=seed))

    def picture(self, row: int) -> Pixels:
        """Return the pixels of an image."""
        return read(self.files[row])


def open_set(
    folder: Path, division: Division, work: Path, epochs: int | None = None, seed: int = SEED
) -> Bench:
    """Read a set and cut it into folds."""
    files, labels, groups = read_set(folder / division.name)
    class_names, y = np.unique(labels, return_inverse=True)
    if division.tied:
        groups, _ = tied_groups(groups, same_pictures(files))
    known = groups if any(groups) else None
    names = [f.name for f in files]
    labels_ = y.astype(np.int64)
    plan = grouped_folds(
        labels_, known, n_folds=5, seed=seed, names=names, scheme=division.scheme
    )  # fmt: skip
    task = Task(labels_, len(class_names), plan.folds, known, names, plan.scheme, seed)
    return Bench(division, files, class_names.tolist(), task, work, epochs)


def same_pictures(files: Sequence[Path]) -> list[int | None]:
    """Return a number above 0 that images share which look the same, None for the others."""
    seen = [quality.measure(read(file))[1] for file in files]
    there = [k for k, signature in enumerate(seen) if signature is not None]
    known = [signature for signature in seen if signature is not None]
    pairs = find_pairs(low_frequencies(known), lambda wanted: {k: known[k] for k in wanted})
    units = np.arange(len(files))
    for pair in pairs:
        keys: list[bool | None] = [None] * len(files)
        keys[there[pair.first]] = keys[there[pair.second]] = True
        units = joined(units, keys)
    counts = np.bincount(units)
    return [int(unit) + 1 if counts[unit] > 1 else None for unit in units]


def read(file: Path) -> Pixels:
    """Return the pixels of an image."""
    return np.asarray(Image.open(file).convert("RGB"))


class Features:
    """What the rows of a set read, computed once; the seconds of the first time are kept."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._folder = bench.work / "features"
        self._times = bench.work / "features.json"
        self._keys = [hashlib.sha256(f.read_bytes()).hexdigest() for f in bench.files]
        self._extractors: dict[bool, FeatureExtractor] = {}

    def extractor(self, *, whole: bool) -> FeatureExtractor:
        """Return the network, loaded once."""
        if whole not in self._extractors:
            self._extractors[whole] = FeatureExtractor(DEFAULT_BACKBONE, whole=whole)
        return self._extractors[whole]

    def handmade(self) -> tuple[Floats, float]:
        """Return colour and texture by hand, and the seconds that they took."""
        store = FeatureStore(self._folder, handmade.spec_id(), len(handmade.columns().names))

        def make(pictures: Sequence[Pixels], _: Sequence[str]) -> Floats:
            return np.stack([handmade.describe(picture) for picture in pictures])[:, None]

        rows, seconds = self._rows("handmade", store, (CLEAN,), make)
        return rows[:, 0], seconds

    def last_layer(self) -> tuple[Floats, float]:
        """Return the means of the last stage."""
        whole = self.extractor(whole=True)

        def make(pictures: Sequence[Pixels], keys: Sequence[str]) -> Floats:
            return last_layer_of(whole, whole.extract(list(pictures), CLEAN, keys))[:, None]

        store = last_layer_store(self._folder, whole)
        rows, seconds = self._rows("last layer", store, (CLEAN,), make)
        return rows[:, 0], seconds

    def quick(self, views: Sequence[str]) -> tuple[Floats, float]:
        """Return stored rows (N, V, D) of all columns of the quick model's extractor."""
        net = self.extractor(whole=False)
        store = FeatureStore(self._folder, net.spec_id, net.layout.n_columns)

        def make(pictures: Sequence[Pixels], keys: Sequence[str]) -> Floats:
            return net.extract_views(list(pictures), views, keys)

        return self._rows("+".join(views), store, views, make)

    def _rows(
        self,
        what: str,
        store: FeatureStore,
        views: Sequence[str],
        make: Callable[[Sequence[Pixels], Sequence[str]], Floats],
    ) -> tuple[Floats, float]:
        place = {key: row for row, key in enumerate(self._keys)}
        missing = {key for view in views for key in store.missing(list(place), view)}
        todo = [key for key in place if key in missing]
        name, began = f"{self._bench.division.name}: {what}", time.perf_counter()
        for start in range(0, len(todo), CHUNK):
            keys = todo[start : start + CHUNK]
            found = make([self._bench.picture(place[key]) for key in keys], keys)
            for v, view in enumerate(views):
                store.put(keys, view, found[:, v])
            say(f"  {what}: {start + len(keys)} of {len(todo)} images", again=True)
        times = json.loads(self._times.read_text()) if self._times.exists() else {}
        if len(todo) == len(place):
            times[name] = round(time.perf_counter() - began, 1)
            self._times.write_text(json.dumps(times, indent=1))
        return store.load(self._keys, views), float(times.get(name, float("nan")))
