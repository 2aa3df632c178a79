"""The quick model's own training, used as a control: on shuffled labels, and on shifted images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from cnsapp.domain.metrics import Interval, balanced_accuracy, confusion_matrix
from cnsapp.domain.splits import FoldPlan
from cnsapp.ml.controls_fit import NOT_SCORED, Check, Floats, Ints, Task
from cnsapp.ml.held_out import HeldOut, QuickOptions, candidates_of, pick

N_SHUFFLES = 20
MANY = (600, 3000)  # images beyond which 8, and beyond which 4 shuffles tell as much
ALARM = 0.999  # a leak is only claimed where chance does as much once in a thousand models


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
    straddling
        Groups with images in several folds.
    """

    balanced_accuracy: float | None
    interval: Interval | None
    n: int
    chance: float
    by_shuffle: list[float]
    straddling: int = 0

    @property
    def leaks(self) -> bool:
        """Whether the score is clearly above chance: something was both learnt from and scored.

        One in forty sound models is above chance by its 95 % interval alone; that is no leak.
        """
        n = len(self.by_shuffle)
        if self.balanced_accuracy is None or n < 2:
            return False
        error = float(np.std(self.by_shuffle, ddof=1)) / float(np.sqrt(n))
        return self.balanced_accuracy - float(t.ppf(ALARM, n - 1)) * error > self.chance


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
        Of the quick model; its head is the linear one here.
    check
        Called before every fit; raises to stop.

    References
    ----------
    Ojala and Garriga, Permutation tests for studying classifier performance, JMLR 2010.
    """
    generator = np.random.default_rng(task.seed)
    options = replace(options, head="linear")  # finds a leak as well as any, in a tenth of the time
    if n_shuffles is None:
        n_shuffles = (N_SHUFFLES, 8, 4)[sum(len(task.labels) > many for many in MANY)]
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
    return Shuffled(mean, _t_interval(scores), n, chance, scores, straddling(task))


def straddling(task: Task) -> int:
    """Return how many groups have images in several folds."""
    if task.groups is None:
        return 0
    folds: dict[str, set[int]] = {}
    for group, fold in zip(task.groups, task.folds.tolist(), strict=True):
        if group:
            folds.setdefault(group, set()).add(fold)
    return sum(len(found) > 1 for found in folds.values())


def _t_interval(scores: Sequence[float]) -> Interval | None:
    """Return Student's 95 % interval of the mean, within 0 to 1; None below two scores."""
    if len(scores) < 2:
        return None
    half = float(t.ppf(0.975, len(scores) - 1) * np.std(scores, ddof=1) / np.sqrt(len(scores)))
    mean = float(np.mean(scores))
    return max(0.0, mean - half), min(1.0, mean + half)


def options_of(given: Mapping[str, Any]) -> QuickOptions:
    """Return the options of a quick model from what its run was told."""
    return QuickOptions(**{name: given[name] for name in ("head", "threshold") if name in given})


def quick_answers(task: Task, labels: Ints, x: Floats, options: QuickOptions, check: Check) -> Ints:
    """Return what the quick model of each fold says of its held-out images (N,), -1 elsewhere.

    It answers by the clean view, `x[:, 0]`.
    """
    found = np.full(len(labels), NOT_SCORED)
    for train, test in task.parts():
        check()
        logits = fold_logits(task, labels, train, x[train], x[test][:, :1], options)
        said = ~np.isnan(logits).any(1)
        found[test[said]] = logits[said].argmax(1)
    return found


def fold_logits(
    task: Task,
    labels: Ints,
    train: Ints,
    x_train: Floats,
    x_test: Floats,
    options: QuickOptions,
    answered: Floats | None = None,
) -> NDArray[np.float64]:
    """Fit one fold's head again and return its logits (M, K) of any images.

    The fit depends on the training rows, their order and the seed alone, so it is the head that
    judged the fold when the model was trained.

    Parameters
    ----------
    labels
        (N,) of all images of the task.
    train
        (n,) positions of the training images.
    x_train
        (n, V, D) their features.
    x_test
        (M, W, D) of the images to judge, in the views that are averaged at prediction.
    answered
        (n, W, D) of the training images in those views; None is the clean one alone.
    """
    n, m = len(x_train), len(x_test)
    answered = x_train[:, :1] if answered is None else answered
    few = {candidate.family.kind for candidate in candidates_of(options, len(labels), task.groups)}
    if len(few) == 1:  # how many images there are to judge here must not change the choice
        options = replace(options, head=few.pop())
    nobody: list[Any] = [None] * m
    run = HeldOut(
        np.concatenate([x_train, np.zeros((m, *x_train.shape[1:]), np.float32)]),
        np.concatenate([labels[train], labels[train][:1].repeat(m)]),  # of a class that is known
        task.n_classes,
        None if task.groups is None else [*(pick(task.groups, train) or []), *nobody],
        None if task.names is None else [*(pick(task.names, train) or []), *[""] * m],
        FoldPlan(np.repeat([1, 0], [n, m]).astype(np.int64), task.scheme, 2),
        options,
        task.seed,
        answered=np.concatenate([answered, x_test]),
        pictures=None if task.pictures is None else [*(task.pictures[i] for i in train), *nobody],
    )
    run.hold_out(0)
    return run.logits[n:]
