"""Saliency maps: seconds a map on one core, a kept map, whether it beats chance, memory."""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from benchmarks.accuracy import cached_features, read_set, real_images
from benchmarks.rows import Row, percentile
from cnsapp.bootstrap import open_app
from cnsapp.http import routes
from cnsapp.jobs.running import run_here
from cnsapp.ml.bundle import make_bundle
from cnsapp.ml.device import choose_device
from cnsapp.ml.faithfulness import chance_on
from cnsapp.ml.faithfulness import measure as measure_map
from cnsapp.ml.features import FeatureExtractor
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import TRAIN_VIEWS
from cnsapp.ml.quick import train_quick
from cnsapp.ml.saliency import explain
from cnsapp.services import explaining
from cnsapp.services.models import current_model
from cnsapp.services.training import start_training
from cnsapp.settings import Settings
from tests.integration.worlds import make_world

SIDE = 224
N_TIMED = 8  # maps of each method
N_READ = 200  # looks at kept maps
N_TRAIN, N_JUDGED = 400, 40  # images of crc5-he
N_MEMORY = 500  # maps
TIMED: tuple[tuple[str, str, dict[str, Any], float], ...] = (
    ("gradcam", "Grad-CAM an image", {}, 0.3),
    ("hirescam", "HiResCAM (default) an image", {}, 0.3),
    ("integrated_gradients", "integrated gradients (20 steps) an image", {"steps": 20}, 3),
    ("occlusion", "occlusion (169 windows) an image", {"window": 32, "stride": 16}, 8),
)


def measure(
    n_timed: int = N_TIMED,
    n_read: int = N_READ,
    n_judged: int = N_JUDGED,
    n_memory: int = N_MEMORY,
    n_train: int = N_TRAIN,
) -> list[Row]:
    """Return the rows of `make bench`."""
    predictor = tissue_model(n_train)
    rows = on_one_core(lambda: [*speeds(predictor, n_timed), memory(predictor, n_memory)])
    return [*rows, *kept(n_read), *faithful(predictor, n_judged, n_train)]


def on_one_core(work: Callable[[], list[Row]]) -> list[Row]:
    """Run with one thread of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def shuffled() -> tuple[list[Path], np.ndarray[Any, np.dtype[np.int64]]] | None:
    """Return files and classes of crc5-he in random order, or None where it is not."""
    folder = real_images()
    if folder is None or not (folder / "crc5-he" / "labels.csv").is_file():
        return None
    files, labels, _ = read_set(folder / "crc5-he")
    y = np.unique(labels, return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(len(files))
    return [files[i] for i in order], y[order]


def tissue_model(n_train: int) -> Predictor:
    """Return a quick model on Lite0: of real tissue, or of noise where there is none."""
    extractor = FeatureExtractor(device=choose_device("cpu"))
    found = shuffled()
    if found is None:
        y = np.arange(20) % 2
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 128 + 100 * k, (64, 64, 3), dtype=np.uint8) for k in y]
        rows = extractor.extract(images)[:, None]
        names = [str(i) for i in range(len(y))]
    else:
        files, y = found[0][:n_train], found[1][:n_train]
        cache = Path(tempfile.gettempdir()) / "cnsapp-accuracy"
        rows, _ = cached_features(extractor, files, TRAIN_VIEWS, cache)
        names = [f.name for f in files]
    network, colour = extractor.layout.split(rows)
    result = train_quick(
        network, colour, y, None, names, list(range(int(y.max()) + 1)), seed=0,
        layout=extractor.layout, stages=extractor.backbone.row.head_stages,
    )  # fmt: skip
    return Predictor(make_bundle(result, extractor), choose_device("cpu"))


def noise(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture of noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def speeds(predictor: Predictor, n: int) -> list[Row]:
    """Time each method; the first map of a method does not count."""
    rows = []
    for method, title, settings, target in TIMED:
        spent = []
        for seed in range(n + 1):
            started = time.perf_counter()
            explain(predictor, noise(seed), 0, method, settings)
            spent.append(time.perf_counter() - started)
        note = f"EfficientNet-Lite0, {SIDE} px, 1 thread, n = {n}"
        rows.append(
            Row(f"{title}, one core", statistics.median(spent[1:]), "s", target, "at most", note)
        )
    return rows


def memory(predictor: Predictor, n: int) -> Row:
    """Return by how much the process grows from map 50 on."""
    process, settled = psutil.Process(os.getpid()), 0
    methods = ("gradcam", "input_x_gradient", "gradcam", "smoothgrad")
    first = min(50, n // 2)
    for i in range(n):
        settings = {"samples": 2} if methods[i % 4] == "smoothgrad" else None
        explain(predictor, noise(i), 0, methods[i % 4], settings)
        if i == first:
            gc.collect()
            settled = process.memory_info().rss
    gc.collect()
    grown = (process.memory_info().rss - settled) / 1e6
    note = f"maps {first} to {n}, several methods"
    return Row("memory that 500 maps leave behind", grown, "MB", 100, "at most", note)


def kept(n: int) -> list[Row]:
    """Time how long a map that was made before takes until the browser has it."""
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as place:
        app = open_app(Settings(home=Path(place) / "home", device="cpu"))
        world = make_world(app, {"a": 8, "b": 8}, side=SIDE)
        run_here(app, start_training(app, project_id=world.project_id))
        model_id = current_model(app.store, project_id=world.project_id).id
        images = world.image_ids[0]
        asked = explaining.request_maps(app, model_id=model_id, image_ids=images)
        assert asked.job_id is not None
        run_here(app, asked.job_id)
        client, spent = TestClient(Starlette(routes=routes(app))), []
        for i in range(n + 1):  # the first does not count: the client starts
            started = time.perf_counter()
            found = explaining.request_map(app, model_id=model_id, image_id=images[i % len(images)])
            answer = client.get(f"/img/map/{found.key}")
            spent.append(1000 * (time.perf_counter() - started))
            assert found.ready and answer.status_code == 200
    note = f"facts and picture, without the page around them; p95, n = {n}"
    return [Row("a kept map, asked for -> in the browser", percentile(spent[1:], 0.95), "ms", 150,
                "at most", note)]  # fmt: skip


def faithful(predictor: Predictor, n: int, n_train: int) -> list[Row]:
    """Return how far the default map beats random maps on tissue that the model had not seen."""
    title = "insertion minus deletion of the default map, above random"
    found = shuffled()
    if found is None:
        return [Row(title, None, "", 0.15, "at least", "CNS_TEST_DATA has no crc5-he")]
    scores: list[float] = []
    chances: list[float] = []
    beats = 0
    for file, label in zip(found[0][n_train:], found[1][n_train:], strict=True):
        if len(scores) == n:
            break
        image = np.asarray(Image.open(file).convert("RGB"))
        probabilities = predictor.predict([image])[0]
        if probabilities.argmax() != label or probabilities[label] < 0.8:
            continue
        seed = int(hashlib.sha256(file.name.encode()).hexdigest()[:8], 16)
        ranking = explain(predictor, image, int(label)).ranking
        chance = chance_on(predictor, image, int(label), ranking, seed=seed)
        checked = measure_map(predictor, image, int(label), ranking, chance)
        scores.append(checked.curves.score)
        chances.append(float(np.mean(checked.random_scores)))
        beats += checked.beats_random
    if not scores:
        return [Row(title, None, "", 0.15, "at least", "no image was classed surely enough")]
    above = np.array(scores) - np.array(chances)
    error = float(above.std() / max(len(above), 1) ** 0.5)
    note = (
        f"crc5-he, {len(scores)} images right with p >= 0.8 that were not learnt from; standard "
        f"error {error:.2f}; {beats} maps beat chance"
    )
    return [Row(title, float(above.mean()), "", 0.15, "at least", note)]
