"""Which head a quick model gets: kernel and hidden layer against scikit-learn, and the choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from cnsapp.domain.splits import FoldPlan, grouped_folds
from cnsapp.ml.features import FeatureLayout
from cnsapp.ml.head_families import KernelFamily, LinearFamily, MlpFamily
from cnsapp.ml.head_kinds import KernelHead, MlpHead, rbf
from cnsapp.ml.heads import class_weights
from cnsapp.ml.held_out import HeldOut, QuickOptions, choose, standard_error
from cnsapp.ml.quick import QuickResult, train_quick

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
NO_SHIFT, NO_SCALE = np.zeros(12, np.float32), np.ones(12, np.float32)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def rings(n: int = 160, seed: int = 0) -> tuple[Floats, Ints]:
    """Return (n, 12) rows of two classes, one around the other: no straight line parts them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = 1.0 + 2.0 * y + rng.normal(0, 0.2, n)
    plane = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    mixing = np.random.default_rng(99).normal(0, 1, (2, 12))  # every column tells of both
    return (plane @ mixing + rng.normal(0, 0.1, (n, 12))).astype(np.float32), y


def lines(n: int = 160, seed: int = 0) -> tuple[Floats, Ints]:
    """Return rows of two classes that a plane parts, but for some noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(0, 1, (n, 12))
    x[:, 0] += 3.0 * y
    return x.astype(np.float32), y


def train(x: Floats, y: Ints, head: str = "auto", **kwargs: object) -> QuickResult:
    given: dict[str, object] = {"groups": None, "names": None, **kwargs}
    return train_quick(
        x[:, None], np.zeros((len(y), 6), np.float32), y, class_ids=[1, 2],
        options=QuickOptions(head=head), layout=FeatureLayout((("only", 0, 12),)),
        stages=("only",), **given,  # type: ignore[arg-type]
    )  # fmt: skip


def score(result: QuickResult) -> float:
    assert result.evaluation.balanced_accuracy is not None
    return result.evaluation.balanced_accuracy


def test_the_kernel_is_that_of_scikit_learn() -> None:
    x, _ = rings()
    assert rbf(x, x[:50], 0.3) == pytest.approx(rbf_kernel(x, x[:50], 0.3), abs=1e-5)


def test_a_kernel_head_is_logistic_regression_on_nystroem_features() -> None:
    x, y = rings()
    family = KernelFamily((10.0,), width=0.3)
    reading = family.reading(x, y, 0)
    weight = class_weights(y, 2)
    fitted = family.fit(reading(x), y, weight[None], np.full(1, 10, np.float32), 2, 0)
    head = family.head(NO_SHIFT, NO_SCALE, reading, fitted)
    assert isinstance(head, KernelHead)
    peer = Nystroem(gamma=0.3 / 12, n_components=len(x), random_state=0).fit(x)
    features = peer.transform(x)  # every row is a landmark: both are the exact kernel
    classifier = LogisticRegression(C=10, max_iter=5000, tol=1e-8).fit(features, y, weight)
    odds = classifier.decision_function(features)
    ours = np.diff(head.logits(x), axis=1)[:, 0]
    assert np.corrcoef(ours, odds)[0, 1] > 0.999
    assert ((ours > 0) == (odds > 0)).mean() > 0.98


def test_landmarks_are_of_every_class_where_one_is_rare() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (600, 12)).astype(np.float32)
    y = (np.arange(600) >= 590).astype(np.int64)
    x[590:] += 100
    reading = KernelFamily().reading(x, y, 0)
    marks = reading.landmarks  # type: ignore[attr-defined]
    assert len(marks) == 256 and (marks[:, 0] > 50).sum() == 10


@pytest.mark.parametrize("head", ["kernel", "mlp"])
def test_rings_are_learnt_as_well_as_by_scikit_learn_on_the_same_folds(head: str) -> None:
    x, y = rings()
    result = train(x, y, head)
    peers = {"kernel": SVC(C=10), "mlp": MLPClassifier((32,), max_iter=3000, random_state=0)}
    said = np.empty(len(y), np.int64)
    for fold in np.unique(result.folds):
        out = result.folds == fold
        said[out] = peers[head].fit(x[~out], y[~out]).predict(x[out])
    assert score(result) >= (said == y).mean() - 0.05
    assert score(train(x, y, "linear")) < 0.65
    assert result.head_kind == head and isinstance(result.head, (KernelHead, MlpHead))


def test_the_simplest_head_is_taken_where_it_suffices() -> None:
    assert train(*lines()).head_kind == "linear"


def test_another_head_is_taken_where_only_it_can_and_groups_say_so() -> None:
    x, y = rings()
    assert train(x, y).head_kind == "linear"  # nothing tells slides from tissue
    result = train(x, y, groups=[f"patient {i // 2}" for i in range(len(y))])
    assert result.head_kind in ("kernel", "mlp") and score(result) > 0.9
    assert result.metrics_json()["head"] == result.head_kind


def test_with_few_images_the_head_is_linear() -> None:
    assert train(*rings(48)).head_kind == "linear"


def test_the_published_head_says_what_it_was_scored_for() -> None:
    x, y = rings()
    fresh, truth = rings(100, seed=9)
    for head in ("kernel", "mlp"):
        result = train(x, y, head)
        p = result.answer(fresh[:, None])
        assert p.sum(1) == pytest.approx(1)
        assert (p.argmax(1) == truth).mean() > 0.9


def alone(y: Ints) -> list[str]:
    return [f"patient {i}" for i in range(len(y))]


def held_out(x: Floats, y: Ints, plan: FoldPlan, **kwargs: object) -> HeldOut:
    run = HeldOut(x, y, 2, alone(y), None, plan, QuickOptions(), 0, **kwargs)  # type: ignore[arg-type]
    for fold in range(plan.n_folds):
        run.hold_out(fold)
    return run


def test_labels_of_a_fold_change_nothing_of_what_is_said_of_it() -> None:
    x, y = rings(120)
    plan = grouped_folds(y, n_folds=3, seed=0)
    before = held_out(x[:, None], y, plan)
    first = plan.folds == 0
    other = y.copy()
    other[first] = 1 - other[first]
    run = HeldOut(x[:, None], other, 2, alone(y), None, plan, QuickOptions(), 0)
    run.hold_out(0)
    assert (run.chosen[first] == before.chosen[first]).all()
    assert run.logits[first] == pytest.approx(before.logits[first], abs=1e-4)


def test_one_temperature_fits_what_different_heads_said() -> None:
    x, y = rings(120)
    run = held_out(x[:, None], y, grouped_folds(y, n_folds=3, seed=0))
    final = run.final_place()
    run.chosen[:40] = 0  # as if one fold had chosen the most strongly regularised linear head
    run.logits[:40] = run.all_logits[0, :40]
    said, others = run.logits.argmax(1), run.logits[40:].copy()
    run.rescale()
    assert (run.logits.argmax(1) == said).all()
    factor = run.logits[:40] / run.all_logits[0, :40]
    assert factor == pytest.approx(factor[0, 0], rel=1e-6)
    assert factor[0, 0] == pytest.approx(run._temperature(final) / run._temperature(0))
    if final == run.chosen[-1]:
        assert (run.logits[40:] == others).all()


def test_views_of_an_image_are_averaged() -> None:
    x, y = lines(120)
    plan = grouped_folds(y, n_folds=3, seed=0)
    shifted = x + np.random.default_rng(1).normal(0, 1, x.shape).astype(np.float32)
    both = np.stack([x, shifted], 1)
    run = held_out(x[:, None], y, plan, answered=both)
    one, two = (held_out(x[:, None], y, plan, answered=both[:, v : v + 1]) for v in (0, 1))
    linear = slice(0, 3)  # maps that are linear to the end: the average of what both views get
    mean = (one.all_logits[linear] + two.all_logits[linear]) / 2
    assert run.all_logits[linear] == pytest.approx(mean, abs=1e-3)
    with pytest.raises(AssertionError):
        assert run.all_logits == pytest.approx(one.all_logits, abs=1e-3)


def logits_of(said: Ints, k: int = 2) -> NDArray[np.float64]:
    return np.eye(k)[said]


def test_the_standard_error_of_recalls_that_are_averaged() -> None:
    y = np.array([0] * 10 + [1] * 40)
    hit = np.ones(50)
    hit[:4] = hit[10:20] = 0
    by_hand = np.sqrt(0.6 * 0.4 / 10 + 0.75 * 0.25 / 40) / 2
    assert standard_error(hit, y) == pytest.approx(by_hand)
    assert standard_error(hit, y, [f"patient {i}" for i in range(50)]) == pytest.approx(by_hand)
    assert standard_error(hit, y, [None] * 50) == pytest.approx(by_hand)


def test_images_of_one_patient_that_fail_together_make_the_score_less_sure() -> None:
    y = np.repeat([0, 1], 50)
    hit = np.ones(100)
    hit[:10] = 0
    together = [f"patient {i // 10}" for i in range(100)]
    assert standard_error(hit, y, together) > 2 * standard_error(hit, y)


def test_the_first_within_one_standard_error_of_the_best_wins() -> None:
    y = np.repeat([0, 1], 50)
    said = np.tile(y, (3, 1))
    said[0, :30] = 1  # 0.70
    said[1, 1:12] = 1  # 0.89: better on one image than the best and worse on two
    said[2, :10] = 1  # 0.90
    held = np.stack([logits_of(row) for row in said])
    assert choose(held, y, 2) == 1
    said[1, 50:60] = 0  # 0.79, and another ten
    assert choose(np.stack([logits_of(row) for row in said]), y, 2) == 2
    patients = [f"patient {i // 10}" for i in range(100)]
    said[1:] = y
    said[1, 10:20] = 1  # wrong on one patient alone: ten images, but one observation
    said[2, :2] = 1
    held = np.stack([logits_of(row) for row in said[1:]])
    assert choose(held, y, 2) == 1
    assert choose(held, y, 2, patients) == 0
    assert choose(np.full((3, 4, 2), np.nan), y[:4], 2, otherwise=1) == 1


def test_many_networks_trained_at_once_are_those_trained_alone() -> None:
    x, y = rings(80)
    family = MlpFamily((0.1, 5.0))
    rows = np.stack([np.arange(80) < 60, np.arange(80) >= 20]).astype(np.float32)
    decays = np.array([0.1, 5.0], np.float32)
    both = family.fit(x, y, rows, decays, 2, 3)
    for p in range(2):
        alone = family.fit(x, y, rows[p : p + 1], decays[p : p + 1], 2, 3)
        assert alone.logits(x)[0] == pytest.approx(both.logits(x)[p], abs=1e-2)
    again = family.fit(x, y, rows, decays, 2, 3)
    assert again.logits(x) == pytest.approx(both.logits(x), abs=1e-5)


def test_a_linear_head_is_that_of_scikit_learn() -> None:
    x, y = lines()
    result = train(x, y, "linear")
    # with two classes scikit-learn penalises one vector, and we two that mirror each other
    peer = LogisticRegression(C=2 * result.strength, max_iter=5000, tol=1e-8)
    z = (x - x.mean(0)) / x.std(0)
    expected = peer.fit(z, y, class_weights(y, 2)).predict_proba(z)[:, 1]
    ours = replace(result, temperature=1.0).answer(x[:, None])[:, 1]
    assert ours == pytest.approx(expected, abs=0.01)
    assert LinearFamily((0.1,)).settings == (0.1,)
