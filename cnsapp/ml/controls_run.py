"""All controls of a model: each with its score, its interval, and the difference to the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.compare import compare
from cnsapp.domain.metrics import evaluate
from cnsapp.domain.together import known_groups
from cnsapp.ml.controls_fit import (
    NOT_SCORED,
    Answer,
    Check,
    Floats,
    Ints,
    Task,
    kernel_svm,
    logistic,
    majority,
)
from cnsapp.ml.controls_quick import shuffled_labels
from cnsapp.ml.held_out import QuickOptions, pick

MAJORITY, COLOUR, LAST, SHUFFLED = "majority", "colour_only", "last_layer", "shuffled_labels"
SVM, LOGISTIC = "handmade_svm", "handmade_logistic"
CONTROLS = (MAJORITY, COLOUR, SVM, LOGISTIC, LAST, SHUFFLED)
"""Keys of the controls, in the order in which they are computed and shown."""
TITLES = {
    MAJORITY: "Always the commonest class",
    COLOUR: "Colour only (six numbers)",
    SVM: "Colour and texture by hand, SVM",
    LOGISTIC: "Colour and texture by hand, logistic regression",
    LAST: "Last layer, logistic regression",
    SHUFFLED: "Shuffled labels",
}


@dataclass(frozen=True)
class Inputs:
    """What controls read, each in the order of the task's images.

    Attributes
    ----------
    colour
        (N, 6) mean and standard deviation of red, green and blue.
    handmade
        (N, D) of `cnsapp.ml.handmade`.
    last_layer
        (N, D) means of the backbone's last stage; None where they cannot be had.
    quick
        (N, V, D) that the quick head reads; None likewise.
    options
        Of the quick model.
    """

    colour: Floats | None = None
    handmade: Floats | None = None
    last_layer: Floats | None = None
    quick: Floats | None = None
    options: QuickOptions = field(default_factory=QuickOptions)

    def suffice(self, key: str) -> bool:
        """Whether a control has what it reads."""
        needed = {
            COLOUR: self.colour, SVM: self.handmade, LOGISTIC: self.handmade,
            LAST: self.last_layer, SHUFFLED: self.quick,
        }  # fmt: skip
        return key == MAJORITY or needed[key] is not None


def run_control(
    key: str,
    task: Task,
    inputs: Inputs,
    answers: Ints,
    check: Check,
    *,
    with_answers: bool = False,
) -> dict[str, Any]:
    """Score one control.

    Parameters
    ----------
    key
        One of `CONTROLS`.
    answers
        (N,) what the model said, -1 where it said nothing.
    check
        Called between fits; raises to stop.
    with_answers
        Also return `predicted`, a list of N.

    Returns
    -------
    Plain data: balanced_accuracy, interval, n, n_groups, interval_by, seconds, rule, settings;
    and, but for shuffled labels, `difference` (the model less the control) with its
    `difference_interval` and `p_value` on the same images; for shuffled labels `chance`,
    `by_shuffle` and `leaks`.
    """
    began = time.perf_counter()
    if key == SHUFFLED:
        assert inputs.quick is not None
        drawn = shuffled_labels(task, inputs.quick, inputs.options, check)
        return {
            "balanced_accuracy": drawn.balanced_accuracy,
            "interval": list(drawn.interval) if drawn.interval else None,
            "interval_by": "shuffle",
            "n": drawn.n,
            "chance": drawn.chance,
            "by_shuffle": drawn.by_shuffle,
            "leaks": drawn.leaks,
            "straddling_groups": drawn.straddling,
            "rule": "the quick model's own training (linear head), labels shuffled within groups",
            "seconds": round(time.perf_counter() - began, 2),
        }
    answer = _answer(key, task, inputs, check)
    seconds = round(time.perf_counter() - began, 2)
    found = scored(task, answer.predicted) | against(task, answers, answer.predicted)
    if with_answers:
        found["predicted"] = answer.predicted.tolist()
    return found | {"rule": answer.rule, "settings": answer.settings, "seconds": seconds}


def _answer(key: str, task: Task, inputs: Inputs, check: Check) -> Answer:
    def of(x: Floats | None) -> Floats:
        assert x is not None
        return x

    if key == MAJORITY:
        return majority(task)
    if key == COLOUR:
        return kernel_svm(task, of(inputs.colour), "mean and spread of red, green, blue", check)
    if key == SVM:
        return kernel_svm(task, of(inputs.handmade), "colour and texture by hand", check)
    if key == LOGISTIC:
        return logistic(task, of(inputs.handmade), "colour and texture by hand", check)
    return logistic(task, of(inputs.last_layer), "last layer of the frozen network", check)


def scored(task: Task, predicted: Ints) -> dict[str, Any]:
    """Return the figures of predictions on the scored images, as plain data."""
    rows = task.scored
    groups = pick_groups(task, rows)
    found = evaluate(task.labels[rows], predicted[rows], task.n_classes, groups, task.seed)
    return {
        "balanced_accuracy": found.balanced_accuracy,
        "interval": list(found.interval) if found.interval else None,
        "interval_by": found.interval_by,
        "n": found.n,
        "n_groups": found.n_groups,
    }


def against(task: Task, answers: Ints, predicted: Ints) -> dict[str, Any]:
    """Return how much better the model is than a control on the same images, as plain data."""
    rows = np.flatnonzero((task.folds != NOT_SCORED) & (answers != NOT_SCORED))
    if not len(rows):
        return {"difference": None, "difference_interval": None, "p_value": None}
    both = np.stack([answers[rows], predicted[rows]])
    pair = compare(
        task.labels[rows], both, task.n_classes, pick_groups(task, rows), seed=task.seed
    ).pairs[0]
    return {
        "difference": pair.difference,
        "difference_interval": list(pair.interval) if pair.interval else None,
        "p_value": pair.p_value,
    }


def pick_groups(task: Task, rows: NDArray[np.integer]) -> list[str | None] | None:
    """Return the groups of these rows, or None where there are none."""
    return known_groups(pick(task.groups, np.asarray(rows, np.int64)))


def control_warnings(score: float | None, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what the controls say of a model, in sentences for its reader.

    Parameters
    ----------
    score
        The model's balanced accuracy.
    found
        Of `run_control`, by key.
    """
    said = []
    chance = (found.get(MAJORITY) or {}).get("balanced_accuracy") or 0.0
    colour = found.get(COLOUR)
    if score is not None and colour and _comes_close(score, colour, chance):
        said.append(
            f"Colour alone reaches {colour['balanced_accuracy']:.2f} (the model {score:.2f}): the "
            "model may be reading the stain rather than the tissue."
        )
    by_hand = [found[key] for key in (SVM, LOGISTIC) if found.get(key)]
    best = max(by_hand, key=lambda one: one["balanced_accuracy"] or 0.0, default=None)
    if score is not None and best is not None and not _is_better(best):
        least = best["balanced_accuracy"]
        if best["difference"] is not None and best["difference"] < 0:
            what = "the network buys nothing here so far"
        else:
            what = "that the network buys anything here is not shown"
        said.append(
            f"Colour and texture described by hand reach {least:.2f} with a classic classifier "
            f"(the model {score:.2f}): {what}."
        )
    last = found.get(LAST)
    if score is not None and last and not _is_better(last):
        said.append(
            f"A plain linear probe on the network's last layer reaches "
            f"{last['balanced_accuracy']:.2f} (the model {score:.2f}): no clear difference."
        )
    shuffled = found.get(SHUFFLED)
    if shuffled and shuffled.get("leaks"):
        n = shuffled.get("straddling_groups", 0)
        said.append(
            f"With shuffled labels {shuffled['balanced_accuracy']:.2f} is reached where chance is "
            f"{shuffled['chance']:.2f}: "
            + (
                f"{n} groups have images on both sides of the folds, so the score is too good. "
                "Split by group."
                if n
                else "what is scored gives itself away to what is learnt from, so the score is "
                "too good. Look for near-duplicates and for groups that are missing."
            )
        )
    return said


def _comes_close(score: float, control: Mapping[str, Any], chance: float) -> bool:
    value = control.get("balanced_accuracy")
    if value is None or value <= chance + 0.1:
        return False
    return value - chance >= 0.8 * (score - chance) or value >= 0.8 or not _is_better(control)


def _is_better(control: Mapping[str, Any]) -> bool:
    """Whether the model is better than a control beyond what chance explains."""
    interval = control.get("difference_interval")
    return interval is not None and interval[0] > 0
