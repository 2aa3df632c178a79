"""Fine-tuning on this machine, with a bare loop over tensors in memory beside it."""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.learning import pixels, thousand_images
from benchmarks.rows import Row
from cnsapp.domain.recipe import make_recipe
from cnsapp.ml.augment import Changes, change, draw
from cnsapp.ml.decoded import DecodedPictures
from cnsapp.ml.device import choose_device, cpu_threads
from cnsapp.ml.finetune import Finetuner, FitData

N = 192  # images an epoch: some seconds
TURNS = 3
SHARE_OF_STEP = 0.1


def measure() -> list[Row]:
    """Compare epochs of the product with a bare loop, in turns, and time the changes to images."""
    device = choose_device()
    with tempfile.TemporaryDirectory(prefix="cns-bench-") as place:
        folder = Path(place)
        tuner = Finetuner(
            "efficientnet_lite0", _data(folder),
            make_recipe("full", {"epochs": TURNS, "patience": 0}),
            device, folder / "run",
        )  # fmt: skip
        tuner.self_test()
        pairs = []
        for epoch in range(1, TURNS + 1):
            alone = bare_speed(tuner)
            pairs.append((tuner.run_epoch(epoch).images_per_second, alone))
        changes = change_seconds(tuner)
    ratio, ours, alone = statistics.median([(a / b, a, b) for a, b in pairs])
    cores = cpu_threads() if device.name == "cpu" else 1
    size = tuner.limits.batch_size
    return [
        Row(
            "fine-tuning Lite0, of a bare loop over tensors in memory",
            ratio,
            "",
            0.9,
            "at least",
            f"{ours:.0f} against {alone:.0f} img/s, batch {size}, {tuner.base.n_still} stages "
            f"frozen, n = {TURNS} x {N}",
        ),
        Row(
            "changes to the images, of the time of a step",
            changes * ours / cores,
            "",
            SHARE_OF_STEP,
            "at most",
            f"{1e3 * changes:.1f} ms an image on one core, all changes of the preset full",
        ),
    ]


def _data(folder: Path) -> FitData:
    files, y = thousand_images(folder)
    files, y = files[: N + 16], y[: N + 16].astype(np.int64)
    made = DecodedPictures(folder, [f.name for f in files], 224)
    made.fill(enumerate(map(pixels, files)))
    k = int(y.max()) + 1
    return FitData(
        made.pixels(), y, np.arange(N), np.arange(N, N + 16), list(range(k)),
        [f"class {c}" for c in range(k)],
    )  # fmt: skip


def bare_speed(tuner: Finetuner) -> float:
    """Return images a second of a plain loop: same network, batch and frozen stages, no changes."""
    learner, device, size = tuner.learner, tuner.device, tuner.limits.batch_size
    net, settings = learner.lanes[-1].twin(), learner.settings
    rows = tuner.data.train[: N // size * size].reshape(-1, size)
    ready = [
        (
            settings.prepare.normalise(
                torch.from_numpy(np.array(tuner.data.pixels[r])).to(device.torch)
            ),
            torch.from_numpy(tuner.data.labels[r]).to(device.torch),
        )
        for r in islice(rows, 6)
    ]
    for p in net.parameters():
        p.data = p.data.clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    started = 0.0
    for i, (x, y) in enumerate([ready[0], *ready]):
        if i == 1:  # the first warms up
            started = time.perf_counter()
        with torch.no_grad():
            led = net.run_lead(x)
        loss = cross_entropy(net(*led), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())
    return len(ready) * size / (time.perf_counter() - started)


def change_seconds(tuner: Finetuner) -> float:
    """Return seconds an image of all changes, on one thread."""
    settings, before = tuner.learner.settings, torch.get_num_threads()
    batch = torch.from_numpy(np.array(tuner.data.pixels[:8]))
    changes, times = Changes.of(tuner.recipe), []
    torch.set_num_threads(1)
    try:
        for turn in range(7):
            started = time.thread_time()  # of this thread alone, however busy the machine
            with torch.inference_mode():
                change(batch, changes, draw(0, turn, range(8)), settings.prepare)
            times.append((time.thread_time() - started) / 8)
    finally:
        torch.set_num_threads(before)
    return statistics.median(times[1:])
