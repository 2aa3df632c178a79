"""Features, quick model, prediction and maps on this machine, with a bare loop beside."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.accuracy import read_set, real_images
from benchmarks.rows import Row
from cnsapp.imaging.isolated import read_image
from cnsapp.imaging.synthetic import ORGANS, make_tissue
from cnsapp.ml.bundle import make_bundle
from cnsapp.ml.device import choose_device, cpu_threads
from cnsapp.ml.features import FeatureExtractor
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import TRAIN_VIEWS, make_view
from cnsapp.ml.quick import QuickResult, train_quick
from cnsapp.ml.saliency import grad_cam, integrated_gradients
from cnsapp.ml.streams import run_batches
from cnsapp.tasks.reading import read_ahead

N = 1000


def thousand_images(folder: Path) -> tuple[list[Path], np.ndarray[Any, Any]]:
    """Return 1,000 JPEGs of 224 px with their classes: real tiles, or drawn ones without them."""
    data = real_images()
    if data is not None:
        files, labels, _ = read_set(data / "crc5-he")
        _, y = np.unique(labels, return_inverse=True)
        order = np.random.default_rng(0).permutation(len(files))[:N]
        return [files[i] for i in order], y[order]
    y, files = np.arange(N) % len(ORGANS), []
    for i, k in enumerate(y):
        files.append(folder / f"tile{i:04}.jpg")
        Image.fromarray(make_tissue(list(ORGANS)[k], i % 6, i)).save(files[-1], quality=90)
    return files, y


def seconds(act: Callable[[], object]) -> float:
    """Return how long an act takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def pixels(file: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read an image the product's way."""
    return read_image(file).pixels


def read_small(files: list[Path], size: int) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Yield pictures at network size as jobs read them: in reading processes, a few ahead."""
    read = read_ahead(lambda file: make_view(pixels(file), size), files, lambda file: file)
    return (picture.result() for _, picture in read)


def measure() -> list[Row]:
    """Run the product's own code path once over 1,000 images."""
    extractor = FeatureExtractor()
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as place:
        files, y = thousand_images(Path(place))
        extractor.extract([pixels(f) for f in files[:16]], "clean")  # warm
        size = extractor.preprocessing.size
        made_rows: list[np.ndarray[Any, Any]] = []
        keys = [f.name for f in files]
        feature_seconds = seconds(
            lambda: made_rows.append(
                extractor.extract_views(read_small(files, size), TRAIN_VIEWS, keys)
            )
        )
        network, colour = extractor.layout.split(made_rows[0])
        results: list[QuickResult] = []
        quick = [seconds(lambda: results.append(train(network, colour, y, files, extractor)))
                 for _turn in range(3)]  # fmt: skip
        grouped = [seconds(lambda: train(network, colour, y, files, extractor, in_groups(files)))
                   for _turn in range(3)]  # fmt: skip
        predictor = Predictor(make_bundle(results[0], extractor))
        folder = Path(place) / "folder"
        folder.mkdir()
        for i, file in enumerate(files):
            shutil.copy(file, folder / f"{i:04}.jpg")
        bare = seconds(lambda: bare_forward(extractor, N))
        made = len(TRAIN_VIEWS) * N
        rows = [
            Row(
                "features of 1,000 images at 224 px, once",
                feature_seconds,
                "s",
                20,
                "at most",
                f"{len(TRAIN_VIEWS)} views of each; {cpu_threads()} threads",
            ),
            Row(
                "features from files, of bare forward speed",
                made / feature_seconds / (N / bare),
                "",
                0.7,
                "at least",
                f"{made / feature_seconds:.0f} against {N / bare:.0f} img/s",
            ),
            Row(
                "quick model on cached features of 1,000 images",
                statistics.median(quick),
                "s",
                3,
                "at most",
                "n = 3, nested folds, final fit; no groups: a linear head",
            ),
            Row(
                "the same with groups: linear, kernel and MLP heads compared",
                statistics.median(grouped),
                "s",
                3,
                "at most",
                "n = 3, 100 groups",
            ),
        ]
        return rows + prediction(predictor, extractor, folder) + maps(predictor, files)


def in_groups(files: list[Path]) -> list[str]:
    """Return 100 groups of neighbours by name, as if each were a patient."""
    place = {file: n for n, file in enumerate(sorted(files))}
    return [f"patient {place[file] * 100 // len(files)}" for file in files]


def train(
    network: Any,
    colour: Any,
    y: Any,
    files: list[Path],
    extractor: FeatureExtractor,
    groups: list[str] | None = None,
) -> QuickResult:
    """Train as the product does."""
    return train_quick(
        network, colour, y, groups, [f.name for f in files], list(range(int(y.max()) + 1)),
        seed=0, layout=extractor.layout, stages=extractor.backbone.row.head_stages,
    )  # fmt: skip


def bare_forward(extractor: FeatureExtractor, n: int) -> None:
    """Run the backbone alone over `n` images of noise, on all cores as the product does."""
    size, batch = extractor.preprocessing.size, extractor.device.batch_size
    x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)

    def work(images: torch.Tensor) -> None:
        with extractor.device.inference():
            extractor.net(images)

    for _done in run_batches(work, [x] * (n // batch), extractor.device):
        pass


def prediction(predictor: Predictor, extractor: FeatureExtractor, folder: Path) -> list[Row]:
    """Compare predicting a folder with the backbone alone on as many tensors of the same size."""
    paths, ratios, size = sorted(folder.iterdir()), [], extractor.preprocessing.size
    for _turn in range(3):
        alone = len(paths) / seconds(lambda: bare_forward(extractor, len(paths)))
        ours = len(paths) / seconds(lambda: predictor.predict(read_small(paths, size)))
        ratios.append((ours / alone, ours, alone))
    ratio, ours, alone = sorted(ratios)[1]
    note = f"{ours:.0f} against {alone:.0f} img/s, n = 3 x {len(paths):,}"
    return [
        Row("prediction from a folder, of bare forward speed", ratio, "", 0.8, "at least", note)
    ]


def maps(predictor: Predictor, files: list[Path]) -> list[Row]:
    """Time the two saliency methods on one processor thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    images = [pixels(f) for f in files[:9]]
    cam = [seconds(lambda i=i: grad_cam(predictor, i, 0)) for i in images]  # type: ignore[misc]
    steps = [
        seconds(lambda i=i: integrated_gradients(predictor, i, 0))  # type: ignore[misc]
        for i in images[:4]
    ]
    torch.set_num_threads(before)
    cam_s, steps_s = statistics.median(cam[1:]), statistics.median(steps)
    note = f"{choose_device().name}, 1 thread"
    return [
        Row("Grad-CAM an image", cam_s, "s", 0.3, "at most", note),
        Row("integrated gradients (20 steps) an image", steps_s, "s", 3, "at most", note),
    ]
