"""How right the models are, beside simpler methods on the same folds: writes `docs/results.md`.

    make results ARGS='[--only crc5-he] [--skip-full] [--epochs N] [--again]'

Everything is the product's own code, and every figure is out of fold. Each row is kept under
`bench-results/results` as soon as it is there, so that a run that was stopped goes on; a row whose
images, labels or folds have changed is computed anew. CNS_TEST_DATA names the folder of the sets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.accuracy import read_set, real_images
from benchmarks.results_table import as_markdown
from cnsapp.domain.calibration import softmax
from cnsapp.domain.recipe import DEFAULT_BACKBONE, Recipe, make_recipe
from cnsapp.domain.run_plan import plan_run
from cnsapp.domain.splits import RANDOM, grouped_folds
from cnsapp.domain.together import units_of
from cnsapp.jobs.context import as_json
from cnsapp.ml import handmade
from cnsapp.ml.bundle import package_versions
from cnsapp.ml.controls_fit import NOT_SCORED, Ints, Task
from cnsapp.ml.controls_run import CONTROLS, Inputs, against, run_control, scored
from cnsapp.ml.device import choose_device
from cnsapp.ml.features import FeatureExtractor, FeatureStore, Floats
from cnsapp.ml.finetune import Finetuner
from cnsapp.ml.finetune import fit as fit_network
from cnsapp.ml.finetune_types import FitData
from cnsapp.ml.preprocess import CLEAN, TRAIN_VIEWS, Pixels, make_view
from cnsapp.ml.quick import QuickOptions, QuickProgress, train_quick
from cnsapp.tasks.controls_features import last_layer_of, last_layer_store

WORK = Path("bench-results/results")
MARKDOWN = Path("docs/results.md")
QUICK, FULL = "quick", "full"
SETS: tuple[tuple[str, str | None, str], ...] = (
    ("crc5-he", RANDOM, "stratified 5-fold, tiles at random"),
    ("crc5-he", None, "5-fold by blocks of file names, as the product does without groups"),
    ("bladder-endoscopy", None, "5-fold by patient"),
    ("papsmear-herlev7", None, "5-fold by capture"),
)
SEED = 0
CHUNK = 32


@dataclass
class Bench:
    """One data set under one division into folds, with what its rows read."""

    name: str
    scheme: str | None
    says: str
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
        return f"{self.name}-{'random' if self.scheme == RANDOM else 'product'}"

    @property
    def sign(self) -> str:
        """Of the images, labels and folds: a row of another sign is computed anew."""
        rows = [f.name for f in self.files], self.task.labels.tolist(), self.task.folds.tolist()
        return hashlib.sha256(json.dumps([rows, handmade.spec_id()]).encode()).hexdigest()[:16]

    def picture(self, row: int) -> Pixels:
        """Return the pixels of an image."""
        return np.asarray(Image.open(self.files[row]).convert("RGB"))


def open_set(
    folder: Path, name: str, scheme: str | None, says: str, work: Path, epochs: int | None = None
) -> Bench:
    """Read a set and cut it into folds, as the product does."""
    files, labels, groups = read_set(folder / name)
    class_names, y = np.unique(labels, return_inverse=True)
    known = groups if any(groups) else None
    names = [f.name for f in files]
    labels_ = y.astype(np.int64)
    plan = grouped_folds(labels_, known, n_folds=5, seed=SEED, names=names, scheme=scheme)
    task = Task(labels_, len(class_names), plan.folds, known, names, plan.scheme, SEED)
    return Bench(name, scheme, says, files, class_names.tolist(), task, work, epochs)


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
        name, began = f"{self._bench.name}: {what}", time.perf_counter()
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


def measure(bench: Bench, keys: Sequence[str], *, again: bool) -> None:
    """Compute the rows of a set that are not kept yet."""
    features = Features(bench)
    for key in keys:
        kept = load_row(bench, key)
        if kept is not None and not again:
            continue
        say(f"{bench.key}: {key}")
        load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
        if key == QUICK:
            found = quick_row(bench, features)
        elif key == FULL:
            found = full_row(bench)
        else:
            found = control_row(bench, features, key)
        note = {"sign": bench.sign, "at": now(), "commit": commit(), "load_average": load}
        row_file(bench, key).write_text(json.dumps(as_json(found | note), indent=1))
        value = found["balanced_accuracy"]
        spread = "-".join(f"{v:.3f}" for v in found["interval"] or [])
        say(f"  {key}: {value:.3f} ({spread}), {found['seconds']:.1f} s")


def control_row(bench: Bench, features: Features, key: str) -> dict[str, Any]:
    """Score one control; the difference to quick is added when the table is written."""
    quick, quick_seconds = features.quick(TRAIN_VIEWS)
    net = features.extractor(whole=False)
    network, colour = net.layout.split(quick)
    columns = net.layout.columns(net.backbone.row.head_stages)
    by_hand = last = None
    seconds: float | None = None
    if key.startswith("handmade"):
        by_hand, seconds = features.handmade()
    elif key == "last_layer":
        last, seconds = features.last_layer()
    elif key == "shuffled_labels":
        seconds = quick_seconds
    inputs = Inputs(colour, by_hand, last, np.ascontiguousarray(network[:, :, columns]))
    nothing = np.full(len(bench.task.labels), NOT_SCORED)
    found = run_control(key, bench.task, inputs, nothing, lambda: None, with_answers=True)
    return found | {"feature_seconds": seconds}


def quick_row(bench: Bench, features: Features) -> dict[str, Any]:
    """Train the quick model as the product does."""
    options = QuickOptions(scheme=bench.scheme)
    rows, seconds = features.quick(TRAIN_VIEWS)
    net, task = features.extractor(whole=False), bench.task
    network, colour = net.layout.split(rows)
    views, more = options.predict_views, {}
    if views != (CLEAN,):
        answered, extra = features.quick(views)
        more["answered"] = net.layout.split(answered)[0]
        seconds += extra
    began = time.perf_counter()

    def tell(at: QuickProgress) -> None:
        say(f"  {at.message}", again=True)

    found = train_quick(
        network, colour, task.labels, task.groups, task.names, range(task.n_classes), options,
        tell, seed=SEED, layout=net.layout, stages=net.backbone.row.head_stages,
        class_names=bench.class_names, **more,
    )  # fmt: skip
    assert (found.folds == task.folds).all()
    took = round(time.perf_counter() - began, 2)
    predicted = np.full(len(task.labels), NOT_SCORED)
    said = ~np.isnan(found.probabilities).any(1)
    predicted[said] = found.probabilities[said].argmax(1)
    return scored(task, predicted) | {
        "predicted": predicted.tolist(),
        "rule": f"{found.head_kind} head" if hasattr(found, "head_kind") else "quick head",
        "seconds": took,
        "feature_seconds": seconds,
        "calibration_error": found.calibration_error,
    }


def full_row(bench: Bench) -> dict[str, Any]:
    """Fine-tune a network for every fold, as a training with `evaluate=folds` does.

    The network that such a training publishes in the end is left out: nothing is scored with it.
    """
    recipe, task, device = bench.recipe, bench.task, choose_device()
    plan = plan_run(
        task.labels, task.groups, task.names, evaluate="folds", n_folds=5, scheme=bench.scheme,
        seed=SEED, validation_share=recipe.validation_share, class_names=bench.class_names,
    )  # fmt: skip
    assert (plan.folds == task.folds).all()
    size = FeatureExtractor(DEFAULT_BACKBONE).preprocessing.size
    pixels = np.stack([make_view(bench.picture(i), size) for i in range(len(task.labels))])
    predicted = np.full(len(task.labels), NOT_SCORED)
    ids = list(range(task.n_classes))
    seconds, epochs_run = 0.0, []
    dials = hashlib.sha256(json.dumps(recipe.as_json()).encode()).hexdigest()[:8]
    for part in plan.parts:
        if part.fold is None:
            continue
        folder = bench.work / "networks" / f"{bench.key}-{bench.sign}-{dials}" / part.name
        answers = folder.with_suffix(".json")
        if not answers.exists():
            units = None if task.groups is None else units_of(task.groups)
            data = FitData(
                pixels, task.labels, part.train, part.validation, ids, bench.class_names, units
            )
            tuner = Finetuner(DEFAULT_BACKBONE, data, recipe, device, folder)
            began = time.perf_counter()
            network, records = fit_network(tuner)
            logits = network.logits(pixels, part.held)
            best = softmax(logits.astype(np.float64), network.temperature).argmax(1)
            kept = {
                "predicted": best.tolist(),
                "seconds": sum(r.seconds for r in records),
                "wall": time.perf_counter() - began,
                "best_epoch": network.best_epoch,
                "records": [record.as_json() for record in records],
            }
            answers.write_text(json.dumps(as_json(kept)))
            tuner.forget()
        kept = json.loads(answers.read_text())
        predicted[part.held] = kept["predicted"]
        seconds += kept["seconds"]
        epochs_run.append(kept["best_epoch"])
        say(f"  {part.name}: best epoch {kept['best_epoch']}, {kept['seconds']:.0f} s")
    return scored(task, predicted) | {
        "predicted": predicted.tolist(),
        "rule": f"{recipe.epochs} epochs at most, best epochs {epochs_run}",
        "recipe": recipe.as_json(),
        "seconds": round(seconds, 1),
        "feature_seconds": None,
    }


def row_file(bench: Bench, key: str) -> Path:
    """Return where a row is kept."""
    return bench.work / f"{bench.key}-{key}.json"


def load_row(bench: Bench, key: str) -> dict[str, Any] | None:
    """Return a row that is kept, or None when it is of other images, folds or dials, or missing."""
    try:
        found: dict[str, Any] = json.loads(row_file(bench, key).read_text())
    except (OSError, ValueError):
        return None
    if key == FULL and found.get("recipe") != bench.recipe.as_json():
        return None
    return found if found.get("sign") == bench.sign else None


def report(benches: Sequence[Bench]) -> dict[str, Any]:
    """Return all that is kept, with the difference of the models to every other row."""
    sets = []
    for bench in benches:
        rows = {key: row for key in ROWS if (row := load_row(bench, key)) is not None}
        for row in rows.values():  # all by the intervals of today, whenever they were computed
            if "predicted" in row:
                row |= scored(bench.task, np.array(row["predicted"], np.int64))
        for model in (QUICK, FULL):
            if model not in rows:
                continue
            answers = np.array(rows[model]["predicted"], np.int64)
            for key, row in rows.items():
                if key != model and "predicted" in row:
                    other: Ints = np.array(row["predicted"], np.int64)
                    row[f"below_{model}"] = against(bench.task, answers, other)
        groups = bench.task.groups
        sets.append(
            {
                "set": bench.name, "folds": bench.says, "scheme": bench.task.scheme,
                "n": len(bench.task.labels), "n_classes": bench.task.n_classes,
                "n_groups": None if groups is None else len(set(groups)),
                "rows": {k: {n: v for n, v in r.items() if n != "predicted"}
                         for k, r in rows.items()},
            }
        )  # fmt: skip
    return {"at": now(), "commit": commit(), "machine": machine(), "sets": sets}


ROWS = (*CONTROLS, QUICK, FULL)


def machine() -> dict[str, Any]:
    """Return what the figures were made on and with."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": choose_device().name,
        "versions": package_versions(),
    }


def commit() -> str:
    """Return the commit, marked when files differ from it other than the table that this makes."""
    found = _git("rev-parse", "--short=10", "HEAD")
    own = [f":!{path}" for path in (MARKDOWN, MARKDOWN.with_suffix(".json"))]
    return f"{found or '?'}{'-dirty' if _git('status', '--porcelain', '-uno', '--', *own) else ''}"


def _git(*words: str) -> str:
    run = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return run.stdout.strip()


def now() -> str:
    """Return the moment."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def say(line: str, *, again: bool = False) -> None:
    """Print progress; lines that come again and again only on a terminal."""
    if again and not sys.stderr.isatty():
        return
    print(line.ljust(60), file=sys.stderr, end="\r" if again else "\n", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", help="a data set; may be repeated")
    parser.add_argument("--rows", help="comma-separated rows: " + ", ".join(ROWS))
    parser.add_argument("--skip-full", action="store_true", help="leave the fine-tuning out")
    parser.add_argument("--epochs", type=int, help="of the fine-tuning; the preset's own")
    parser.add_argument("--again", action="store_true", help="compute kept rows anew")
    parser.add_argument("--work", type=Path, default=WORK, help="where rows are kept")
    parser.add_argument("--out", type=Path, default=MARKDOWN, help="the table (and .json)")
    chosen = parser.parse_args(arguments)
    folder = real_images()
    if folder is None:
        print("There are no real images (CNS_TEST_DATA names their folder).", file=sys.stderr)
        return 1
    names = {name for name, _, _ in SETS}
    if unknown := set(chosen.only or ()) - names:
        parser.error(f"no such set: {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    keys = chosen.rows.split(",") if chosen.rows else list(ROWS)
    if unknown := set(keys) - set(ROWS):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if chosen.skip_full:
        keys = [key for key in keys if key != FULL]
    chosen.work.mkdir(parents=True, exist_ok=True)
    benches = [
        open_set(folder, name, scheme, says, chosen.work, chosen.epochs)
        for name, scheme, says in SETS
        if (folder / name / "labels.csv").is_file()
    ]
    for bench in benches:
        if chosen.only is None or bench.name in chosen.only:
            measure(bench, keys, again=chosen.again)
    found = report(benches)
    chosen.out.write_text(as_markdown(found), encoding="utf-8")
    chosen.out.with_suffix(".json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"written to {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
