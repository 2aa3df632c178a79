"""The quick model's own training, used as a control: on shuffled labels, and on shifted images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from cnsapp.domain.metrics import Interval, balanced_accuracy, confusion_matrix
from cnsapp.domain.splits import FoldPlan
from cnsapp.ml.controls_fit import NOT_SCORED, Check, Floats, Ints, Task
from cnsapp.ml.held_out import HeldOut, QuickOptions, pick

N_SHUFFLES = 8
MANY = 3000  # images from which on half as many shuffles tell as much


@dataclass(frozen=True)
class Shuffled:
    """What is reached where there is nothing to learn.

    Attributes
    ----------
    balanced_accuracy, interval
        Mean over the shuffles, and its 95 % interval by Student's t: under no leak each shuffle is
        an independent draw around chance, whatever the groups are like.
    n
        Images scored in each shuffle.
    chance
        1 / number of classes scored: what is to be expected.
    by_shuffle
        Balanced accuracy of each.
    """

    balanced_accuracy: float | None
    interval: Interval | None
    n: int
    chance: float
    by_shuffle: list[float]

    @property
    def leaks(self) -> bool:
        """Whether the score is clearly above chance: something was both learnt from and scored."""
        return self.interval is not None and self.interval[0] > self.chance


def shuffle_labels(
    labels: Ints,
    groups: Sequence[str | None] | None,
    n_classes: int,
    generator: np.random.Generator,
) -> Ints:
    """Return labels that say nothing of the images, though images of a group still agree.

    Within each group the classes swap names at random, each group for itself; an image without
    group is one of its own. So what makes the images of one group alike still goes with one label,
    as it does in the real data, and only what is common to different groups is lost. Without groups
    the labels are dealt out anew.
    """
    if groups is None or not any(groups):
        return generator.permutation(labels)
    found = labels.copy()
    keys = np.array([group or f"\0{i}" for i, group in enumerate(groups)])
    for key in np.unique(keys):
        mine = keys == key
        found[mine] = generator.permutation(n_classes)[labels[mine]]
    return found


def shuffled_labels(
    task: Task, x: Floats, options: QuickOptions, check: Check, n_shuffles: int | None = None
) -> Shuffled:
    """Train as the quick model trains, on labels that mean nothing: the score must be at chance.

    The shuffled labels are both learnt from and scored by, so a group that lies on both sides of a
    split is found out: it is recognised by its looks, and its shuffled label with it.

    Parameters
    ----------
    x
        (N, V, D) features that the quick head reads.
    options
        Of the quick model.
    check
        Called before every fit; raises to stop.

    References
    ----------
    Ojala and Garriga, Permutation tests for studying classifier performance, JMLR 2010.
    """
    generator = np.random.default_rng(task.seed)
    if n_shuffles is None:
        n_shuffles = N_SHUFFLES if len(task.labels) <= MANY else N_SHUFFLES // 2
    scores: list[float] = []
    for _ in range(n_shuffles):
        labels = shuffle_labels(task.labels, task.groups, task.n_classes, generator)
        answer = quick_answers(task, labels, x, options, check)
        asked = np.flatnonzero(answer != NOT_SCORED)
        score = balanced_accuracy(confusion_matrix(labels[asked], answer[asked], task.n_classes))
        if score is not None:
            scores.append(score)
    n = len(task.scored)
    chance = 1 / max(len(np.unique(task.labels[task.scored])), 1)
    if not scores:
        return Shuffled(None, None, n, chance, [])
    mean = float(np.mean(scores))
    return Shuffled(mean, _t_interval(scores), n, chance, scores)


def _t_interval(scores: Sequence[float]) -> Interval | None:
    """Return Student's 95 % interval of the mean, within 0 to 1; None below two scores."""
    if len(scores) < 2:
        return None
    half = float(t.ppf(0.975, len(scores) - 1) * np.std(scores, ddof=1) / np.sqrt(len(scores)))
    mean = float(np.mean(scores))
    return max(0.0, mean - half), min(1.0, mean + half)


def options_of(given: Mapping[str, Any]) -> QuickOptions:
    """Return the options of a quick model from what its run was told."""
    known = {f.name for f in fields(QuickOptions)}
    return QuickOptions(**{name: value for name, value in given.items() if name in known})


def quick_answers(task: Task, labels: Ints, x: Floats, options: QuickOptions, check: Check) -> Ints:
    """Return what the quick model of each fold says of its held-out images (N,), -1 elsewhere."""
    found = np.full(len(labels), NOT_SCORED)
    for train, test in task.parts():
        check()
        logits = fold_logits(task, labels, x[train], x[test], train, options)
        said = ~np.isnan(logits).any(1)
        found[test[said]] = logits[said].argmax(1)
    return found


def fold_logits(
    task: Task,
    labels: Ints,
    x_train: Floats,
    x_test: Floats,
    train: Ints,
    options: QuickOptions,
) -> NDArray[np.float64]:
    """Fit one fold's head again and return its logits (M, K) of any rows (M, V, D).

    The fit depends on the training rows, their order and the seed alone, so it is the head that
    judged the fold when the model was trained.
    """
    n, m = len(x_train), len(x_test)
    test = np.zeros(m, np.int64)
    run = HeldOut(
        np.concatenate([x_train, x_test]),
        np.concatenate([labels[train], labels[train][:1].repeat(m)]),  # of a class that is known
        task.n_classes,
        None if task.groups is None else [*(pick(task.groups, train) or []), *[None] * m],
        None if task.names is None else [*(pick(task.names, train) or []), *[""] * m],
        FoldPlan(np.concatenate([np.ones(n, np.int64), test]), task.scheme, 2),
        options,
        task.seed,
    )
    run.hold_out(0)
    return run.logits[n:]
