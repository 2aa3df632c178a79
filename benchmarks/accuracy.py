"""How right the quick model is on real tissue, on the product's own code path.

CNS_TEST_DATA names a folder of sets with `labels.csv` (file, label, group) beside the images.
Features are kept under the system's temporary folder, so that a second run takes seconds.
"""

from __future__ import annotations

import csv
import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.rows import Row
from cnsapp.ml.features import FeatureExtractor, FeatureStore
from cnsapp.ml.preprocess import TRAIN_VIEWS
from cnsapp.ml.quick import QuickOptions, train_quick
from tests.places import data_folder

GOALS: tuple[tuple[str, str | None, float | None], ...] = (
    ("crc5-he", "random", 0.93),
    ("crc5-he", None, None),
    ("bladder-endoscopy", "by group", 0.45),
    ("papsmear-herlev7", "by group", 0.57),
)


@dataclass(frozen=True)
class AccuracyRow:
    """One data set under one division into folds; figures are out-of-fold, None without a goal."""

    data: str
    scheme: str
    n: int
    balanced_accuracy: float | None
    interval: tuple[float, float] | None
    goal: float | None
    colour: float | None
    last_layer: float | None
    calibration_error: float | None
    strength: float
    feature_seconds: float
    train_seconds: float


def read_set(folder: Path) -> tuple[list[Path], list[str], list[str | None]]:
    """Return files, labels and groups of a data set."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    files = [folder / row["file"] for row in rows]
    return files, [row["label"] for row in rows], [row["group"] or None for row in rows]


def cached_features(
    extractor: FeatureExtractor, files: Sequence[Path], views: Sequence[str], cache: Path
) -> tuple[np.ndarray[tuple[int, int, int], np.dtype[np.float32]], float]:
    """Return feature rows (N, V, D), and the seconds spent on those that were not kept yet."""
    store = FeatureStore(cache, extractor.spec_id, extractor.layout.n_columns)
    by_sha = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}
    shas = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    start = time.perf_counter()
    for view in views:
        if todo := store.missing(list(by_sha), view):
            images = (np.asarray(Image.open(by_sha[sha]).convert("RGB")) for sha in todo)
            store.put(todo, view, extractor.extract(images, view, todo))
    return store.load(shas, views), time.perf_counter() - start


def measure_accuracy(data_dir: Path, cache: Path | None = None, seed: int = 0) -> list[AccuracyRow]:
    """Train and score the quick model on every set of `GOALS` found below `data_dir`."""
    extractor = FeatureExtractor(whole=True)  # for the last-layer control
    cache = cache or Path(tempfile.gettempdir()) / "cnsapp-accuracy"
    found = []
    for name, scheme, goal in GOALS:
        if not (data_dir / name / "labels.csv").is_file():
            continue
        files, labels, groups = read_set(data_dir / name)
        class_names, y = np.unique(labels, return_inverse=True)
        rows, feature_seconds = cached_features(extractor, files, TRAIN_VIEWS, cache)
        network, colour = extractor.layout.split(rows)
        start = time.perf_counter()
        result = train_quick(
            network, colour, y, groups if any(groups) else None, [f.name for f in files],
            range(len(class_names)), QuickOptions(scheme=scheme, last_layer_control=True),
            seed=seed, layout=extractor.layout, stages=extractor.backbone.row.head_stages,
            class_names=class_names.tolist(),
        )  # fmt: skip
        found.append(
            AccuracyRow(
                data=name,
                scheme=result.scheme,
                n=result.evaluation.n,
                balanced_accuracy=result.evaluation.balanced_accuracy,
                interval=result.evaluation.interval,
                goal=goal,
                colour=result.controls["colour"],
                last_layer=result.controls["last layer"],
                calibration_error=result.calibration_error,
                strength=result.strength,
                feature_seconds=round(feature_seconds, 1),
                train_seconds=round(time.perf_counter() - start, 2),
            )
        )
    return found


def real_images() -> Path | None:
    """Return the folder of real images, or None."""
    folder = data_folder()
    return folder if folder.is_dir() else None


def measure() -> list[Row]:
    """Return the rows of `make bench`; none where there are no real images."""
    folder = real_images()
    if folder is None:
        return []
    return [as_row(found) for found in measure_accuracy(folder)]


def as_row(found: AccuracyRow) -> Row:
    """Return a figure with its controls in the note."""
    parts = [f"n = {found.n:,}"]
    if found.interval:
        parts.append(f"95 % {found.interval[0]:.2f}-{found.interval[1]:.2f}")
    for name, value in (("colour only", found.colour), ("last layer", found.last_layer)):
        if value is not None:
            parts.append(f"{name} {value:.2f}")
    return Row(
        f"balanced accuracy: {found.data}, {found.scheme}",
        found.balanced_accuracy,
        "",
        found.goal or 0.0,
        "at least",
        ", ".join(parts),
    )
