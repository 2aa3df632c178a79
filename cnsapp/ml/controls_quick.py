"""The quick model's own training, used as a control: on shuffled labels, and on shifted images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.metrics import Interval, balanced_accuracy, bootstrap_interval, confusion_matrix
from cnsapp.domain.splits import FoldPlan
from cnsapp.ml.controls_fit import NOT_SCORED, Check, Floats, Ints, Task
from cnsapp.ml.held_out import HeldOut, QuickOptions, pick

N_SHUFFLES = 5


@dataclass(frozen=True)
class Shuffled:
    """What is reached where there is nothing to learn.

    Attributes
    ----------
    balanced_accuracy, interval
        Over all shuffles together; whole groups, with all their shuffles, are resampled.
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
    task: Task, x: Floats, options: QuickOptions, check: Check, n_shuffles: int = N_SHUFFLES
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
    truths, answers, drawn = [], [], []
    units = [f"{i}" for i in range(len(task.labels))]  # an image is drawn with all its shuffles
    if task.groups is not None and any(task.groups):
        units = [group or unit for group, unit in zip(task.groups, units, strict=True)]
    for _ in range(n_shuffles):
        labels = shuffle_labels(task.labels, task.groups, task.n_classes, generator)
        answer = quick_answers(task, labels, x, options, check)
        asked = np.flatnonzero(answer != NOT_SCORED)
        truths.append(labels[asked])
        answers.append(answer[asked])
        drawn.append([units[i] for i in asked])
    y, p = np.concatenate(truths), np.concatenate(answers)
    scores = [
        balanced_accuracy(confusion_matrix(truth, answer, task.n_classes))
        for truth, answer in zip(truths, answers, strict=True)
    ]
    return Shuffled(
        balanced_accuracy(confusion_matrix(y, p, task.n_classes)),
        bootstrap_interval(
            y, p, task.n_classes, [unit for part in drawn for unit in part], seed=task.seed
        ),
        max((len(truth) for truth in truths), default=0),
        1 / max(len(np.unique(y)), 1),
        [score for score in scores if score is not None],
    )


def quick_answers(
    task: Task, labels: Ints, x: Floats, options: QuickOptions, check: Check
) -> Ints:
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
