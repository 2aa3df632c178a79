"""The quick model: a head on cached features, with an honest score, in seconds.

Every image is predicted by a head that saw neither it nor its group (`held_out`), and simpler
models on the same folds say what the score is worth (`controls`). The published head is then fitted
to all images.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.calibration import (
    cross_fitted_probabilities,
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from cnsapp.domain.metrics import Evaluation, evaluate
from cnsapp.domain.splits import FoldPlan, grouped_folds
from cnsapp.domain.together import known_groups
from cnsapp.errors import Cancelled, CnsError
from cnsapp.ml.controls import data_warnings, score_controls
from cnsapp.ml.features import FeatureLayout
from cnsapp.ml.head_kinds import Head, kind_of
from cnsapp.ml.held_out import Floats, HeldOut, Ints, QuickOptions, pick

__all__ = ["QuickOptions", "QuickProgress", "QuickResult", "train_quick"]


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
        The settings it goes with. `strength` is C of a linear or kernel head and the weight decay
        of an MLP. The temperature was fitted on the out-of-fold logits.
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

    head: Head
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

    @property
    def head_kind(self) -> str:
        """`linear`, `kernel` or `mlp`."""
        return kind_of(self.head)

    def answer(self, x: Floats) -> NDArray[np.float64]:
        """Return calibrated probabilities (N, K) of images that the model has never seen.

        Parameters
        ----------
        x
            (N, W, D) features of the views in `predict_views`, all stages of the layout that the
            model reads.
        """
        n, w, d = x.shape
        logits = self.head.logits(np.ascontiguousarray(x.reshape(-1, d), np.float32))
        return softmax(logits.reshape(n, w, -1).mean(1, dtype=np.float64), self.temperature)

    def metrics_json(self) -> dict[str, object]:
        """Return scores, controls and settings as plain data, for the model's database row."""
        return {
            "evaluation": self.evaluation.as_json(),
            "balanced_accuracy": self.evaluation.balanced_accuracy,
            "calibration_error": self.calibration_error,
            "controls": self.controls,
            "scheme": self.scheme,
            "n_folds": len(np.unique(self.folds[self.folds >= 0])) if self.evaluation.n else 0,
            "class_ids": self.class_ids,
            "class_names": self.class_names,
            "temperature": self.temperature,
            "temperature_fitted_on": "out-of-fold logits",
            "head": self.head_kind,
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
    plan: FoldPlan | None = None,
    answered: Floats | None = None,
    pictures: Sequence[Hashable | None] | None = None,
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
    plan
        The folds, where the caller has cut them; None cuts them here.
    answered
        (N, W, D) features of the views in `options.predict_views`, laid out as `features`; None
        answers by the clean view alone.
    pictures
        Key that near-duplicates share, or None: inner folds keep them together.

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
    plan = plan or grouped_folds(
        labels, groups, n_folds=options.n_folds, seed=seed, names=names,
        scheme=options.scheme, class_names=class_labels, pictures=pictures,
    )  # fmt: skip
    chosen = tuple(options.stages or stages)
    columns = layout.columns(chosen)
    x = _read(features, columns)
    run = HeldOut(
        x, labels, len(ids), groups, names, plan, options, seed, pictures=pictures,
        answered=None if answered is None else _read(answered, columns),
    )  # fmt: skip
    total = plan.n_folds + 2
    for fold in range(plan.n_folds):
        if cancelled is not None and cancelled():
            raise Cancelled
        run.hold_out(fold)
        if progress is not None:
            message = f"Fold {fold + 1} of {plan.n_folds}"
            progress(QuickProgress(fold + 1, total, message, run.score_so_far()))
    run.rescale()
    head = run.fit_final()
    if progress is not None:
        progress(QuickProgress(total - 1, total, "Scores and controls", run.score_so_far()))
    result = _report(run, head, chosen, ids, class_labels)
    controls = score_controls(run, features, colour, layout)
    result.controls.update(controls)
    result.warnings.extend(
        data_warnings(given, labels_in, present, result.evaluation, controls["colour"])
    )
    if progress is not None:
        progress(QuickProgress(total, total, "Done", result.evaluation.balanced_accuracy))
    return result


def _read(features: Floats, columns: Ints) -> Floats:
    """Return these columns of (N, V, D); no copy where the caller brought these alone."""
    read = features if len(columns) == features.shape[2] else features[:, :, columns]
    return np.ascontiguousarray(read, np.float32)


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


def _report(
    run: HeldOut,
    head: Head,
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
    groups = known_groups(pick(run.groups, scored))
    order = np.argsort(-p, axis=1, kind="stable")
    return QuickResult(
        head=head,
        stages=stages,
        strength=run.final().setting,
        temperature=temperature,
        threshold=run.options.threshold,
        predict_views=run.options.predict_views,
        class_ids=class_ids,
        class_names=class_names,
        labels=run.labels,
        probabilities=probabilities,
        folds=run.plan.folds,
        scheme=run.plan.scheme,
        evaluation=evaluate(
            y,
            order[:, 0],
            run.n_classes,
            groups,
            run.seed,
            second=order[:, 1] if run.n_classes > 2 else None,
        ),
        calibration_error=expected_calibration_error(unseen, y),
        controls={},
        warnings=list(run.plan.warnings),
    )
