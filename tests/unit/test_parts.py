"""Parts of a split: nothing that belongs together is torn, every class is where it can be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnsapp.domain.parts import PARTS, TEST, TRAIN, VALIDATION, check_shares, divide
from cnsapp.domain.readiness import PartCount, assess_parts
from cnsapp.domain.splits import BY_BLOCK, BY_COLUMN, BY_GROUP, RANDOM, grouped_folds
from cnsapp.domain.together import tied_groups
from cnsapp.errors import InvalidInputError

Images = list[tuple[int, str | None, int | None]]  # class (-1: none), group, picture
ROWS = st.lists(
    st.tuples(
        st.integers(-1, 3),
        st.sampled_from([*"abcdefgh", None]),
        st.one_of(st.none(), st.integers(1, 30)),
    ),
    min_size=2,
    max_size=60,
)


def taken_apart(images: Images) -> tuple[np.ndarray, list[str | None], list[int | None], list[str]]:
    labels, groups, pictures = zip(*images, strict=True)
    names = [f"f/{i}.png" for i in range(len(images))]
    return np.array(labels), list(groups), list(pictures), names


@given(ROWS, st.sampled_from([None, BY_BLOCK, RANDOM]), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_no_group_and_no_near_duplicate_straddles(
    images: Images, scheme: str | None, seed: int
) -> None:
    labels, groups, pictures, names = taken_apart(images)
    try:
        made = divide(labels, groups, names, scheme=scheme, pictures=pictures, seed=seed)
    except InvalidInputError as error:
        assert "kept together" in str(error) or "belong to one group" in str(error)
        return
    again = divide(labels, groups, names, scheme=scheme, pictures=pictures, seed=seed)
    assert made.parts.tolist() == again.parts.tolist()
    assert set(made.parts.tolist()) <= set(PARTS)
    if not any("near-duplicates were not kept" in line for line in made.warnings):
        for key in {p for p in pictures if p}:
            assert (
                len({part for part, p in zip(made.parts, pictures, strict=True) if p == key}) == 1
            )
    if made.scheme == BY_GROUP:
        for group in {g for g in groups if g}:
            assert (
                len({part for part, g in zip(made.parts, groups, strict=True) if g == group}) == 1
            )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=3, max_size=40),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_each_class_is_in_each_part_where_it_has_enough_groups(
    drawn: list[tuple[int, int]], seed: int
) -> None:
    """Every group of one class: then nothing stands in the way but the number of groups."""
    labels = np.repeat([c for c, _ in drawn], [n for _, n in drawn])
    groups = [f"g{k}" for k, (_, n) in enumerate(drawn) for _ in range(n)]
    made = divide(labels, groups, seed=seed)
    n_groups = Counter(c for c, _ in drawn)
    for c, n in n_groups.items():
        there = set(made.parts[labels == c].tolist())
        assert there >= {1: {TRAIN}, 2: {TRAIN, TEST}}.get(n, set(PARTS))


@given(st.integers(20, 200), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_shares_hold_to_the_image_where_nothing_is_tied(n: int, seed: int) -> None:
    labels = np.arange(n) % 3
    made = divide(labels, scheme=RANDOM, seed=seed, shares={TRAIN: 0.5, VALIDATION: 0.3, TEST: 0.2})
    for c in range(3):
        of_class = made.parts[labels == c]
        for part, share in ((TRAIN, 0.5), (VALIDATION, 0.3), (TEST, 0.2)):
            assert abs((of_class == part).sum() - share * len(of_class)) <= 1.5


@given(st.lists(st.integers(1, 12), min_size=12, max_size=60), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_shares_hold_within_what_the_size_of_groups_allows(sizes: list[int], seed: int) -> None:
    groups = [f"g{k}" for k, n in enumerate(sizes) for _ in range(n)]
    made = divide(np.zeros(len(groups), int), groups, seed=seed)
    for part, share in ((TRAIN, 0.6), (VALIDATION, 0.2), (TEST, 0.2)):
        assert abs((made.parts == part).sum() - share * len(groups)) <= 2.5 * max(sizes)


def test_images_without_a_label_are_divided_as_well() -> None:
    labels = np.array([0] * 30 + [1] * 30 + [-1] * 300)
    made = divide(labels, scheme=RANDOM)
    counts = Counter(made.parts[labels < 0].tolist())
    assert 150 <= counts[TRAIN] <= 210 and counts[TEST] >= 45 and counts[VALIDATION] >= 45


def test_pinned_images_and_their_groups_stay_where_they_are() -> None:
    groups = [f"p{i // 5}" for i in range(60)]
    labels = np.arange(60) % 2
    for seed in range(5):
        pinned: list[str | None] = [None] * 60
        pinned[7], pinned[33] = TEST, VALIDATION
        made = divide(labels, groups, seed=seed, pinned=pinned)
        assert set(made.parts[5:10].tolist()) == {TEST}
        assert set(made.parts[30:35].tolist()) == {VALIDATION}


def test_pins_that_contradict_each_other_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"a\.png is pinned to test and b\.png to train"):
        divide(
            np.array([0, 0, 1]), ["p", "p", "q"], ["a.png", "b.png", "c.png"],
            pinned=[TEST, TRAIN, None],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"train": 0.6, "test": 0.6}, r"add up to 1\.2, not to 1"),
        ({"train": 0.6, "holdout": 0.4}, "no part “holdout”"),
        ({"train": 1.0}, "nothing to score on"),
        ({"validation": 0.5, "test": 0.5}, "nothing to learn from"),
        ({"train": 1.4, "test": -0.4}, "each is a part of 1"),
        ({"train": float("nan"), "test": 0.2}, "each is a part of 1"),
    ],
)
def test_shares_that_cannot_be_are_said(shares: dict[str, float], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        check_shares(shares)


def test_one_group_only_cannot_be_divided() -> None:
    with pytest.raises(InvalidInputError, match=r"All 4 images belong to one group \(“p1”"):
        divide(np.array([0, 0, 1, 1]), ["p1"] * 4)


def test_no_image_at_all_is_said() -> None:
    with pytest.raises(InvalidInputError, match="no image to divide"):
        divide(np.zeros(0, int), [], [])


def test_look_alikes_everywhere_do_not_tie_all_patients_into_one() -> None:
    groups = [f"p{i // 10}" for i in range(100)]
    pictures: list[int | None] = [1 if i % 10 == 0 else None for i in range(100)]
    made = divide(np.arange(100) % 2, groups, pictures=pictures)
    assert Counter(made.parts.tolist()) == {TRAIN: 60, VALIDATION: 20, TEST: 20}
    assert any("near-duplicates were not kept on one side" in line for line in made.warnings)
    kept, loose = tied_groups(groups, pictures)
    assert kept == groups
    assert loose == [list(range(0, 100, 10))]


def test_blocks_of_names_keep_neighbours_together_whatever_their_labels() -> None:
    names = [f"slide/tile_{i}.png" for i in range(200)]
    made = divide(np.where(np.arange(200) % 7 == 0, 0, -1), None, names)
    assert made.scheme == BY_BLOCK
    assert (made.parts[1:] != made.parts[:-1]).sum() <= 10  # ten runs of neighbours
    assert any("No image has a group" in line for line in made.warnings)


@pytest.mark.parametrize(
    ("scheme", "groups", "sentence"),
    [
        (RANDOM, None, "scores are optimistic"),
        (RANDOM, ["p1", "p2"] * 20, "although groups are given"),
        (BY_BLOCK, ["p1", "p2"] * 20, "although groups are given"),
        (BY_BLOCK, None, "No image has a group"),
        (BY_GROUP, ["p1", "p2", "p3", None] * 10, "10 of 40 images have no group"),
    ],
)
def test_what_may_make_scores_optimistic_is_said_by_parts_and_folds_alike(
    scheme: str, groups: list[str | None] | None, sentence: str
) -> None:
    labels, names = np.arange(40) % 2, [f"{i}.png" for i in range(40)]
    made = divide(labels, groups, names, scheme=scheme)
    plan = grouped_folds(labels, groups, names=names, scheme=scheme)
    assert any(sentence in line for line in made.warnings)
    assert any(sentence in line for line in plan.warnings)


# --- folds by a column ---


def test_every_value_of_a_column_is_held_out_in_turn() -> None:
    column = [f"batch {i % 4}" for i in range(40)]
    groups = [f"p{i % 8}" for i in range(40)]  # p0 and p4 both lie in batch 0, and so on
    plan = grouped_folds(np.arange(40) % 2, groups, scheme=BY_COLUMN, column=column, n_folds=2)
    assert (plan.scheme, plan.n_folds) == (BY_COLUMN, 4)
    assert [len({c for c, f in zip(column, plan.folds, strict=True) if f == k}) for k in range(4)]
    for value in set(column):
        assert len({int(f) for f, c in zip(plan.folds, column, strict=True) if c == value}) == 1


def test_values_that_share_a_group_are_held_out_together() -> None:
    column = ["b1"] * 10 + ["b2"] * 10 + ["b3"] * 10
    groups: list[str | None] = [f"p{i}" for i in range(30)]
    groups[3] = groups[13] = "shared"
    plan = grouped_folds(np.arange(30) % 2, groups, scheme=BY_COLUMN, column=column)
    assert plan.n_folds == 2
    assert set(plan.folds[:20].tolist()) != set(plan.folds[20:].tolist())
    assert any("held out together, for example b1, b2" in line for line in plan.warnings)


def test_a_crossed_design_leaves_values_out_and_says_that_groups_are_torn() -> None:
    column = [f"stain {i % 2}" for i in range(20)]
    groups = [f"p{i // 4}" for i in range(20)]  # every patient was stained in both ways
    plan = grouped_folds(np.zeros(20, int), groups, scheme=BY_COLUMN, column=column)
    assert plan.n_folds == 2
    assert any("Groups run across the values" in line for line in plan.warnings)


def test_images_without_a_value_are_learnt_from_and_never_held_out() -> None:
    column: list[str | None] = ["a"] * 6 + ["b"] * 6 + [None] * 4
    groups = [f"p{i}" for i in range(16)]
    groups[12] = "p0"  # its group has a value: held out with it
    plan = grouped_folds(np.arange(16) % 2, groups, scheme=BY_COLUMN, column=column)
    assert plan.folds[12] == plan.folds[0]
    assert plan.folds[13:].tolist() == [-1, -1, -1]
    assert any("3 images have no value" in line for line in plan.warnings)


def test_more_than_twenty_values_make_twenty_folds_of_whole_values() -> None:
    column = [f"v{i // 3}" for i in range(90)]
    plan = grouped_folds(np.arange(90) % 2, scheme=BY_COLUMN, column=column)
    assert plan.n_folds == 20
    for value in set(column):
        assert len({int(f) for f, c in zip(plan.folds, column, strict=True) if c == value}) == 1
    assert any("30 values: they are held out in 20 folds" in line for line in plan.warnings)


@pytest.mark.parametrize("column", [["a"] * 6, [None] * 6, ["a", "a", None, None, None, None]])
def test_a_column_of_one_value_cannot_be_left_out_by(column: list[str | None]) -> None:
    with pytest.raises(InvalidInputError, match=r"one value|no value"):
        grouped_folds(np.array([0, 1] * 3), scheme=BY_COLUMN, column=column)


def test_folds_within_a_fold_by_column_need_no_column() -> None:
    groups = [f"p{i % 5}" for i in range(30)]
    plan = grouped_folds(np.arange(30) % 2, groups, scheme=BY_COLUMN, n_folds=3)
    assert plan.scheme == BY_GROUP


@given(ROWS, st.sampled_from([BY_BLOCK, RANDOM, BY_GROUP]), st.integers(2, 5))
@settings(max_examples=100, deadline=None)
def test_no_fold_tears_near_duplicates_apart(images: Images, scheme: str, n_folds: int) -> None:
    labels, groups, pictures, names = taken_apart([(max(c, 0), g, p) for c, g, p in images])
    if scheme == BY_GROUP and not any(groups):
        return
    plan = grouped_folds(
        labels, groups, names=names, scheme=scheme, n_folds=n_folds, pictures=pictures
    )
    if any("near-duplicates were not kept" in line for line in plan.warnings):
        return
    for key in {p for p in pictures if p}:
        assert len({int(f) for f, p in zip(plan.folds, pictures, strict=True) if p == key}) == 1


def test_groups_that_share_a_picture_become_one_and_keep_their_names() -> None:
    groups, loose = tied_groups(
        ["p2", "p1", "p3", None, None, "p4", "p5"], [7, 7, None, 9, 9, None, None]
    )
    assert groups[:3] == ["p1 and p2", "p1 and p2", "p3"]
    assert groups[3] == groups[4] and groups[3] is not None
    assert groups[3].startswith("same picture as ")
    assert loose == []


# --- what parts lack ---


def count(name: str, n: tuple[int, int, int], groups: tuple[int, int, int]) -> PartCount:
    return PartCount(name, dict(zip(PARTS, n, strict=True)), dict(zip(PARTS, groups, strict=True)))


def test_a_class_that_a_part_lacks_is_named_with_the_reason() -> None:
    said = assess_parts(
        [count("colon", (60, 30, 30), (9, 6, 6)), count("liver", (12, 0, 0), (1, 0, 0))],
        PARTS, grouped=True,
    )  # fmt: skip
    assert (
        "Not in the test set: liver. Its test score is undefined. liver comes from 1 group, and 3 "
        "are needed to be in every part." in said
    )
    assert any(line.startswith("Not among the validation images: liver.") for line in said)


def test_a_class_that_is_small_in_the_test_set_is_named_with_its_numbers() -> None:
    counts = [count("colon", (60, 30, 30), (9, 6, 4)), count("lung", (60, 30, 19), (9, 6, 6))]
    said = assess_parts(counts, PARTS, grouped=True)
    assert any("colon (30 images, 4 groups), lung (19 images, 6 groups)" in line for line in said)
    alone = assess_parts(counts[:1], PARTS, grouped=False)
    assert alone == []


def test_a_split_without_labels_says_that_classes_may_turn_out_to_be_missing() -> None:
    said = assess_parts([count("colon", (0, 0, 0), (0, 0, 0))], PARTS, grouped=True)
    assert said[0].startswith("No image has a label yet")
