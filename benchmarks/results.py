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
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy import real_images
from benchmarks.progress import say
from benchmarks.results_sets import SETS, Bench, Features, open_set
from benchmarks.results_table import as_markdown
from cnsapp.domain.calibration import softmax
from cnsapp.domain.recipe import DEFAULT_BACKBONE
from cnsapp.domain.run_plan import plan_run
from cnsapp.domain.together import units_of
from cnsapp.jobs.context import as_json
from cnsapp.ml.bundle import package_versions
from cnsapp.ml.controls_fit import NOT_SCORED, Ints
from cnsapp.ml.controls_run import CONTROLS, Inputs, against, run_control, scored
from cnsapp.ml.device import choose_device
from cnsapp.ml.features import FeatureExtractor
from cnsapp.ml.finetune import Finetuner
from cnsapp.ml.finetune import fit as fit_network
from cnsapp.ml.finetune_types import FitData
from cnsapp.ml.preprocess import CLEAN, TRAIN_VIEWS, make_view
from cnsapp.ml.quick import QuickOptions, QuickProgress, train_quick

WORK = Path("bench-results/results")
MARKDOWN = Path("docs/results.md")
QUICK, FULL, REPEATS = "quick", "full", "repeats"
REPEATED = ("colour_only", "handmade_svm", "handmade_logistic", "last_layer")
DIVISIONS = 10


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
        elif key == REPEATS:
            found = repeats(bench, features)
        else:
            found = control_row(bench, features, key)
        note = {"sign": bench.sign, "at": now(), "commit": commit(), "load_average": load}
        row_file(bench, key).write_text(json.dumps(as_json(found | note), indent=1))
        if key == REPEATS:
            continue
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
    options = QuickOptions(scheme=bench.division.scheme)
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
        tell, seed=bench.task.seed, layout=net.layout, stages=net.backbone.row.head_stages,
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
    division, names = bench.division, bench.class_names
    plan = plan_run(
        task.labels, task.groups, task.names, evaluate="folds", n_folds=5, scheme=division.scheme,
        seed=task.seed, validation_share=recipe.validation_share, class_names=names,
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


def repeats(bench: Bench, features: Features) -> dict[str, Any]:
    """Score quick and its controls under other divisions into folds: how much is luck of one?"""
    scores: dict[str, list[float]] = {key: [] for key in (*REPEATED, QUICK)}
    for seed in range(DIVISIONS):
        other = bench.divided(seed)
        for key, found in scores.items():
            row = quick_row(other, features) if key == QUICK else control_row(other, features, key)
            found.append(row["balanced_accuracy"])
        say(f"  division {seed + 1} of {DIVISIONS}", again=True)
    return {"scores": scores}


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
                "set": bench.division.name, "folds": bench.division.says,
                "scheme": bench.task.scheme,
                "n": len(bench.task.labels), "n_classes": bench.task.n_classes,
                "n_groups": None if groups is None else len(set(groups)),
                "repeats": rows.pop(REPEATS, {}).get("scores"),
                "rows": {k: {n: v for n, v in r.items() if n != "predicted"}
                         for k, r in rows.items()},
            }
        )  # fmt: skip
    return {"at": now(), "commit": commit(), "machine": machine(), "sets": sets}


def with_earlier(sets: list[dict[str, Any]], table: Path) -> list[dict[str, Any]]:
    """Return the sets; one without a row kept here stays as the table of before has it."""
    try:
        earlier = {(x["set"], x["folds"]): x for x in json.loads(table.read_text())["sets"]}
    except (OSError, ValueError, KeyError):
        earlier = {}
    return [one if one["rows"] else earlier.get((one["set"], one["folds"]), one) for one in sets]


ROWS = (*CONTROLS, QUICK, FULL, REPEATS)


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
    names = {division.name for division in SETS}
    if unknown := set(chosen.only or ()) - names:
        parser.error(f"no such set: {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    keys = chosen.rows.split(",") if chosen.rows else list(ROWS)
    if unknown := set(keys) - set(ROWS):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if chosen.skip_full:
        keys = [key for key in keys if key != FULL]
    chosen.work.mkdir(parents=True, exist_ok=True)
    benches = [
        open_set(folder, division, chosen.work, chosen.epochs)
        for division in SETS
        if (folder / division.name / "labels.csv").is_file()
    ]
    for bench in benches:
        if chosen.only is None or bench.division.name in chosen.only:
            by_group = bench.task.groups is not None  # else folds differ by chance alone
            measure(bench, [k for k in keys if by_group or k != REPEATS], again=chosen.again)
    found = report(benches)
    found["sets"] = with_earlier(found["sets"], chosen.out.with_suffix(".json"))
    chosen.out.write_text(as_markdown(found), encoding="utf-8")
    chosen.out.with_suffix(".json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"written to {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
