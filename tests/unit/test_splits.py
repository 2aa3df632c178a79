"""Folds keep together what belongs together, and say what they could not do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnsapp.domain.splits import BY_BLOCK, SAME_PICTURE, grouped_folds, natural_key
from cnsapp.errors import InvalidInputError


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c", "d", "e", None])), min_size=1
    ),
    st.integers(2, 6),
    st.integers(0, 5),
)
def test_no_group_is_ever_torn_apart(
    images: list[tuple[int, str | None]], n_folds: int, seed: int
) -> None:
    labels = np.array([label for label, _ in images])
    groups = [group for _, group in images]
    plan = grouped_folds(labels, groups, n_folds=n_folds, seed=seed)
    for group in {g for g in groups if g}:
        assert len({int(f) for f, g in zip(plan.folds, groups, strict=True) if g == group}) == 1
    assert plan.n_folds <= n_folds
    assert plan.n_folds == 0 or set(plan.folds) <= set(range(plan.n_folds))


def test_every_fold_gets_its_share_of_every_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    plan = grouped_folds(labels, n_folds=5, seed=1)
    table = np.array([np.bincount(labels[plan.folds == f], minlength=3) for f in range(5)])
    assert plan.scheme == "random"
    assert table.tolist() == [[20, 10, 2]] * 5


def test_classes_are_balanced_as_well_as_groups_of_many_sizes_allow() -> None:
    rng = np.random.default_rng(0)
    groups = [f"p{g}" for g in rng.integers(0, 40, 400)]
    labels = rng.integers(0, 4, 400)
    plan = grouped_folds(labels, groups, n_folds=5)
    for c in range(4):
        share = np.bincount(plan.folds[labels == c], minlength=5) / (labels == c).sum()
        assert share.min() > 0.1 and share.max() < 0.3


def test_without_groups_neighbouring_file_names_stay_together() -> None:
    names = [f"tile_{i}.png" for i in range(100)]
    labels = np.repeat([0, 1], 50)
    plan = grouped_folds(labels, names=names, n_folds=5)
    assert plan.scheme == "by file-name blocks"
    for c in range(2):
        folds = plan.folds[labels == c]
        assert (np.diff(folds) != 0).sum() == 4  # five runs of ten: four changes
        assert np.bincount(folds).tolist() == [10] * 5
    assert any("No image has a group" in warning for warning in plan.warnings)


def test_tile_9_comes_before_tile_10() -> None:
    assert sorted(["tile_10", "tile_9", "Tile_1"], key=natural_key) == [
        "Tile_1", "tile_9", "tile_10",
    ]  # fmt: skip


def test_a_class_of_one_group_is_named() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    plan = grouped_folds(labels, ["a", "a", "a", "b", "c", "d"], class_names=["skin", "lung"])
    assert any(w.startswith("All 3 images of skin come from one group") for w in plan.warnings)
    assert plan.n_folds == 3


def test_a_class_of_one_image_is_named_and_does_not_stop_the_rest() -> None:
    plan = grouped_folds(np.array([0] * 10 + [1]), class_names=["liver", "spleen"])
    assert plan.n_folds == 5
    assert "spleen has only 1 image: it can not be evaluated." in plan.warnings


def test_two_patients_allow_two_folds() -> None:
    plan = grouped_folds(np.array([0, 1, 0, 1]), ["a", "a", "b", "b"])
    assert plan.n_folds == 2
    assert "Only 2 folds instead of 5: there are too few groups." in plan.warnings


def test_one_patient_allows_no_score() -> None:
    plan = grouped_folds(np.array([0, 1, 0, 1]), ["a"] * 4)
    assert plan.n_folds == 0
    assert any("no score can be computed" in warning for warning in plan.warnings)


def test_the_same_seed_gives_the_same_folds_and_another_seed_others() -> None:
    labels = np.repeat([0, 1], 30)
    first = grouped_folds(labels, seed=3).folds
    assert (first == grouped_folds(labels, seed=3).folds).all()
    assert (first != grouped_folds(labels, seed=4).folds).any()


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="2 groups for 3 labels"):
        grouped_folds(np.zeros(3, int), ["a", "b"])
    with pytest.raises(ValueError, match="n_folds is 1"):
        grouped_folds(np.zeros(3, int), n_folds=1)
    with pytest.raises(ValueError, match="needs names"):
        grouped_folds(np.zeros(3, int), scheme="by file-name blocks")


@pytest.mark.parametrize("groups", [None, [None] * 6, [""] * 6])
def test_by_group_without_any_group_is_refused_rather_than_split_at_random(
    groups: list[str | None] | None,
) -> None:
    with pytest.raises(InvalidInputError, match="no labelled image has a group"):
        grouped_folds(np.arange(6) % 2, groups, scheme="by group")


def test_two_halves_of_one_picture_stay_together_where_there_are_no_groups() -> None:
    labels = np.array([0, 1] * 20)
    names = [f"tile_{k:02}.png" for k in range(40)]
    groups: list[str | None] = [None] * 40
    groups[0] = groups[38] = f"{SAME_PICTURE}1"  # the first and the last block of class 0
    plan = grouped_folds(labels, groups, names=names)
    assert plan.scheme == BY_BLOCK
    assert plan.folds[0] == plan.folds[38]
    apart = grouped_folds(labels, None, names=names)
    assert apart.scheme == BY_BLOCK and apart.folds[0] != apart.folds[38]
