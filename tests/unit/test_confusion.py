"""Figures from a confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest

from cnsapp.domain.confusion import figures


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_have_images() -> None:
    counts = np.array([[90, 10, 0], [5, 5, 0], [0, 0, 0]])
    found = figures(counts)
    assert found.balanced_accuracy == pytest.approx((0.9 + 0.5) / 2)
    assert found.accuracy == pytest.approx(95 / 110)
    assert found.per_class[2]["recall"] is None
    assert found.per_class[0]["precision"] == pytest.approx(90 / 95)
    assert found.per_class[1]["f1"] == pytest.approx(2 * 5 / (10 + 15))


def test_the_interval_holds_the_value_and_is_the_same_each_time() -> None:
    counts = np.array([[45, 5], [10, 40]])
    low, high = figures(counts).balanced_accuracy_interval or (1, 0)
    assert low < 0.85 < high
    assert 0.1 < high - low < 0.2  # two binomial proportions of n = 50: about 0.14
    assert figures(counts).balanced_accuracy_interval == (low, high)


def test_groups_that_differ_widen_the_interval() -> None:
    good, bad = np.array([[10, 0], [0, 10]]), np.array([[2, 8], [8, 2]])
    by_group = np.stack([good, bad] * 3)
    whole = by_group.sum(axis=0)
    by_image = figures(whole).balanced_accuracy_interval or (0, 1)
    grouped = figures(whole, by_group).balanced_accuracy_interval or (0, 0)
    assert grouped[1] - grouped[0] > 1.5 * (by_image[1] - by_image[0])


def test_one_group_gives_no_interval_and_nothing_gives_no_error() -> None:
    counts = np.array([[5, 1], [0, 6]])
    assert figures(counts, counts[None]).balanced_accuracy_interval is None
    empty = figures(np.zeros((2, 2), dtype=np.int64))
    assert (empty.balanced_accuracy, empty.n) == (0.0, 0)
