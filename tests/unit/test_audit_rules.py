"""What may be wrong with data: outliers, shortcuts, drift; each against a stranger's reckoning."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestNeighbors

from cnsapp.domain import drift as drifting
from cnsapp.domain import guessing, outliers, shortcuts
from cnsapp.domain.guessing import by_line, by_table, guess, shuffled
from cnsapp.domain.splits import grouped_folds


class Stop(Exception):
    """What a check raises here."""


def stop() -> None:
    raise Stop


def test_shuffled_labels_of_single_images_are_a_permutation() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    rows = shuffled(labels, np.arange(6), 50, np.random.default_rng(0))
    assert all(sorted(row) == sorted(labels) for row in rows.tolist())
    assert len({tuple(row) for row in rows.tolist()}) > 20


def test_shuffled_labels_stay_together_in_groups_of_any_size() -> None:
    units = np.repeat([5, 2, 9, 7], [1, 4, 2, 3])
    labels = np.repeat([0, 1, 2, 0], [1, 4, 2, 3])
    rows = shuffled(labels, units, 200, np.random.default_rng(1))
    for unit in np.unique(units):
        assert (rows[:, units == unit] == rows[:, units == unit][:, :1]).all()
    # four groups, two of them with the label 0: 4! / 2! different orders and no more
    assert len({tuple(row) for row in rows.tolist()}) == 12


def test_a_table_says_the_class_with_the_largest_share_in_the_cell() -> None:
    # learnt from in fold 1: cell 0 holds 2 of 6 of class 0 and 1 of 2 of class 1 -> class 1
    cells = np.array([0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 2])
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1])
    folds = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0])
    said = by_table(cells, folds, 2)(labels[None])[0]
    assert said[8:].tolist() == [1, 0, 0]  # 1/2 over 2/6; 4/6 over 1/2; a cell that was never seen


def test_the_linear_rule_is_that_of_a_library() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(3, 600, p=[0.6, 0.3, 0.1])
    x = rng.normal(size=(600, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=(3, 5))[labels]
    folds = np.arange(600) % 3
    said = by_line(x, folds, 3)(labels[None])[0]
    due = np.empty(600, int)
    for fold in range(3):
        rule = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3)
        due[folds == fold] = rule.fit(x[folds != fold], labels[folds != fold]).predict(
            x[folds == fold]
        )
    assert (said == due).mean() > 0.93  # theirs is not shrunk


def test_a_rule_does_not_learn_from_the_images_it_is_asked_about() -> None:
    rng = np.random.default_rng(4)
    cells, labels, folds = rng.integers(0, 4, 60), rng.integers(0, 3, 60), np.arange(60) % 3
    x = rng.normal(size=(60, 2))
    other = labels.copy()
    other[folds == 1] = (other[folds == 1] + 1) % 3
    for answers in (by_table(cells, folds, 3), by_line(x, folds, 3)):
        first, second = answers(np.stack([labels, other]))
        assert (first[folds == 1] == second[folds == 1]).all()
        assert (first != second).any()


def planted(seed: int, tied: float, grouped: bool) -> guessing.Guessed:
    """Guess 3 classes from a cue that follows the label in `tied` of the groups (or images)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 10, 24) if grouped else np.ones(120, int)
    units = np.repeat(np.arange(len(sizes)), sizes)
    of_unit = rng.permutation(np.arange(len(sizes)) % 3)
    noise = rng.random(len(units)) < (0.3 if grouped else 0.0)
    labels = np.where(noise, rng.integers(0, 3, len(units)), of_unit[units])
    cue = np.where(rng.random(len(sizes)) < tied, of_unit, rng.integers(0, 3, len(sizes)))[units]
    plan = grouped_folds(labels, [f"u{unit}" for unit in units], n_folds=5, seed=0)
    return guess(by_table(cue, plan.folds, 3), labels, units, seed=seed, n_shuffles=99)


@pytest.mark.parametrize("grouped", [False, True])
def test_shuffled_cues_are_called_guessable_about_as_often_as_promised(grouped: bool) -> None:
    p = np.array([planted(seed, 0.0, grouped).p for seed in range(200)])
    assert (p <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert 0.3 < (p <= 0.5).mean() < 0.65


@pytest.mark.parametrize("grouped", [False, True])
def test_a_cue_that_follows_the_label_is_found_in_every_draw(grouped: bool) -> None:
    for seed in range(5):
        found = planted(seed, 0.95, grouped)
        assert found.p == 0.01  # the least that 99 shuffles can say
        assert found.balanced_accuracy > found.null_high > found.chance
        assert found.interval is not None
        assert found.interval[0] <= found.balanced_accuracy <= found.interval[1]


def test_figures_of_a_perfect_guess() -> None:
    labels = np.arange(60) % 3
    found = guess(by_table(labels, np.arange(60) // 3 % 5, 3), labels, np.arange(60), n_shuffles=19)
    assert (found.n, found.n_units, found.n_classes) == (60, 60, 3)
    assert (found.balanced_accuracy, found.skill, found.p) == (1.0, 1.0, 0.05)
    assert found.chance == pytest.approx(1 / 3)
    assert (found.predicted == labels).all()


def test_one_class_cannot_be_guessed_and_a_guess_can_be_stopped() -> None:
    folds = np.arange(10) % 2
    with pytest.raises(ValueError, match="1 classes"):
        guess(by_table(folds, folds, 1), np.zeros(10, int), np.arange(10))
    with pytest.raises(Stop):
        guess(by_table(folds, folds, 2), folds, np.arange(10), check=stop)


def test_numbers_go_into_equally_filled_cells_and_equal_ones_together() -> None:
    values = np.r_[np.arange(400.0), np.nan, np.nan]
    cells = shortcuts.cells_of_numbers(np.random.default_rng(0).permutation(values))
    assert np.bincount(cells)[:-1] == pytest.approx([25] * 16, abs=1)
    assert np.bincount(cells)[-1] == 2
    assert shortcuts.cells_of_numbers(np.array([7.0, 3.0, 7.0])).tolist() == [1, 0, 1]
    assert shortcuts.cells_of_numbers(np.full(5, np.nan)).tolist() == [0] * 5


def test_texts_are_numbered_the_commonest_first() -> None:
    assert shortcuts.cells_of_texts(["b", "a", "b", None]).tolist() == [0, 1, 0, 61]
    many = shortcuts.cells_of_texts([f"v{i:03}" for i in range(100)])
    assert many.max() == 60
    assert (many == 60).sum() == 40


def test_labels_are_inseparable_from_a_value_only_where_each_has_the_other_alone() -> None:
    assert shortcuts.inseparable(np.array([0, 0, 1, 1]), ["A", "A", "B", "B"]) == [
        (0, "A"), (1, "B"),
    ]  # fmt: skip
    assert shortcuts.inseparable(np.array([0, 0, 1, 1]), ["A", "A", "B", "A"]) == []
    assert shortcuts.inseparable(np.array([0, 0, 1, 1]), ["A", "C", "B", "B"]) == [(1, "B")]
    assert shortcuts.inseparable(np.array([0, 1]), ["A", "A"]) == []
    assert shortcuts.inseparable(np.array([0, 0]), ["A", "B"]) == []
    assert shortcuts.inseparable(np.array([0, 1, 1]), [None, "B", "B"]) == [(1, "B")]


def test_folders_prefixes_and_imports_are_read_from_names_and_times() -> None:
    names = ["site1/01_T/a.png", "site2/02_N/b.png", "site2/01_T/c.png", "site1/02_N/d.png", "e"]
    found = shortcuts.folder_values(names, np.array([0, 1, 0, 1, 1]))
    assert found == ["site1", "site2", "site2", "site1", None]
    assert shortcuts.folder_values(names[4:], np.array([0])) == [None]
    rare = np.arange(200) % 20 == 0  # one image in twenty: any folder tells 95 of 100 labels
    sites = [f"site{i % 3}/{int(rare[i])}/{i}.png" for i in range(200)]
    assert set(shortcuts.folder_values(sites, rare.astype(int))) == {"site0", "site1", "site2"}
    assert shortcuts.prefix_values(["HospA_07", "hospA8", "12", None, "Ü1"]) == [
        "hospa", "hospa", None, None, "ü",
    ]  # fmt: skip
    day = datetime(2026, 11, 28, 12)
    moments = [day.replace(minute=29), day, day.replace(hour=14)]
    assert shortcuts.batch_values(moments) == ["2026-11-28 12:00"] * 2 + ["2026-11-28 14:00"]


def test_distances_are_those_of_a_search_through_all() -> None:
    rng = np.random.default_rng(0)
    rows, reference = rng.normal(size=(40, 6)), rng.normal(size=(300, 6))
    due = NearestNeighbors(n_neighbors=5).fit(reference).kneighbors(rows)[0].mean(1)
    assert outliers.distances(rows, reference) == pytest.approx(due, abs=1e-5)
    with pytest.raises(Stop):
        outliers.distances(rows, reference, check=stop)


def test_neighbours_of_the_own_group_do_not_count() -> None:
    rows = np.array([[0.0], [0.1], [5.0], [9.0]])
    units = np.array([0, 0, 1, 2])
    found = outliers.distances(rows, rows, units, units, k=1)
    assert found == pytest.approx([5, 4.9, 4, 4], abs=1e-5)
    alone = outliers.distances(rows[:2], rows[:2], units[:2], units[:2])
    assert np.isinf(alone).all()
    assert np.isinf(outliers.distances(rows, rows[:0])).all()


@pytest.mark.parametrize("d", [4, 32])
def test_about_one_in_a_hundred_is_flagged_where_nothing_is_odd(d: int) -> None:
    old, new = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows, units = rng.normal(size=(800, d)), np.arange(800)
        scores = outliers.distances(rows, rows, units, units)
        old.append(outliers.among_labelled(scores, units))
        later = outliers.distances(rng.normal(size=(800, d)), rows)
        new.append(outliers.unlike_labelled(later, scores, units))
    assert 0.005 < np.mean([found.share for found in old]) < 0.02
    assert 0.005 < np.mean([found.share for found in new]) < 0.015
    assert sum(found.is_more_than_chance for found in new) <= 2


def test_planted_images_of_another_kind_stand_first_even_if_they_are_one_slide() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(420, 16))
    rows[400:] = 6 + 0.1 * rng.normal(size=(20, 16))  # alike among themselves
    units = np.r_[np.arange(400) // 10, np.full(20, 99)]
    scores = outliers.distances(rows, rows, units, units)
    found = outliers.among_labelled(scores, units)
    assert set(found.order[:20].tolist()) == set(range(400, 420))
    assert found.n_units == 41
    usual = outliers.distances(rows[:400], rows[:400], units[:400], units[:400])
    new = outliers.unlike_labelled(outliers.distances(rows[380:], rows[:380]), usual, np.arange(40))
    assert set(new.order[:20].tolist()) == set(range(20, 40))
    assert new.is_more_than_chance


def test_a_conformal_flag_counts_the_labelled_images_that_are_as_far() -> None:
    usual = np.arange(1.0, 200.0)  # 199: at most one of them may be as far
    found = outliers.unlike_labelled(np.array([198.0, 198.5, 199.0, 200.0]), usual, np.arange(4))
    assert found.order.tolist() == [3, 2, 1]
    assert found.share == 0.75
    spoilt = np.r_[usual, np.full(10, 5_000.0)]  # desks among the labelled ones are not usual
    again = outliers.unlike_labelled(np.array([198.0, 198.5, 199.0, 200.0]), spoilt, np.arange(4))
    assert again.order.tolist() == [3, 2, 1]
    small = outliers.unlike_labelled(np.array([50.0, 60.0, 61.0]), usual[:60], np.arange(3))
    assert small.order.tolist() == [2]  # none of 60 may be as far
    assert small.nominal == pytest.approx(1 / 61)
    for few in (outliers.unlike_labelled, lambda s, _, u: outliers.among_labelled(s[:40], u[:40])):
        with pytest.raises(ValueError, match="too few"):
            few(np.arange(60.0), np.arange(49.0), np.arange(60))


def two_samples(seed: int, moved: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, which are new, and groups, of which each has a place of its own."""
    rng = np.random.default_rng(seed)
    units = np.repeat(np.arange(16), 10)
    is_new = units >= 10
    rows = rng.normal(size=(16, 4))[units] + 0.5 * rng.normal(size=(160, 4))
    rows[is_new, 0] += moved
    return rows, is_new, units


def test_drift_is_found_where_new_groups_lie_elsewhere_and_only_there() -> None:
    still = [drifting.drift(*two_samples(seed, 0.0), n_shuffles=39) for seed in range(100)]
    rate = np.mean([found.p <= 0.05 for found in still])
    assert rate < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    for seed in range(3):
        found = drifting.drift(*two_samples(seed, 6.0), n_shuffles=39)
        assert found.p == 0.025
        assert found.balanced_accuracy > 0.9


def test_too_few_groups_can_not_tell() -> None:
    _, is_new, units = two_samples(0, 0.0)
    assert drifting.why_not(is_new, units) is None
    said = drifting.why_not(units == 15, np.where(units == 15, 15, units))
    assert said is not None
    assert "There are 10 new images" in said
    said = drifting.why_not(units >= 13, units)
    assert said is not None
    assert "come from 3 groups; 4 are needed" in said


def test_a_shift_is_the_chance_of_a_higher_value() -> None:
    rng = np.random.default_rng(0)
    is_new = np.arange(100) >= 60
    values = {
        "moved": rng.normal(size=100) + 2.0 * is_new,
        "still": rng.integers(0, 4, 100).astype(float),
        "unknown": np.full(100, np.nan),
    }
    found = drifting.shifts(values, is_new, np.arange(100), n_shuffles=199)
    assert [shift.name for shift in found] == ["moved", "still"]
    for shift in found:
        x = values[shift.name]
        due = mannwhitneyu(x[is_new], x[~is_new]).statistic / (40 * 60)
        assert shift.higher == pytest.approx(due)
        assert shift.old == np.median(x[~is_new])
    assert (found[0].p, found[0].p_holm) == (0.005, 0.01)
    assert found[1].p > 0.05
