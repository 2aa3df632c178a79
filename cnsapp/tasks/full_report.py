"""The figures of a fine-tuned model, its controls on the same images, and its rows of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.calibration import expected_calibration_error, softmax
from cnsapp.domain.metrics import Evaluation, balanced_accuracy, confusion_matrix, evaluate
from cnsapp.ml.controls import data_warnings
from cnsapp.ml.heads import class_weights, fit_head
from cnsapp.ml.held_out import NEVER
from cnsapp.services.scores import scores_json
from cnsapp.tasks.full_fit import Answers
from cnsapp.tasks.full_run import FullRun

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
COLOUR_STRENGTH = 1.0
CHUNK = 256  # pictures whose colour is measured at once


@dataclass(frozen=True)
class Scored:
    """Answers on images that the network had not seen.

    Attributes
    ----------
    rows
        (n,) rows of the run.
    labels
        (n,) class indices.
    probabilities
        (n, K), calibrated.
    evaluation, calibration_error
        Their figures.
    """

    rows: Ints
    labels: Ints
    probabilities: Floats
    evaluation: Evaluation
    calibration_error: float | None


def score_held_out(run: FullRun, answers: Sequence[Answers], seed: int) -> Scored:
    """Return the headline: every image by the network that it was kept back from.

    Images of a class that their network never saw are not scored.
    """
    labels, k = run.labels, len(run.class_ids)
    rows: list[Ints] = []
    found: list[Floats] = []
    for part, answer in zip(run.parts, answers, strict=True):
        if part.fold is None:
            continue
        learnt = np.unique(labels[np.concatenate([part.train, part.validation])])
        scored = np.isin(labels[part.held], np.intersect1d(learnt, np.unique(labels[part.train])))
        logits = answer.held.astype(np.float64)
        logits[:, np.setdiff1d(np.arange(k), labels[part.train])] = NEVER
        rows.append(part.held[scored])
        found.append(softmax(logits[scored], answer.temperature))
    return _scored(run, _joined(rows), np.concatenate([np.zeros((0, k)), *found]), seed)


def score_test(run: FullRun, answer: Answers, seed: int) -> Scored | None:
    """Return the score on the locked test set, or None where there is none."""
    if not len(run.test):
        return None
    return _scored(run, run.test, softmax(answer.test, answer.temperature), seed)


def _joined(rows: Sequence[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *rows])


def _scored(run: FullRun, rows: Ints, probabilities: Floats, seed: int) -> Scored:
    y = run.labels[rows]
    order = np.argsort(-probabilities, axis=1, kind="stable")
    k = len(run.class_ids)
    found = evaluate(
        y, order[:, 0], k, run.groups(rows), seed, second=order[:, 1] if k > 2 else None
    )
    return Scored(rows, y, probabilities, found, expected_calibration_error(probabilities, y))


def simple_controls(
    run: FullRun, scored: Scored, pixels: NDArray[np.uint8]
) -> dict[str, float | None]:
    """Return what the commonest class and colour alone reach on the very same images."""
    labels, k = run.labels, len(run.class_ids)
    held = [part for part in run.parts if part.fold is not None]
    if not held:
        return {"majority": None, "colour_only": None}
    usable = np.unique(np.concatenate([_joined([p.train, p.validation, p.held]) for p in held]))
    colour = np.zeros((len(labels), 6), np.float32)
    colour[usable] = colour_of(pixels, usable)
    said = {name: np.zeros(len(labels), np.int64) for name in ("majority", "colour_only")}
    for part in held:
        rest = np.concatenate([part.train, part.validation])
        counts = np.bincount(labels[rest], minlength=k)
        said["majority"][part.held] = int(counts.argmax())
        head = fit_head(
            colour[rest], labels[rest], class_weights(labels[rest], k), COLOUR_STRENGTH, k
        )
        logits = head.logits(colour[part.held])
        logits[:, counts == 0] = NEVER
        said["colour_only"][part.held] = logits.argmax(1)
    return {
        name: balanced_accuracy(confusion_matrix(scored.labels, answer[scored.rows], k))
        for name, answer in said.items()
    }


def colour_of(pixels: NDArray[np.uint8], rows: Ints) -> NDArray[np.float32]:
    """Return mean and standard deviation of red, green and blue of pictures, (n, 6), 0 to 1."""
    found = np.empty((len(rows), 6), np.float32)
    for start in range(0, len(rows), CHUNK):
        part = pixels[rows[start : start + CHUNK]].astype(np.float32) / 255
        found[start : start + CHUNK, :3] = part.mean((1, 2))
        found[start : start + CHUNK, 3:] = part.std((1, 2))
    return found


def metrics_of(
    run: FullRun,
    scored: Scored,
    answers: Sequence[Answers],
    controls: dict[str, float | None],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the figures of the model, in the form of every model's."""
    labels = run.labels[
        _joined([p for part in run.parts for p in (part.train, part.validation, part.held)])
    ]
    published = answers[-1]
    warnings = [*run.warnings, *notes, *published.facts["notes"]]
    warnings += data_warnings(
        labels,
        run.class_names,
        np.unique(labels),
        scored.evaluation,
        controls.get("colour_only"),
    )
    epochs = [record for answer in answers for record in answer.records]
    fast = [record.images_per_second for record in epochs if record.epoch]
    return scores_json(scored.evaluation, run.class_ids, run.class_names) | {
        "scheme": run.scheme,
        "n_folds": run.n_folds,
        "score_of": "folds" if run.n_folds > 1 else "holdout",
        "head": "network",
        "controls": controls,
        "warnings": list(dict.fromkeys(warnings)),
        "temperature": published.temperature,
        "temperature_fitted_on": "validation images",
        "ece": scored.calibration_error,
        "stages": [],
        "best_epoch": published.facts["best_epoch"],
        "n_epochs": max(record.epoch for record in published.records),
        "validation_balanced_accuracy": published.facts["validation_balanced_accuracy"],
        "networks": [
            answer.facts
            | {
                "temperature": answer.temperature,
                "epochs": [record.as_json() for record in answer.records],
            }
            for answer in answers
        ],
        "images_per_second": round(float(np.median(fast)), 2) if fast else None,
        "image_size": run.size,
        "chosen": published.facts["chosen"],
        "n_trained": published.facts["n_train"],
        "n_validation": published.facts["n_validation"],
        "test": None,
        "seconds": round(run.seconds + sum(record.seconds for record in epochs), 2),
    }


def prediction_rows(run: FullRun, scored: Scored, part: str) -> list[dict[str, Any]]:
    """Return the rows of answers; `part` is `fold` or `test`."""
    rows = []
    for row, p in zip(scored.rows, scored.probabilities, strict=True):
        image, best = run.images[int(row)], int(p.argmax())
        rows.append(
            {
                "image_id": image.source.image_id,
                "class_id": run.class_ids[best],
                "probability": float(p[best]),
                "fold": int(run.folds[row]) if part == "fold" else None,
                "probabilities": [round(float(value), 6) for value in p],
                "label_class_id": image.class_id,
                "event_id": image.event_id,
                "part": part,
            }
        )
    return rows
