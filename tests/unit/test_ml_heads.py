"""Heads, features and the quick model on small generated numbers, against scikit-learn."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cnsapp.domain.calibration import cross_fitted_probabilities, expected_calibration_error
from cnsapp.errors import Cancelled, CnsError
from cnsapp.ml.features import FeatureLayout, FeatureStore
from cnsapp.ml.heads import class_weights, fit_head, fit_heads, standardiser
from cnsapp.ml.quick import QuickOptions, QuickProgress, QuickResult, train_quick
from cnsapp.ml.streams import batches, prefetch

LAYOUT = FeatureLayout((("early", 0, 8), ("late", 8, 20)))


def blobs(
    n: int = 120, classes: int = 3, spread: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features (n, 2 views, 20) of classes around different centres."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = rng.normal(0, 2, (classes, 20))
    x = centres[y][:, None] + rng.normal(0, spread, (n, 2, 20))
    return x.astype(np.float32), y


def train(x: NDArray[np.float32], y: NDArray[np.int64], **kwargs: object) -> QuickResult:
    arguments: dict[str, object] = {
        "colour": np.random.default_rng(9).random((len(y), 6)).astype(np.float32),
        "groups": None, "names": None, "class_ids": list(range(10, 10 + int(y.max()) + 1)),
        "layout": LAYOUT, "stages": ("early", "late"),
    }  # fmt: skip
    return train_quick(x, y=y, **{**arguments, **kwargs})  # type: ignore[arg-type]


def test_many_heads_fitted_at_once_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (150, 12)).astype(np.float32)
    y = (x[:, :3] + rng.normal(0, 0.5, (150, 3))).argmax(1)
    weights = np.stack([np.ones(150), np.arange(150) < 100, rng.random(150)]).astype(np.float32)
    strengths = np.array([0.01, 0.1, 1.0], np.float32)
    found, bias = fit_heads(x, y, weights, strengths, 3)
    for p in range(3):
        peer = LogisticRegression(C=float(strengths[p]), max_iter=5000, tol=1e-8)
        peer.fit(x, y, sample_weight=weights[p])
        expected = peer.predict_proba(x)
        logits = x @ found[p].T + bias[p]
        ours = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert np.abs(ours - expected).max() < 0.01


def test_class_weights_let_rare_classes_count_alike() -> None:
    y = np.array([0] * 9 + [1])
    weight = class_weights(y, 3)
    assert weight[y == 0].sum() == pytest.approx(weight[y == 1].sum())
    assert weight.mean() == pytest.approx(1)


def test_a_constant_column_does_not_divide_by_zero() -> None:
    x = np.ones((10, 2), np.float32)
    x[:, 1] = np.arange(10)
    _, std = standardiser(x)
    assert std[0] == 1 and std[1] == pytest.approx(np.arange(10).std())
    head = fit_head(x, np.arange(10) % 2, np.ones(10, np.float32), 0.1, 2)
    assert np.isfinite(head.logits(x)).all()


def test_easy_classes_are_learnt_and_hopeless_ones_are_not() -> None:
    x, y = blobs()
    easy = train(x, y)
    assert easy.evaluation.balanced_accuracy == pytest.approx(1, abs=0.02)
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 1, x.shape).astype(np.float32)
    hopeless = train(noise, y)
    assert hopeless.evaluation.balanced_accuracy == pytest.approx(1 / 3, abs=0.15)
    assert any("not clearly above chance" in w for w in hopeless.warnings)


def test_held_out_answers_never_saw_their_own_group() -> None:
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(30), 8)  # each patient has a look of its own, and a random class
    y = rng.integers(0, 2, 30)[patients]
    look = rng.normal(0, 3, (30, 20))[patients]
    x = (look[:, None] + rng.normal(0, 0.1, (240, 1, 20))).astype(np.float32)
    groups = [f"p{p}" for p in patients]
    free = QuickOptions(strengths=(1.0,))  # free enough to learn patients by heart
    honest = train(x, y, options=free, groups=groups)
    leaky = train(x, y, options=replace(free, scheme="random"), groups=groups)
    assert leaky.evaluation.balanced_accuracy is not None
    assert honest.evaluation.balanced_accuracy is not None
    assert leaky.evaluation.balanced_accuracy > 0.9
    assert honest.evaluation.balanced_accuracy < 0.75
    assert honest.scheme == "by group" and honest.evaluation.interval_by == "group"


def test_a_fold_that_holds_the_only_groups_out_leaves_the_rest_to_train_on() -> None:
    x, y = blobs(60, classes=2)
    groups = ["a", "a"] + [None] * 58  # without "a" no training image has a group
    assert train(x, y, groups=groups, names=[f"{i}" for i in range(60)]).scheme == "by group"


def test_probabilities_sum_to_one_and_the_same_seed_gives_the_same_model() -> None:
    x, y = blobs(spread=4)
    first, second = train(x, y, seed=3), train(x, y, seed=3)
    assert first.probabilities.sum(1) == pytest.approx(1)
    assert np.abs(first.probabilities - second.probabilities).max() < 1e-6
    assert np.abs(first.head.weight - second.head.weight).max() < 1e-6


def test_the_calibration_error_is_measured_on_answers_the_temperature_did_not_see() -> None:
    x, y = blobs(spread=6)
    result = train(x, y)
    logits = np.log(result.probabilities) * result.temperature  # but for a constant in each row
    unseen = cross_fitted_probabilities(logits, y, result.folds)
    assert result.calibration_error == pytest.approx(expected_calibration_error(unseen, y))
    assert result.calibration_error != pytest.approx(
        expected_calibration_error(result.probabilities, y)
    )


def test_a_class_with_one_image_is_in_the_model_but_not_in_the_score() -> None:
    x, y = blobs(61, classes=2)
    y = y.copy()
    y[-1] = 2
    result = train(x, y, class_names=["colon", "liver", "spleen"])
    assert np.isnan(result.probabilities[-1]).all()
    assert result.evaluation.n == 60 and result.evaluation.per_class[2].recall is None
    assert result.head.weight.shape[0] == 3
    assert any("spleen has only 1 image" in w for w in result.warnings)


def test_two_images_of_two_classes_make_a_model_without_a_score() -> None:
    x, y = blobs(2, classes=2)
    result = train(x, y)
    assert result.evaluation.balanced_accuracy is None
    assert np.isfinite(result.head.weight).all()


def test_one_class_is_refused_with_its_count() -> None:
    x, _ = blobs(8)
    with pytest.raises(CnsError, match=r"colon 8, liver 0.*at least two classes"):
        train(x, np.zeros(8, np.int64), class_ids=[1, 2], class_names=["colon", "liver"])


def test_classes_without_images_are_left_out_and_ids_kept() -> None:
    x, y = blobs(60, classes=2)
    result = train(x, y * 2, class_ids=[7, 8, 9], class_names=["a", "b", "c"])
    assert result.class_ids == [7, 9] and result.class_names == ["a", "c"]
    assert "Without images, so not in the model: b." in result.warnings


def test_a_model_that_reads_the_stain_is_found_out() -> None:
    x, y = blobs(300)
    colour = np.repeat(y[:, None] / 3, 6, 1).astype(np.float32)
    result = train(x, y, colour=colour)
    assert any("Colour alone reaches 1.00" in w for w in result.warnings)
    assert result.controls["majority"] == pytest.approx(1 / 3)
    assert result.controls["colour"] == 1


def test_progress_tells_the_score_fold_by_fold_and_cancel_stops() -> None:
    x, y = blobs()
    events: list[QuickProgress] = []
    train(x, y, progress=events.append)
    assert [e.done for e in events] == [1, 2, 3, 4, 5, 6, 7] and events[-1].total == 7
    assert all(e.balanced_accuracy is not None for e in events)
    with pytest.raises(Cancelled):
        train(x, y, cancelled=lambda: True)


def test_only_the_chosen_stages_are_read() -> None:
    x, y = blobs()
    result = train(x, y, options=QuickOptions(stages=("late",)))
    assert result.head.weight.shape == (3, 12)
    with pytest.raises(CnsError, match="no stage 'middle'"):
        train(x, y, options=QuickOptions(stages=("middle",)))


def test_stored_features_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, "spec", 26)
    rows = np.random.default_rng(0).normal(0, 3, (4, 26)).astype(np.float32)
    store.put(["a", "b", "c", "d"], "clean", rows)
    store.put(["c", "a"], "jitter1", rows[:2])
    assert store.missing(["x", "a", "y"]) == ["x", "y"]
    assert store.missing(["a", "b"], "jitter1") == ["b"]
    loaded = store.load(["c", "a", "c"], ["clean", "jitter1"])
    assert loaded.shape == (3, 2, 26)
    assert np.allclose(loaded[:, 0], rows[[2, 0, 2]], rtol=1e-3, atol=1e-3)
    assert np.allclose(loaded[:, 1], rows[[0, 1, 0]], rtol=1e-3, atol=1e-3)
    with pytest.raises(CnsError, match="Features of 1 of 2 images are missing"):
        store.load(["a", "b"], ["jitter1"])


def test_a_damaged_feature_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "spec.sqlite").write_bytes(b"not a database at all" * 100)
    store = FeatureStore(tmp_path, "spec", 3)
    assert store.missing(["a"]) == ["a"]
    assert (tmp_path / "spec.damaged").exists()


def test_features_put_before_a_crash_are_there_and_half_a_batch_is_not(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, "spec", 3)
    store.put(["a"], "clean", np.ones((1, 3), np.float32))
    connection = sqlite3.connect(store.path)
    connection.execute("INSERT INTO feature VALUES ('clean', 'b', x'00')")  # never committed
    connection.close()
    assert FeatureStore(tmp_path, "spec", 3).missing(["a", "b"]) == ["b"]


def test_prefetch_keeps_order_and_passes_errors_on() -> None:
    assert list(prefetch(iter(range(50)), ahead=3)) == list(range(50))
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]

    def broken() -> object:
        yield 1
        raise RuntimeError("disk gone")

    seen = []
    with pytest.raises(RuntimeError, match="disk gone"):
        for item in prefetch(broken()):  # type: ignore[arg-type]
            seen.append(item)
    assert seen == [1]


def test_a_stage_is_columns_in_network_order() -> None:
    assert LAYOUT.columns(["late", "early"]).tolist() == list(range(20))
    network, colour = LAYOUT.split(np.zeros((2, 3, 26), np.float32))
    assert network.shape == (2, 3, 20) and colour.shape == (2, 6)


def test_the_report_of_a_model_names_no_file_and_no_patient() -> None:
    x, y = blobs(60, classes=3)
    names = [f"Jane-Doe-{i}.tif" for i in range(60)]
    groups = [f"Patient Roe {i // 4}" if i % 7 else None for i in range(60)]
    groups[0] = groups[3] = groups[6] = "Patient Roe, one class"
    said = json.dumps(train(x, y, names=names, groups=groups).metrics_json())
    assert "class_ids" in said
    assert "Jane" not in said
    assert "Roe" not in said
