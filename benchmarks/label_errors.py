"""How many planted label errors are found among real tiles, and how soon a page of them is there.

A share of the labels of `crc5-he` is made wrong (each class gives images to one other class), the
quick model is trained on these labels with the folds that the product cuts, and what is flagged is
compared with what was planted. Method and settings were chosen on other draws than these.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import cached_features, read_set, real_images
from benchmarks.evaluating import N, predicted_project, seconds
from benchmarks.rows import Row, percentile
from cnsapp.domain.label_errors import Ints, find_suspects
from cnsapp.ml.features import FeatureExtractor
from cnsapp.ml.looks import Projection
from cnsapp.ml.preprocess import TRAIN_VIEWS
from cnsapp.ml.quick import QuickOptions, train_quick
from cnsapp.services import label_errors
from db.session import Store
from tests.looks import index_of, unit_rows

DATA = "crc5-he"
SEEDS = (101, 102, 103)
MANY, FEW = 0.20, 0.05


@dataclass(frozen=True)
class Found:
    """One draw of planted errors: the share of the flagged that are errors, and what was found."""

    n_planted: int
    n_flagged: int
    n_expected: float
    precision: float
    recall: float
    first: float  # precision among the first of the list, 100 or as many as were planted
    named: float  # of the errors flagged, those whose true class is the one suggested


def plant(y: Ints, share: float, seed: int) -> Ints:
    """Return labels of which this share of each class is that of one other class."""
    rng = np.random.default_rng(seed)
    k = int(y.max()) + 1
    to = np.arange(k)
    while (to == np.arange(k)).any():
        to = rng.permutation(k)
    given = y.copy()
    for c in range(k):
        mine = np.flatnonzero(y == c)
        given[rng.choice(mine, round(share * len(mine)), replace=False)] = to[c]
    return given


def measure_planted(
    data_dir: Path, share: float, seeds: Sequence[int] = SEEDS, cache: Path | None = None
) -> list[Found]:
    """Plant, train and look for the errors, once a seed."""
    files, labels, groups = read_set(data_dir / DATA)
    names, y = np.unique(labels, return_inverse=True)
    extractor = FeatureExtractor(whole=True)  # shares what `accuracy` keeps
    cache = cache or Path(tempfile.gettempdir()) / "cnsapp-accuracy"
    rows, _ = cached_features(extractor, files, TRAIN_VIEWS, cache)
    network, colour = extractor.layout.split(rows)
    clean = rows[:, 0, extractor.layout.columns(extractor.backbone.row.head_stages)]
    looks = Projection.fit(clean).apply(clean)
    found = []
    for seed in seeds:
        given = plant(y.astype(np.int64), share, seed)
        result = train_quick(
            network, colour, given, groups if any(groups) else None, [f.name for f in files],
            range(len(names)), QuickOptions(), seed=seed, layout=extractor.layout,
            stages=extractor.backbone.row.head_stages, class_names=names.tolist(),
        )  # fmt: skip
        found.append(_score(result.probabilities, given, y, looks, result.folds, seed))
    return found


def _score(
    p: NDArray[np.float64], given: Ints, y: Ints, looks: NDArray[np.float32], folds: Ints, seed: int
) -> Found:
    suspects = find_suspects(p, given, looks, folds, seed=seed)
    wrong = given != y
    flagged = suspects.order[: suspects.n_flagged]
    hits = flagged[wrong[flagged]]
    n = int(wrong.sum())
    return Found(
        n_planted=n,
        n_flagged=len(flagged),
        n_expected=suspects.n_expected,
        precision=len(hits) / max(1, len(flagged)),
        recall=len(hits) / max(1, n),
        first=float(wrong[suspects.order[: min(100, n)]].mean()),
        named=float((suspects.suggested[hits] == y[hits]).mean()),
    )


def measure() -> list[Row]:
    """Return the rows of `make bench`; those of real tiles only where there are any."""
    return [*_planted_rows(), *_page_rows()]


def _planted_rows() -> list[Row]:
    folder = real_images()
    if folder is None or not (folder / DATA / "labels.csv").is_file():
        return []
    many, few = (measure_planted(folder, share) for share in (MANY, FEW))
    flagged = _mean([f.n_flagged for f in many])
    expected = _mean([f.n_expected for f in many])
    note = (
        f"mean of {len(SEEDS)} draws, lowest {min(f.precision for f in many):.2f}; "
        f"{many[0].n_planted} planted, {expected:.0f} expected, {flagged:.0f} flagged; "
        f"right class named {_mean([f.named for f in many]):.2f}"
    )
    lowest = min(f.recall for f in many)
    first = (
        f"first {min(100, few[0].n_planted)}, as many as were planted; "
        f"lowest {min(f.first for f in few):.2f}; flagged: precision "
        f"{_mean([f.precision for f in few]):.2f}, recall {_mean([f.recall for f in few]):.2f}"
    )
    of = f"label errors: {DATA},"
    return [
        Row(f"{of} 20 % wrong, precision", _mean([f.precision for f in many]), "", 0.90,
            "at least", note),
        Row(f"{of} 20 % wrong, recall", _mean([f.recall for f in many]), "", 0.80, "at least",
            f"lowest {lowest:.2f}"),
        Row(f"{of} 5 % wrong, precision", _mean([f.first for f in few]), "", 0.85, "at least",
            first),
    ]  # fmt: skip


def _page_rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as place:
        store, models = predicted_project(Path(place))
        index_of(store, 1, unit_rows(N, 64, 8, seed=1)[0])
        first = seconds(lambda: label_errors.summary(store, model_id=models[0]))
        times = [_decide_and_turn(store, models[0], seq) for seq in range(1, 21)]
        store.engine.dispose()
    note = f"after a decision, with the counts; the ranking itself {first:.1f} s, once a model"
    name = "100,000 predictions: a page of label errors"
    return [Row(name, 1000 * percentile(times, 0.95), "ms", 300, "at most", note)]


def _decide_and_turn(store: Store, model_id: int, seq: int) -> float:
    """Confirm the first label of the list; return how long the next page and the counts take."""
    page = label_errors.list_suspects(store, model_id=model_id)
    label_errors.confirm(
        store, model_id=model_id, image_id=page.items[0].image.id, who="bench",
        client="bench-client", seq=seq,
    )  # fmt: skip

    def show() -> None:
        label_errors.list_suspects(store, model_id=model_id, after=page.next_after)
        label_errors.summary(store, model_id=model_id)

    return seconds(show)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
