"""The quick model: a linear head on cached features, with an honest score, in seconds.

Every image is predicted by a head that saw neither it nor its group (out-of-fold). How strongly
that head is regularised was chosen inside its own training images (nested), so that the reported
score was not tuned on itself. The published head is then fitted to all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.calibration import (
    cross_fitted_probabilities,
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from cnsapp.domain.metrics import Evaluation, balanced_accuracy, confusion_matrix, evaluate
from cnsapp.domain.splits import BY_GROUP, FoldPlan, grouped_folds
from cnsapp.errors import Cancelled, CnsError
from cnsapp.ml.features import FeatureLayout
from cnsapp.ml.heads import LinearHead, class_weights, fit_head, fit_heads, standardiser

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
NEVER = -1e4
"""Logit of a class that the training images of a fold did not contain: probability 0."""


@dataclass(frozen=True)
class QuickOptions:
    """Choices of a quick model.

    Attributes
    ----------
    stages
        Backbone stages that the head reads; None takes the backbone's own choice from the caller.
    strengths
        Inverse penalties C to choose among, rising.
    extra_view_share
        Share of an image's weight in training that its jittered views carry together, 0 to 1.
    n_folds, n_inner_folds
        Outer folds for the score, inner folds for the choice.
    scheme
        `by group`, `by file-name blocks`, `random`, or None: groups if any, else blocks.
    threshold
        Confidence in 0 to 1 below which the model says "unsure".
    predict_views
        Views averaged at prediction.
    last_layer_control
        Also score the usual linear probe on the last layer (some seconds more).
    """

    stages: tuple[str, ...] | None = None
    strengths: tuple[float, ...] = (0.003, 0.01, 0.03)
    extra_view_share: float = 0.15
    n_folds: int = 5
    n_inner_folds: int = 3
    scheme: str | None = None
    threshold: float = 0.5
    predict_views: tuple[str, ...] = ("clean",)
    last_layer_control: bool = False


@dataclass(frozen=True)
class QuickProgress:
    """How far training is: steps done of `total`, a sentence, the score over the folds so far."""

    done: int
    total: int
    message: str
    balanced_accuracy: float | None = None


@dataclass(frozen=True)
class QuickResult:
    """A quick model with everything its report needs.

    Attributes
    ----------
    head
        Fitted to all images; reads the columns of `stages`.
    stages, strength, temperature, threshold, predict_views
        The settings it goes with. The temperature was fitted on the out-of-fold logits.
    class_ids, class_names
        Classes of the model in the order of its outputs (classes without images are left out).
    labels
        (N,) index of each image's class in `class_ids`.
    probabilities
        (N, K) calibrated out-of-fold probabilities; NaN rows where an image could not be held out.
    folds, scheme
        Fold of each image and how the folds were made.
    evaluation
        Of the out-of-fold predictions; `n` counts the images that could be held out.
    calibration_error
        Expected calibration error of the out-of-fold answers, 0 to 1, or None; each fold scaled by
        the temperature of the others, so that it is not judged on what it was fitted to.
    controls
        Balanced accuracy of simpler models on the same folds, by name; None where undefined.
    warnings
        What a reader of the scores must know, in plain words.
    """

    head: LinearHead
    stages: tuple[str, ...]
    strength: float
    temperature: float
    threshold: float
    predict_views: tuple[str, ...]
    class_ids: list[int]
    class_names: list[str]
    labels: Ints
    probabilities: NDArray[np.float64]
    folds: Ints
    scheme: str
    evaluation: Evaluation
    calibration_error: float | None
    controls: dict[str, float | None]
    warnings: list[str] = field(default_factory=list)

    def metrics_json(self) -> dict[str, object]:
        """Return scores, controls and settings as plain data, for the model's database row."""
        return {
            "evaluation": self.evaluation.as_json(),
            "balanced_accuracy": self.evaluation.balanced_accuracy,
            "calibration_error": self.calibration_error,
            "controls": self.controls,
            "scheme": self.scheme,
            "n_folds": len(np.unique(self.folds)) if self.evaluation.n else 0,
            "class_ids": self.class_ids,
            "class_names": self.class_names,
            "temperature": self.temperature,
            "temperature_fitted_on": "out-of-fold logits",
            "strength": self.strength,
            "stages": list(self.stages),
            "warnings": self.warnings,
        }


def train_quick(
    features: Floats,
    colour: Floats,
    y: NDArray[np.integer],
    groups: Sequence[str | None] | None,
    names: Sequence[str] | None,
    class_ids: Sequence[int],
    options: QuickOptions | None = None,
    progress: Callable[[QuickProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    seed: int = 0,
    *,
    layout: FeatureLayout,
    stages: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> QuickResult:
    """Train a quick model on cached features.

    Parameters
    ----------
    features
        (N, V, D) network features; view 0 is the clean one, the others only train.
    colour
        (N, 6) mean and standard deviation of red, green and blue, for the colour-only control.
    y
        (N,) index into `class_ids` of each image.
    groups
        Patient, slide or batch of each image, or None.
    names
        File names, for block folds where there are no groups.
    class_ids, class_names
        Ids and names of the classes; names default to the ids.
    options
        See `QuickOptions`.
    progress, cancelled
        Called and asked after every fold.
    seed
        Of folds and bootstrap: the same seed gives the same model.
    layout, stages
        Where the stages lie in `features`, and the backbone's `head_stages`.

    Raises
    ------
    CnsError
        Fewer than two classes have images.
    Cancelled
        When `cancelled()` says so.

    References
    ----------
    Varma and Simon, Bias in error estimation when using cross-validation for model selection, BMC
    Bioinformatics 2006 (nested validation); Guo et al., ICML 2017 (temperature).
    """
    options = options or QuickOptions()
    labels_in = list(class_names) if class_names is not None else [str(i) for i in class_ids]
    given = np.asarray(y, np.int64)
    present = _present_classes(given, labels_in)
    ids, class_labels = [class_ids[c] for c in present], [labels_in[c] for c in present]
    labels = np.searchsorted(present, given).astype(np.int64)
    plan = grouped_folds(
        labels, groups, n_folds=options.n_folds, seed=seed, names=names,
        scheme=options.scheme, class_names=class_labels,
    )  # fmt: skip
    chosen = tuple(options.stages or stages)
    columns = layout.columns(chosen)
    read = features if len(columns) == features.shape[2] else features[:, :, columns]
    x = np.ascontiguousarray(read, np.float32)  # no copy where the caller brought these alone
    run = _Run(x, labels, len(ids), groups, names, plan, options, seed)
    total = plan.n_folds + 2
    for fold in range(plan.n_folds):
        if cancelled is not None and cancelled():
            raise Cancelled
        run.hold_out(fold)
        if progress is not None:
            message = f"Fold {fold + 1} of {plan.n_folds}"
            progress(QuickProgress(fold + 1, total, message, run.score_so_far()))
    strength = run.final_strength()
    shares = view_shares(x.shape[1], options.extra_view_share)
    weight = (class_weights(labels, len(ids))[:, None] * shares).ravel()
    head = fit_head(
        x.reshape(-1, x.shape[2]), np.repeat(labels, x.shape[1]), weight, strength, len(ids)
    )
    if progress is not None:
        progress(QuickProgress(total - 1, total, "Scores and controls", run.score_so_far()))
    result = _report(run, head, strength, chosen, ids, class_labels)
    controls = _controls(run, features, colour, layout, options)
    result.controls.update(controls)
    result.warnings.extend(_data_warnings(given, labels_in, present, result))
    if progress is not None:
        progress(QuickProgress(total, total, "Done", result.evaluation.balanced_accuracy))
    return result


def view_shares(n_views: int, extra: float) -> Floats:
    """Return (V,) weights that sum to 1: the clean view first, the others share `extra`."""
    if n_views == 1:
        return np.ones(1, np.float32)
    return np.array([1 - extra] + [extra / (n_views - 1)] * (n_views - 1), np.float32)


def _present_classes(y: Ints, names: Sequence[str]) -> Ints:
    counts = np.bincount(y, minlength=len(names))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        listing = ", ".join(f"{name} {n}" for name, n in zip(names, counts, strict=True))
        raise CnsError(
            f"Labelled images so far: {listing or 'none'}.",
            "A model needs images of at least two classes to learn a difference.",
            "Label a few images of another class, then train again.",
        )
    return present


class _Run:
    """The state of one training: what each held-out fold said, under every strength."""

    def __init__(
        self,
        x: Floats,
        labels: Ints,
        n_classes: int,
        groups: Sequence[str | None] | None,
        names: Sequence[str] | None,
        plan: FoldPlan,
        options: QuickOptions,
        seed: int,
    ) -> None:
        self.x, self.labels, self.n_classes = x, labels, n_classes
        self.groups, self.names, self.plan = groups, names, plan
        self.options, self.seed = options, seed
        self.strengths = np.asarray(options.strengths, np.float32)
        shape = (len(self.strengths), len(labels), n_classes)
        self.all_logits = np.full(shape, np.nan)  # under every strength: for the final choice only
        self.logits = np.full(shape[1:], np.nan)  # under the strength chosen without this fold

    def hold_out(self, fold: int) -> None:
        """Fit on the other folds (choosing the strength among them) and predict this one."""
        train = np.flatnonzero(self.plan.folds != fold)
        test = np.flatnonzero(self.plan.folds == fold)
        x, y = self.x[train], self.labels[train]
        n, v, d = x.shape
        mean, std = standardiser(x.reshape(-1, d))
        z = (x - mean) / std
        groups, scheme = _pick(self.groups, train), self.plan.scheme
        inner = grouped_folds(
            y, groups, n_folds=self.options.n_inner_folds, seed=self.seed,
            names=_pick(self.names, train),
            # this fold may hold every image that has a group: the rest then goes by file names
            scheme=None if scheme == BY_GROUP and not any(groups or []) else scheme,
        )  # fmt: skip
        masks = [inner.folds != k for k in range(inner.n_folds)] + [np.ones(n, bool)]
        rows = np.stack([self._weights(y, mask, v) for mask in masks])  # (inner + 1, n v)
        c = len(self.strengths)
        weights, biases = fit_heads(
            z.reshape(-1, d), np.repeat(y, v), np.repeat(rows, c, axis=0),
            np.tile(self.strengths, len(masks)), self.n_classes,
        )  # fmt: skip
        weights = weights.reshape(len(masks), c, self.n_classes, d)
        biases = biases.reshape(len(masks), c, 1, self.n_classes)
        held = np.full((c, n, self.n_classes), np.nan)
        for k in range(inner.n_folds):
            out = np.flatnonzero(inner.folds == k)
            logits = z[out, 0] @ weights[k].transpose(0, 2, 1) + biases[k]
            held[:, out] = self._mask_absent(logits, y[out], y[inner.folds != k])
        best = choose_strength(held, y, self.n_classes)
        z_test = (self.x[test, 0] - mean) / std
        logits = z_test @ weights[-1].transpose(0, 2, 1) + biases[-1]
        self.all_logits[:, test] = self._mask_absent(logits, self.labels[test], y)
        self.logits[test] = self.all_logits[best, test]

    def _weights(self, y: Ints, mask: NDArray[np.bool_], n_views: int) -> Floats:
        weight = np.zeros(len(y), np.float32)
        weight[mask] = class_weights(y[mask], self.n_classes)
        return (weight[:, None] * view_shares(n_views, self.options.extra_view_share)).ravel()

    def _mask_absent(self, logits: Floats, y_out: Ints, y_train: Ints) -> NDArray[np.float64]:
        """Rule out classes that training did not see; an image of such a class is not scored."""
        absent = np.setdiff1d(np.arange(self.n_classes), y_train)
        out = logits.astype(np.float64)
        out[..., absent] = NEVER
        out[..., np.isin(y_out, absent), :] = np.nan
        return out

    def score_so_far(self) -> float | None:
        """Return the balanced accuracy over the images predicted so far."""
        return _balanced(self.logits, self.labels, self.n_classes)

    def final_strength(self) -> float:
        """Choose the strength of the published head by all outer folds."""
        return float(self.strengths[choose_strength(self.all_logits, self.labels, self.n_classes)])


def choose_strength(held: NDArray[np.float64], y: Ints, n_classes: int) -> int:
    """Return the position of the best strength.

    The best balanced accuracy wins; among those within one standard error of it, the smallest C:
    the simpler model holds better on new slides.

    Parameters
    ----------
    held
        (C, N, K) held-out logits under each strength, rising; NaN rows are left out.
    y
        (N,) class indices.
    """
    scores = [_balanced(logits, y, n_classes) for logits in held]
    if any(score is None for score in scores):
        return len(held) // 2
    best = max(score for score in scores if score is not None)
    n = int((~np.isnan(held[0]).any(1)).sum())
    slack = ONE_STANDARD_ERROR * float(np.sqrt(best * (1 - best) / n))
    return next(i for i, score in enumerate(scores) if score is not None and score >= best - slack)


ONE_STANDARD_ERROR = 1.0


def _balanced(logits: NDArray[np.float64], y: Ints, n_classes: int) -> float | None:
    scored = ~np.isnan(logits).any(1)
    return balanced_accuracy(confusion_matrix(y[scored], logits[scored].argmax(1), n_classes))


def _pick(values: Sequence[str | None] | None, rows: Ints) -> list[str] | None:
    return None if values is None else [values[i] for i in rows]


def _report(
    run: _Run,
    head: LinearHead,
    strength: float,
    stages: tuple[str, ...],
    class_ids: list[int],
    class_names: list[str],
) -> QuickResult:
    scored = np.flatnonzero(~np.isnan(run.logits).any(1))
    temperature = fit_temperature(run.logits[scored], run.labels[scored])
    probabilities = np.full(run.logits.shape, np.nan)
    probabilities[scored] = softmax(run.logits[scored], temperature)
    y, p = run.labels[scored], probabilities[scored]
    unseen = cross_fitted_probabilities(run.logits[scored], y, run.plan.folds[scored])
    groups = _pick(run.groups, scored)
    return QuickResult(
        head=head,
        stages=stages,
        strength=strength,
        temperature=temperature,
        threshold=run.options.threshold,
        predict_views=run.options.predict_views,
        class_ids=class_ids,
        class_names=class_names,
        labels=run.labels,
        probabilities=probabilities,
        folds=run.plan.folds,
        scheme=run.plan.scheme,
        evaluation=evaluate(y, p.argmax(1), run.n_classes, groups, run.seed),
        calibration_error=expected_calibration_error(unseen, y),
        controls={},
        warnings=list(run.plan.warnings),
    )


def _controls(
    run: _Run, features: Floats, colour: Floats, layout: FeatureLayout, options: QuickOptions
) -> dict[str, float | None]:
    """Score simpler models on the same folds: always the commonest class, colour, last layer."""
    majority = np.full(run.logits.shape, np.nan)
    for fold in range(run.plan.n_folds):
        test = run.plan.folds == fold
        counts = np.bincount(run.labels[~test], minlength=run.n_classes)
        majority[test] = counts
    majority[np.isnan(run.logits).any(1)] = np.nan
    controls = {
        "majority": _balanced(majority, run.labels, run.n_classes),
        "colour": _linear_control(run, colour, 1.0),
    }
    if options.last_layer_control:
        _, start, stop = layout.stages[-1]
        means = features[:, 0, start : start + (stop - start) // 2]
        controls["last layer"] = _linear_control(run, means, 0.01)
    return controls


def _linear_control(run: _Run, x: Floats, strength: float) -> float | None:
    logits = np.full(run.logits.shape, np.nan)
    for fold in range(run.plan.n_folds):
        train, test = run.plan.folds != fold, run.plan.folds == fold
        y = run.labels[train]
        head = fit_head(x[train], y, class_weights(y, run.n_classes), strength, run.n_classes)
        logits[test] = head.logits(x[test])
        logits[np.ix_(test, np.setdiff1d(np.arange(run.n_classes), y))] = NEVER
    logits[np.isnan(run.logits).any(1)] = np.nan
    return _balanced(logits, run.labels, run.n_classes)


def _data_warnings(y: Ints, names: Sequence[str], present: Ints, result: QuickResult) -> list[str]:
    said = []
    left_out = [name for c, name in enumerate(names) if c not in present]
    if left_out:
        said.append(f"Without images, so not in the model: {', '.join(left_out)}.")
    if len(y) < 200:
        said.append(f"Only {len(y)} images: the score is a rough estimate, see its interval.")
    score, colour = result.evaluation.balanced_accuracy, result.controls.get("colour")
    chance = 1 / len(present)
    if score is not None and colour is not None:
        close = colour - chance >= 0.8 * (score - chance)
        if (close or colour >= 0.8) and colour > chance + 0.1:
            said.append(
                f"Colour alone reaches {colour:.2f} (the model {score:.2f}): the model may be"
                " reading the stain rather than the tissue."
            )
    if score is not None and result.evaluation.interval is not None:
        low = result.evaluation.interval[0]
        if low <= chance:
            said.append(f"The score is not clearly above chance ({chance:.2f}).")
    return said
