"""What training says before it starts."""

from __future__ import annotations

from cnsapp.domain.readiness import ClassCount, assess


def test_without_images_it_says_so_and_how_many_labels_are_needed() -> None:
    verdict = assess([ClassCount("liver", 0)], n_images=0, n_groups=0)
    assert not verdict.ok
    assert "no images yet" in verdict.problems[0]
    assert "2 classes with 3 labelled images" in verdict.problems[0]


def test_without_labels_it_says_so() -> None:
    verdict = assess([ClassCount("liver", 0), ClassCount("lung", 0)], n_images=9, n_groups=0)
    assert "No image has a label yet" in verdict.problems[0]


def test_one_class_alone_cannot_be_learnt() -> None:
    verdict = assess([ClassCount("liver", 40), ClassCount("lung", 0)], n_images=50, n_groups=0)
    assert "Only one class has labels: liver (40)" in verdict.problems[0]
    assert verdict.needed == {"lung": 3}


def test_too_few_names_the_class_and_what_is_missing() -> None:
    verdict = assess([ClassCount("liver", 40), ClassCount("lung", 1)], n_images=50, n_groups=0)
    assert "lung has 1, 2 more needed" in verdict.problems[0]


def test_a_small_class_beside_two_good_ones_is_left_out_and_named() -> None:
    counts = [ClassCount("liver", 40), ClassCount("lung", 40), ClassCount("skin", 2)]
    verdict = assess(counts, n_images=90, n_groups=0)
    assert verdict.ok
    assert verdict.left_out == ["skin"]
    assert "Left out" in verdict.warnings[0] and "skin (2)" in verdict.warnings[0]


def test_no_groups_few_labels_and_unequal_classes_are_worth_a_word() -> None:
    counts = [ClassCount("liver", 100), ClassCount("lung", 5)]
    text = " ".join(assess(counts, n_images=105, n_groups=0).warnings)
    assert "No image has a group" in text
    assert "Few labelled images of lung (5)" in text
    assert "liver has 100 labelled images, lung 5" in text


def test_a_class_from_one_group_alone_is_named() -> None:
    counts = [ClassCount("liver", 20, n_groups=4), ClassCount("lung", 20, n_groups=1)]
    text = " ".join(assess(counts, n_images=40, n_groups=4).warnings)
    assert "All images of lung come from one group" in text


def test_good_labels_raise_no_word() -> None:
    counts = [ClassCount("liver", 20, n_groups=4), ClassCount("lung", 30, n_groups=4)]
    verdict = assess(counts, n_images=50, n_groups=4)
    assert verdict.ok and not verdict.warnings and not verdict.needed
