"""What a quick model is measured against: simpler models on the same folds, and plain warnings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnsapp.domain.metrics import Evaluation
from cnsapp.ml.features import FeatureLayout
from cnsapp.ml.heads import class_weights, fit_head
from cnsapp.ml.held_out import NEVER, Floats, HeldOut, Ints, balanced


def score_controls(
    run: HeldOut, features: Floats, colour: Floats, layout: FeatureLayout
) -> dict[str, float | None]:
    """Score simpler models on the same folds: always the commonest class, colour, last layer.

    Parameters
    ----------
    run
        With all its folds predicted.
    features
        (N, V, D) network features of all stages in `layout`; view 0 is the clean one.
    colour
        (N, 6) mean and standard deviation of red, green and blue.

    Returns
    -------
    Balanced accuracy by the control's name, 0 to 1; None where it is not defined.
    """
    majority = np.full(run.logits.shape, np.nan)
    for fold in range(run.plan.n_folds):
        test = run.plan.folds == fold
        counts = np.bincount(run.labels[~test], minlength=run.n_classes)
        majority[test] = counts
    majority[np.isnan(run.logits).any(1)] = np.nan
    controls = {
        "majority": balanced(majority, run.labels, run.n_classes),
        "colour": _linear_control(run, colour, 1.0),
    }
    if run.options.last_layer_control:
        _, start, stop = layout.stages[-1]
        means = features[:, 0, start : start + (stop - start) // 2]
        controls["last layer"] = _linear_control(run, means, 0.01)
    return controls


def _linear_control(run: HeldOut, x: Floats, strength: float) -> float | None:
    logits = np.full(run.logits.shape, np.nan)
    for fold in range(run.plan.n_folds):
        train, test = run.plan.folds != fold, run.plan.folds == fold
        y = run.labels[train]
        head = fit_head(x[train], y, class_weights(y, run.n_classes), strength, run.n_classes)
        logits[test] = head.logits(x[test])
        logits[np.ix_(test, np.setdiff1d(np.arange(run.n_classes), y))] = NEVER
    logits[np.isnan(run.logits).any(1)] = np.nan
    return balanced(logits, run.labels, run.n_classes)


def data_warnings(
    y: Ints, names: Sequence[str], present: Ints, evaluation: Evaluation, colour: float | None
) -> list[str]:
    """Return what a reader of the scores must know of the data, in sentences.

    Parameters
    ----------
    y
        (N,) index into `names` of each image.
    present
        Indices of the classes that have images.
    evaluation, colour
        The model's scores, and the balanced accuracy that colour alone reaches.
    """
    said = []
    left_out = [name for c, name in enumerate(names) if c not in present]
    if left_out:
        said.append(f"Without images, so not in the model: {', '.join(left_out)}.")
    if len(y) < 200:
        said.append(f"Only {len(y)} images: the score is a rough estimate, see its interval.")
    score = evaluation.balanced_accuracy
    chance = 1 / len(present)
    if score is not None and colour is not None:
        close = colour - chance >= 0.8 * (score - chance)
        if (close or colour >= 0.8) and colour > chance + 0.1:
            said.append(
                f"Colour alone reaches {colour:.2f} (the model {score:.2f}): the model may be"
                " reading the stain rather than the tissue."
            )
    if score is not None and evaluation.interval is not None:
        low = evaluation.interval[0]
        if low <= chance:
            said.append(f"The score is not clearly above chance ({chance:.2f}).")
    return said
