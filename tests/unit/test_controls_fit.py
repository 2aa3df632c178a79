"""Controls as scikit-learn has them on the same folds; shuffled labels find a leak, only that."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_sample_weight

from cnsapp.domain.splits import grouped_folds
from cnsapp.ml import controls_fit
from cnsapp.ml.controls_fit import NOT_SCORED, Task, kernel_svm, logistic, majority
from cnsapp.ml.controls_quick import Shuffled, quick_answers, shuffle_labels, shuffled_labels
from cnsapp.ml.controls_run import Inputs, against, control_warnings, run_control
from cnsapp.ml.heads import fit_head
from cnsapp.ml.held_out import QuickOptions

LINEAR = QuickOptions(head="linear")


def nothing() -> None:
    """Never stop."""


def a_task(
    n: int = 150, k: int = 3, *, n_groups: int = 30, spread: float = 1.6, seed: int = 0,
    scheme: str | None = None,
) -> tuple[Task, controls_fit.Floats]:  # fmt: skip
    """Return blobs of `k` classes in groups, each of which has a direction of its own."""
    generator = np.random.default_rng(seed)
    group = np.arange(n) % n_groups
    labels = generator.permutation(np.arange(n_groups) % k)[group]
    x = generator.normal(size=(k, 8))[labels] * 2 + generator.normal(size=(n, 8)) * spread
    names, groups = [f"tile_{i}" for i in range(n)], [f"g{g}" for g in group]
    plan = grouped_folds(labels, groups, names=names, scheme=scheme, seed=seed)
    return Task(labels, k, plan.folds, groups, names, plan.scheme, seed), x.astype(np.float32)


def test_majority_says_the_commonest_class_of_each_training_part() -> None:
    labels = np.array([0] * 5 + [1] * 3 + [1] * 2 + [0] * 1)
    folds = np.array([0] * 8 + [1] * 3)
    task = Task(labels, 2, folds, None, None, "random")
    assert majority(task).predicted.tolist() == [1] * 8 + [0] * 3


def test_logistic_regression_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls_fit, "STRENGTHS", (0.1,))
    task, x = a_task()
    found = logistic(task, x, "blobs", nothing).predicted
    expected = np.full(len(found), NOT_SCORED)
    for train, test in task.parts():
        scale = StandardScaler().fit(x[train])
        weight = compute_sample_weight("balanced", task.labels[train])
        machine = LogisticRegression(C=0.1, max_iter=1000, tol=1e-8)
        machine.fit(scale.transform(x[train]), task.labels[train], weight)
        expected[test] = machine.predict(scale.transform(x[test]))
    assert (found == expected).mean() >= 0.99  # a point on the border may go either way


def test_the_kernel_machine_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls_fit, "COSTS", (10.0,))
    monkeypatch.setattr(controls_fit, "WIDTHS", (1.0,))
    task, x = a_task()
    found = kernel_svm(task, x, "blobs", nothing)
    expected = np.full(len(found.predicted), NOT_SCORED)
    for train, test in task.parts():
        scale = StandardScaler().fit(x[train])
        machine = SVC(C=10, gamma=1 / 8, class_weight="balanced")
        machine.fit(scale.transform(x[train]), task.labels[train])
        expected[test] = machine.predict(scale.transform(x[test]))
    assert (found.predicted == expected).mean() >= 0.99
    assert found.settings == [{"C": 10.0, "gamma": 0.125}] * 5


def test_settings_are_chosen_without_the_held_out_images() -> None:
    task, x = a_task()
    changed = task.labels.copy()
    train, test = next(iter(task.parts()))
    changed[test] = (changed[test] + 1) % 3  # other labels where nobody may look
    other = Task(changed, 3, task.folds, task.groups, task.names, task.scheme)
    for way in (logistic, kernel_svm):
        one, two = way(task, x, "", nothing), way(other, x, "", nothing)
        assert one.settings[0] == two.settings[0]
        assert (one.predicted[test] == two.predicted[test]).all()
    assert len(train) + len(test) == len(x)


def test_images_that_are_only_learnt_from_are_never_scored() -> None:
    task, x = a_task()
    folds = np.where(task.folds == 2, 2, NOT_SCORED)
    held = Task(task.labels, 3, folds, task.groups, task.names, task.scheme)
    for found in (majority(held), logistic(held, x, "", nothing), kernel_svm(held, x, "", nothing)):
        assert ((found.predicted != NOT_SCORED) == (folds == 2)).all()
    row = run_control("colour_only", held, Inputs(colour=x), found.predicted, nothing)
    assert row["n"] == (folds == 2).sum() and row["difference"] == 0


def test_of_very_many_images_rare_classes_are_kept_whole() -> None:
    labels = np.repeat([0, 1, 2], [500, 40, 10])
    task = Task(labels, 3, np.zeros(550, np.int64), None, None, "random")
    some = task.some(np.arange(550), 120)
    assert len(some) == 120 == len(set(some.tolist()))
    assert np.bincount(labels[some]).tolist() == [70, 40, 10]
    assert task.some(np.arange(550), 120).tolist() == some.tolist()


def test_shuffled_labels_keep_groups_whole_and_say_nothing_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], 20)
    groups = [f"g{i // 5}" for i in range(60)]
    found = shuffle_labels(labels, groups, 3, np.random.default_rng(0))
    assert all(len(set(found[i : i + 5])) == 1 for i in range(0, 60, 5))
    assert (found != labels).any()
    dealt = shuffle_labels(labels, None, 3, np.random.default_rng(0))
    assert np.bincount(dealt).tolist() == [20, 20, 20] and (dealt != labels).any()


def test_shuffled_labels_are_at_chance_where_groups_are_kept_apart() -> None:
    task, x = a_task(spread=0.5)
    assert (quick_answers(task, task.labels, x[:, None], LINEAR, nothing) == task.labels).all()
    found = shuffled_labels(task, x[:, None], LINEAR, nothing, 6)
    assert found.interval is not None and found.balanced_accuracy is not None
    assert found.chance == pytest.approx(1 / 3) and not found.leaks
    assert found.interval[0] <= found.chance
    assert found.balanced_accuracy < 0.6 and len(found.by_shuffle) == 6


def test_shuffled_labels_are_above_chance_where_groups_lie_on_both_sides() -> None:
    generator = np.random.default_rng(5)
    looks = generator.normal(size=(30, 40)) * 3  # every patient looks like nobody else
    split, _ = a_task(scheme="random")
    group = np.array([int(str(g)[1:]) for g in split.groups or []])
    x = (looks[group] + generator.normal(size=(150, 40))).astype(np.float32)[:, None]
    found = shuffled_labels(split, x, LINEAR, nothing, 4)
    assert found.leaks and found.balanced_accuracy is not None and found.balanced_accuracy > 0.8
    assert found.straddling == 30
    together, _ = a_task()
    assert not shuffled_labels(together, x, LINEAR, nothing, 4).leaks


def test_a_few_lucky_shuffles_are_no_leak() -> None:
    lucky = [0.1, 0.5, 0.3, 0.45, 0.2, 0.4, 0.35, 0.42]
    assert not Shuffled(0.34, (0.26, 0.41), 200, 0.25, lucky).leaks
    assert Shuffled(0.76, (0.7, 0.8), 200, 0.25, [0.72, 0.8, 0.75, 0.77]).leaks
    assert not Shuffled(None, None, 0, 0.25, []).leaks


def test_the_difference_to_the_model_is_paired_and_by_group() -> None:
    task, _ = a_task()
    right = task.labels
    wrong = np.where(np.arange(150) % 10 == 0, (task.labels + 1) % 3, task.labels)
    row = against(task, right, wrong)
    assert row["difference"] == pytest.approx(0.1, abs=0.03)
    low, high = row["difference_interval"]
    assert 0 <= low < 0.1 < high
    assert against(task, right, right)["difference"] == 0


def test_warnings_say_what_the_controls_mean() -> None:
    better = {"difference": 0.3, "difference_interval": [0.2, 0.4]}
    alike = {"difference": 0.01, "difference_interval": [-0.05, 0.07]}
    worse = {"difference": -0.1, "difference_interval": [-0.2, -0.02]}
    rows = {"majority": {"balanced_accuracy": 0.25} | better}
    colour = {"balanced_accuracy": 0.4} | better
    assert control_warnings(0.7, rows | {"colour_only": colour}) == []
    (said,) = control_warnings(0.45, rows | {"colour_only": {"balanced_accuracy": 0.44} | alike})
    assert "Colour alone reaches 0.44 (the model 0.45)" in said and "stain" in said
    (said,) = control_warnings(0.8, rows | {"handmade_svm": {"balanced_accuracy": 0.9} | worse})
    assert "buys nothing here" in said
    (said,) = control_warnings(0.8, rows | {"handmade_svm": {"balanced_accuracy": 0.79} | alike})
    assert "is not shown" in said
    leak = {"balanced_accuracy": 0.6, "chance": 0.25, "leaks": True, "straddling_groups": 4}
    (said,) = control_warnings(0.9, {"shuffled_labels": leak})
    assert "0.60 is reached where chance is 0.25" in said and "Split by group" in said
    (said,) = control_warnings(0.9, {"shuffled_labels": leak | {"straddling_groups": 0}})
    assert "near-duplicates" in said
    assert control_warnings(None, {"colour_only": colour}) == []


def test_a_head_of_few_images_with_many_columns_is_fitted() -> None:
    generator = np.random.default_rng(0)  # in 32 bits the eigenvalues of 1280 columns did not come
    y = np.arange(21) % 3
    x = generator.normal(size=(21, 1280)).astype(np.float32) + y[:, None]
    head = fit_head(x, y, np.ones(21, np.float32), 0.1, 3)
    z = StandardScaler().fit_transform(x)
    machine = LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(z, y)
    ours, theirs = head.logits(x), machine.decision_function(z)
    ours, theirs = ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True)
    np.testing.assert_allclose(ours, theirs, atol=0.05)
    constant = fit_head(np.ones((6, 9), np.float32), y[:6], np.ones(6, np.float32), 0.1, 3)
    assert np.isfinite(constant.logits(np.ones((2, 9), np.float32))).all()
