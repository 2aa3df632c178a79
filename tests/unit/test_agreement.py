"""Agreement is scikit-learn's and statsmodels' and the papers', and never invented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from cnsapp.domain.agreement import (
    cohen_kappa,
    fleiss_kappa,
    pair_confusion,
    per_class_agreement,
    percent_agreement,
)

# Fleiss 1971, table 1: 30 patients, 6 psychiatrists each, 5 diagnoses
FLEISS_1971 = """
0 0 0 6 0/0 3 0 0 3/0 1 4 0 1/0 0 0 0 6/0 3 0 3 0/2 0 4 0 0/0 0 4 0 2/2 0 3 1 0/2 0 0 4 0/0 0 0 0 6
1 0 0 5 0/1 1 0 4 0/0 3 3 0 0/1 0 0 5 0/0 2 0 3 1/0 0 5 0 1/3 0 0 1 2/5 1 0 0 0/0 2 0 4 0/1 0 2 0 3
0 0 0 0 6/0 1 0 5 0/0 2 0 1 3/2 0 0 4 0/1 0 0 4 1/0 5 0 1 0/4 0 0 0 2/0 2 0 4 0/1 0 5 0 0/0 0 0 0 6
"""
# Fleiss, Levin and Paik's textbook example: 14 raters, 10 subjects, kappa 0.210
TEXTBOOK = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
LABELS = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C", None]), st.sampled_from(["A", "B", "C", None])),
    max_size=40,
)


def split(pairs: list[tuple[str | None, str | None]]) -> tuple[list, list]:
    """Return both annotators' labels."""
    return [one for one, _ in pairs], [other for _, other in pairs]


def test_cohens_kappa_of_a_table_worked_by_hand() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: agreed 0.7, by chance 0.5, kappa 0.4
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(a, b).value == pytest.approx(0.4)
    assert percent_agreement(a, b).value == pytest.approx(0.7)
    assert cohen_kappa(a, b).n == 50


@given(LABELS)
def test_cohens_kappa_is_scikit_learns(pairs: list[tuple[str | None, str | None]]) -> None:
    a, b = split(pairs)
    both = [(x, y) for x, y in pairs if x and y]
    got = cohen_kappa(a, b, n_resamples=0)
    assert got.n == len(both)
    if len({label for pair in both for label in pair}) < 2:
        assert got.value is None and got.reason
    else:
        assert got.value == pytest.approx(cohen_kappa_score(*split(both)), abs=1e-12)
        assert got.reason == ""


@given(LABELS)
def test_a_class_against_the_rest_is_scikit_learns(
    pairs: list[tuple[str | None, str | None]],
) -> None:
    both = [(x, y) for x, y in pairs if x and y]
    for c, got in per_class_agreement(*split(pairs), ["A", "B", "D"], n_resamples=0).items():
        x, y = [one == c for one, _ in both], [other == c for _, other in both]
        if len({*x, *y}) < 2:
            assert got.value is None and got.reason.endswith(".")
        else:
            assert got.value == pytest.approx(cohen_kappa_score(x, y), abs=1e-12)


@given(LABELS)
def test_the_table_of_pairs_is_scikit_learns(pairs: list[tuple[str | None, str | None]]) -> None:
    both = [(x, y) for x, y in pairs if x and y]
    assume(both)
    table = pair_confusion(*split(pairs), ["A", "B", "C"])
    assert table.tolist() == confusion_matrix(*split(both), labels=["A", "B", "C"]).tolist()


def test_fleiss_kappa_is_the_one_of_his_paper() -> None:
    rows = FLEISS_1971.strip().replace("\n", "/").split("/")
    counts = np.array([[int(c) for c in row.split()] for row in rows])
    assert counts.shape == (30, 5) and set(counts.sum(1)) == {6}
    shares = counts.sum(0) / counts.sum()
    assert shares.round(3).tolist() == [0.144, 0.144, 0.167, 0.306, 0.239]  # as printed there
    assert fleiss_kappa(counts).value == pytest.approx(0.430, abs=5e-4)


def test_fleiss_kappa_is_the_textbooks() -> None:
    assert fleiss_kappa(np.array(TEXTBOOK)).value == pytest.approx(0.210, abs=5e-4)


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=2, max_size=30))
def test_fleiss_kappa_is_statsmodels(readings: list[list[int]]) -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    counts = np.array([np.bincount(row, minlength=4) for row in readings])
    got = fleiss_kappa(counts, n_resamples=0)
    if (counts.sum(0) > 0).sum() < 2:
        assert got.value is None
    else:
        assert got.value == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-12)


def test_fleiss_kappa_of_unequal_numbers_worked_by_hand() -> None:
    # images AA, AB, BBB, A: the last does not count; agreement (1 + 0 + 1) / 3;
    # shares of A (1 + 1/2 + 0) / 3 = 1/2; chance 1/2; kappa (2/3 - 1/2) / (1/2) = 1/3
    got = fleiss_kappa(np.array([[2, 0], [1, 1], [0, 3], [1, 0]]))
    assert (got.n, got.value) == (3, pytest.approx(1 / 3))


def test_what_cannot_be_said_is_none_with_a_reason() -> None:
    lone = cohen_kappa(["A", None], [None, "A"])
    assert (lone.value, lone.n, lone.reason) == (None, 0, "No image was labelled by both.")
    one = cohen_kappa(["A", "A"], ["A", "A"])
    assert one.value is None and "All labels are of one class" in one.reason and one.n == 2
    assert percent_agreement(["A", "A"], ["A", "A"]).value == 1.0
    assert percent_agreement([None], ["A"]).value is None
    per_class = per_class_agreement(["A", "A"], ["A", "A"], ["A", "B"])
    assert "nothing it was told from" in per_class["A"].reason
    assert per_class["B"].reason == "Neither gave an image this class."
    assert (
        fleiss_kappa(np.array([[1, 0], [0, 1]])).reason == "No image was labelled by two or more."
    )
    assert fleiss_kappa(np.zeros((0, 3))).value is None
    assert "one class" in fleiss_kappa(np.array([[3, 0], [2, 0]])).reason


def test_one_class_by_one_annotator_only_is_no_better_than_chance() -> None:
    got = cohen_kappa(["A", "A", "A"], ["A", "B", "A"])
    assert got.value == 0 and got.reason == ""


def test_the_interval_is_a_plain_bootstraps() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 3, 120)
    b = np.where(rng.random(120) < 0.7, a, rng.integers(0, 3, 120))
    got = cohen_kappa(a.tolist(), b.tolist(), seed=1).interval
    plain = []
    for _ in range(1500):
        i = rng.integers(0, 120, 120)
        plain.append(cohen_kappa_score(a[i], b[i]))
    assert got == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.025)


def test_whole_groups_are_drawn_where_there_are_groups() -> None:
    a = [i % 2 for i in range(200)]
    b = [x if i < 100 else 1 - x for i, x in enumerate(a)]
    groups = ["p1"] * 50 + ["p2"] * 50 + ["p3"] * 50 + ["p4"] * 50
    by_image, by_group = cohen_kappa(a, b), cohen_kappa(a, b, groups=groups)
    assert by_image.value == by_group.value == pytest.approx(0)
    assert (by_image.interval_by, by_group.interval_by) == ("image", "group")
    assert by_group.interval == (-1.0, 1.0)  # four groups: all agree, or none
    assert (
        by_image.interval is not None and -0.2 < by_image.interval[0] < by_image.interval[1] < 0.2
    )
    alone = cohen_kappa(a, b, groups=["p1"] * 200)
    assert alone.value is not None and alone.interval is None
    fleiss = fleiss_kappa(np.array([[2, 0], [1, 1]] * 100), groups=groups)
    assert fleiss.interval_by == "group"


@given(st.integers(0, 5))
def test_the_interval_is_repeatable_and_holds_the_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(3, [0.6, 0.3, 0.1], size=60)
    got, again = fleiss_kappa(counts, seed=seed), fleiss_kappa(counts, seed=seed)
    assert got == again and got.value is not None and got.interval is not None
    assert got.interval[0] <= got.value + 0.02 and got.interval[1] >= got.value - 0.02


def test_an_interval_that_mostly_is_undefined_is_not_given() -> None:
    # one image of 20 differs: more than a third of the resamples hold one class only
    got = cohen_kappa(["A"] * 19 + ["B"], ["A"] * 19 + ["B"])
    assert got.value == 1 and got.interval is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for trial in range(200):  # two classes alike often, 80 % agreed: kappa 0.6
        a = rng.integers(0, 2, 150)
        b = np.where(rng.random(150) < 0.8, a, 1 - a)
        low, high = cohen_kappa(a.tolist(), b.tolist(), seed=trial, n_resamples=500).interval or (
            1,
            0,
        )
        held += low <= 0.6 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="lengths differ: 1 and 2"):
        cohen_kappa(["A"], ["A", "B"])
    with pytest.raises(ValueError, match="1 groups for 2 images"):
        cohen_kappa(["A", "B"], ["A", "B"], groups=["p"])
    with pytest.raises(ValueError, match="not among the classes"):
        pair_confusion(["A"], ["Z"], ["A", "B"])
    with pytest.raises(ValueError, match="listed twice"):
        pair_confusion(["A"], ["A"], ["A", "A"])
    for bad in (np.array([1, 2]), np.array([[1, -1]]), np.array([[0.5, 1]])):
        with pytest.raises(ValueError, match="not a table of whole numbers"):
            fleiss_kappa(bad)
