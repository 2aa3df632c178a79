"""Confident learning by hand, planted errors, and what nothing can be said of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from cnsapp.domain import label_errors, neighbour_votes
from cnsapp.domain.label_errors import (
    Suspects,
    calibrated_joint,
    class_thresholds,
    confident_joint,
    find_suspects,
    normalised_margin,
    self_confidence,
)

# twelve images, four of each of three classes
GIVEN = np.repeat([0, 1, 2], 4)
TABLE = np.array([
    [0.90, 0.05, 0.05], [0.80, 0.10, 0.10], [0.70, 0.20, 0.10], [0.20, 0.75, 0.05],
    [0.05, 0.90, 0.05], [0.10, 0.80, 0.10], [0.30, 0.60, 0.10], [0.50, 0.50, 0.00],
    [0.05, 0.05, 0.90], [0.05, 0.05, 0.90], [0.70, 0.00, 0.30], [0.35, 0.35, 0.30],
])  # fmt: skip


def world(
    n: int = 600, k: int = 4, wrong: float = 0.1, seed: int = 0, noise: float = 0.35
) -> tuple[Any, Any, Any, Any]:
    """Return answers, labels with planted errors, unit rows, and which labels are wrong."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % k
    rows = rng.normal(size=(k, 16))[true] + noise * rng.normal(size=(n, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    given = true.copy()
    bad = rng.permutation(n)[: round(wrong * n)]
    given[bad] = (true[bad] + 1) % k
    logits = 3.0 * np.eye(k)[true] + rng.normal(size=(n, k))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return p, given, rows.astype(np.float32), given != true


def test_the_joint_of_a_dozen_images_is_that_worked_out_by_hand() -> None:
    """Thresholds .65, .7, .6: image 3 is confidently class 1, image 10 class 0; 6, 7, 11 none."""
    np.testing.assert_allclose(class_thresholds(TABLE, GIVEN), [0.65, 0.70, 0.60])
    counts = confident_joint(TABLE, GIVEN)
    assert counts.tolist() == [[3, 1, 0], [0, 2, 0], [1, 0, 2]]
    joint = calibrated_joint(counts, np.array([4, 4, 4]))
    np.testing.assert_allclose(joint, [[3, 1, 0], [0, 4, 0], [4 / 3, 0, 8 / 3]])


def test_an_image_confident_of_two_classes_counts_for_the_likelier_one() -> None:
    p = np.array([[0.5, 0.5], [0.4, 0.6], [0.6, 0.4], [0.45, 0.55]])
    given = np.array([0, 0, 1, 1])  # thresholds .45 and .475
    assert confident_joint(p, given).tolist() == [[1, 1], [1, 1]]  # the first is a tie: class 0


def test_a_class_without_images_has_no_threshold_and_gets_no_errors() -> None:
    p = np.array([[0.9, 0.05, 0.05], [0.1, 0.2, 0.7]])
    given = np.array([0, 0])
    thresholds = class_thresholds(p, given)
    assert thresholds[0] == 0.5 and np.isnan(thresholds[1:]).all()
    assert confident_joint(p, given).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    unsure = calibrated_joint(np.zeros((2, 2), np.int64), np.array([7, 3]))
    assert unsure.tolist() == [[7, 0], [0, 3]]


def test_confidence_and_margin_are_what_their_names_say() -> None:
    np.testing.assert_allclose(self_confidence(TABLE, GIVEN)[[0, 3, 7]], [0.9, 0.2, 0.5])
    np.testing.assert_allclose(normalised_margin(TABLE, GIVEN)[[0, 3, 7]], [0.85, -0.55, 0])


@pytest.mark.parametrize("with_rows", [True, False])
def test_planted_errors_are_found_and_named(with_rows: bool) -> None:
    p, given, rows, wrong = world()
    found = find_suspects(p, given, rows if with_rows else None)
    flagged = found.order[: found.n_flagged]
    assert found.has_neighbours is with_rows
    assert wrong[flagged].mean() > 0.9
    assert wrong[flagged].sum() > (0.75 if with_rows else 0.5) * wrong.sum()
    right = (given - 1) % 4
    hit = flagged[wrong[flagged]]
    assert (found.suggested[hit] == right[hit]).mean() > 0.95


def test_neighbours_make_the_ranking_better_where_the_model_is_poor() -> None:
    _, given, rows, wrong = world(seed=3)
    rng = np.random.default_rng(5)
    logits = 1.5 * np.eye(4)[(given - wrong) % 4] + rng.normal(size=(600, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    n = int(wrong.sum())
    alone, both = find_suspects(p, given), find_suspects(p, given, rows)
    assert wrong[both.order[:n]].mean() > wrong[alone.order[:n]].mean() + 0.1


def test_clean_labels_are_hardly_suspected() -> None:
    p, given, rows, _ = world(wrong=0.0)
    found = find_suspects(p, given, rows)
    assert found.n_flagged <= 6 and found.n_expected <= 6


@pytest.mark.parametrize("wrong", [0.05, 0.2])
def test_the_number_of_errors_is_estimated(wrong: float) -> None:
    p, given, rows, bad = world(n=1000, wrong=wrong, seed=2)
    found = find_suspects(p, given, rows)
    assert found.n_expected == pytest.approx(bad.sum(), rel=0.25)
    assert np.nansum(found.risk) == pytest.approx(found.n_expected, rel=1e-6)
    by_class = [np.nansum(found.risk[given == c]) for c in range(4)]
    off = found.joint.sum(1) - np.diag(found.joint)
    np.testing.assert_allclose(by_class, off, atol=1e-6)


def _by_image(found: Suspects, names: Any) -> tuple[Any, ...]:
    order = [names[i] for i in found.order]
    back = np.argsort(names)
    return order, found.n_flagged, found.suggested[back].tolist(), found.score[back]


def test_the_order_of_the_images_does_not_matter() -> None:
    p, given, rows, _ = world(seed=4)
    names = np.arange(len(given))
    mixed = np.random.default_rng(1).permutation(names)
    one = _by_image(find_suspects(p, given, rows), names)
    other = _by_image(find_suspects(p[mixed], given[mixed], rows[mixed]), mixed)
    assert one[:3] == other[:3]
    np.testing.assert_allclose(one[3], other[3], atol=1e-6)


def test_equally_suspicious_images_come_in_their_own_order() -> None:
    p = np.tile([[0.9, 0.1]], (20, 1))
    given = np.array([0] * 10 + [1] * 10)
    found = find_suspects(p, given)
    assert found.order.tolist() == list(range(10, 20))
    assert (found.score[10:] == found.score[10]).all()


def test_margins_that_differ_by_less_than_a_score_can_tell_keep_the_order_of_the_images() -> None:
    """A page goes on behind a score and an image: where scores are equal, the lower comes first."""
    p = np.tile([[0.9, 0.1]], (20, 1))
    given = np.array([0] * 10 + [1] * 10)
    p[10:] = [0.4, np.nextafter(0.4, 0)]  # margins of -6e-17 and -1e-16: scores of 0.5
    p[15, 1] = np.nextafter(p[15, 1], 0)
    found = find_suspects(p, given)
    keys = [(-float(found.score[i]), i) for i in found.order.tolist()]
    assert len(keys) == 10
    assert keys == sorted(keys)


def test_what_the_inputs_were_they_stay() -> None:
    p, given, rows, _ = world()
    before = p.copy(), given.copy(), rows.copy()
    find_suspects(p, given, rows)
    for was, now in zip(before, (p, given, rows), strict=True):
        np.testing.assert_array_equal(was, now)


def test_of_rows_without_an_answer_nothing_is_said() -> None:
    p, given, rows, wrong = world()
    lost = np.flatnonzero(wrong)[:3]
    p[lost] = np.nan
    found = find_suspects(p, given, rows)
    assert not found.judged[lost].any() and not set(lost) & set(found.order.tolist())
    assert np.isnan(found.score[lost]).all() and (found.suggested[lost] == -1).all()
    assert found.judged.sum() == len(given) - 3


def test_of_a_class_with_fewer_than_five_images_nothing_is_said() -> None:
    p, given, _, _ = world(n=200, k=4, wrong=0.0)
    rare = np.flatnonzero(given == 3)
    given[rare[4:]] = 0  # four are left; the others are errors of class 0
    found = find_suspects(p, given)
    assert not found.judged[rare[:4]].any()
    assert set(rare[4:].tolist()) <= set(found.order.tolist())


def test_a_fold_that_never_saw_a_class_says_nothing_against_it() -> None:
    p, given, _, _ = world(n=200, wrong=0.0)
    folds = np.where(given == 2, 0, np.arange(200) // 4 % 2)  # it lies in one group, say
    unseen = given == 2
    p[folds == 0, 2] = 0.0
    p /= p.sum(1, keepdims=True)
    told = find_suspects(p, given, folds=folds)
    assert not told.judged[unseen].any() and told.judged.sum() == 200 - unseen.sum()
    assert not set(np.flatnonzero(unseen).tolist()) & set(told.order.tolist())
    untold = find_suspects(p, given)
    assert set(np.flatnonzero(unseen).tolist()) & set(untold.order.tolist())


def test_an_answer_that_was_rounded_to_nothing_still_speaks_against_a_label() -> None:
    p, given, _, _ = world(n=200, k=3, wrong=0.0)
    folds = np.where(np.arange(200) < 8, 1, 0)  # a small fold, sure that none of it is of class 2
    p[:8] = [1.0, 0.0, 0.0]
    given[:8] = [0] * 7 + [2]
    found = find_suspects(p, given, folds=folds)
    assert found.judged.all()
    assert found.order[0] == 7


def test_a_fold_that_saw_one_class_alone_accuses_nobody() -> None:
    p, given, _, _ = world(n=200, wrong=0.0)
    folds = np.where(given == 0, np.arange(200) // 100, 1)  # the other fold holds class 0 alone
    p[folds == 1] = [1.0, 0.0, 0.0, 0.0]
    found = find_suspects(p, given, folds=folds)
    assert not set(found.order.tolist()) & set(np.flatnonzero(folds == 1).tolist())
    assert not found.judged[given != 0].any()


@pytest.mark.parametrize("n, k", [(0, 3), (3, 2), (40, 1)])
def test_too_little_to_judge_gives_an_empty_list(n: int, k: int) -> None:
    found = find_suspects(np.full((n, k), 1 / k), np.zeros(n, np.int64))
    assert (len(found.order), found.n_flagged, found.n_expected) == (0, 0, 0.0)
    assert not found.judged.any() and found.suggested.tolist() == [-1] * n


def test_images_without_features_are_judged_by_the_model_alone() -> None:
    p, given, rows, _ = world()
    rows[:100] = np.nan
    found, alone = find_suspects(p, given, rows), find_suspects(p, given)
    np.testing.assert_array_equal(found.score[:100], alone.score[:100])
    assert (found.nearest[:100] == -1).all() and (found.nearest[100:] >= 100).all()
    assert np.isfinite(found.score).all()


def test_an_index_of_a_few_images_is_not_called_neighbours() -> None:
    p, given, rows, _ = world()
    rows[40:] = np.nan
    few, alone = find_suspects(p, given, rows), find_suspects(p, given)
    assert not few.has_neighbours
    assert few.n_flagged == pytest.approx(0.6 * few.n_expected, abs=0.5)
    assert few.n_flagged == pytest.approx(alone.n_flagged, abs=5)


def test_large_sets_are_ranked_by_what_is_doubted_most(monkeypatch: pytest.MonkeyPatch) -> None:
    p, given, rows, wrong = world(n=3000, wrong=0.05)
    whole = find_suspects(p, given, rows)
    monkeypatch.setattr(label_errors, "MOST_CHECKED", 1000)
    monkeypatch.setattr(label_errors, "MOST_ANCHORS", 800)
    part = find_suspects(p, given, rows, seed=1)
    again = find_suspects(p, given, rows, seed=1)
    assert part.order.tolist() == again.order.tolist()
    assert part.judged.all()
    assert part.n_expected == pytest.approx(whole.n_expected, rel=0.35)
    n = int(wrong.sum())
    assert wrong[part.order[:n]].mean() > wrong[whole.order[:n]].mean() - 0.05


def test_what_does_not_fit_is_refused() -> None:
    p, given, rows, _ = world(n=40)
    for bad, said in (
        (lambda: find_suspects(p, given[:3]), r"\(40, 4\) probabilities for \(3,\) labels"),
        (lambda: find_suspects(p, given + 4), "outside the 4 classes"),
        (lambda: find_suspects(p, given, rows[:5]), "5 feature rows for 40 images"),
        (lambda: find_suspects(p, given, folds=given[:7]), "7 folds for 40 images"),
    ):
        with pytest.raises(ValueError, match=said):
            bad()


def test_votes_are_those_of_a_search_through_all(monkeypatch: pytest.MonkeyPatch) -> None:
    _, given, rows, _ = world(n=120)
    monkeypatch.setattr(neighbour_votes, "AT_ONCE", 1000)  # several parts
    everyone = np.arange(120)
    votes, nearest = neighbour_votes.neighbour_votes(rows, given, 4, everyone, everyone)
    search = NearestNeighbors(n_neighbors=21, algorithm="brute", metric="cosine").fit(rows)
    apart, near = search.kneighbors(rows)
    for i in range(120):
        weight = np.exp(8 * (1 - apart[i, 1:]))
        due = np.bincount(given[near[i, 1:]], weights=weight, minlength=4) / weight.sum()
        np.testing.assert_allclose(votes[i], due, atol=1e-4)
        assert nearest[i].tolist() == near[i, 1:6].tolist()


def test_images_of_the_own_group_are_not_asked() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(120, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    given, units = rng.integers(0, 3, 120), rng.integers(0, 6, 120)
    everyone = np.arange(120)
    votes, nearest = neighbour_votes.neighbour_votes(
        rows.astype(np.float32), given, 3, everyone, everyone, units
    )
    for i in (0, 17, 119):
        others = np.flatnonzero(units != units[i])
        closest = others[np.argsort(-(rows[others] @ rows[i]))[:20]]
        assert nearest[i].tolist() == closest[:5].tolist()
        weight = np.exp(8 * (rows[closest] @ rows[i]))
        due = [weight[given[closest] == c].sum() / weight.sum() for c in range(3)]
        assert votes[i] == pytest.approx(due, abs=1e-4)


def test_a_group_larger_than_all_others_asks_the_few_that_there_are() -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 0, 0, 0, 1, 2]]
    given, units = np.array([0, 0, 0, 0, 1, 1]), np.array([7, 7, 7, 7, 7, 9])
    votes, nearest = neighbour_votes.neighbour_votes(
        rows, given, 2, np.arange(6), np.arange(6), units
    )
    assert votes[0].tolist() == [0.0, 1.0]
    assert nearest[0].tolist() == [5, -1, -1, -1, -1]
    alone, nobody = neighbour_votes.neighbour_votes(
        rows[:5], given[:5], 2, np.arange(5), np.arange(5), units[:5]
    )
    assert np.isnan(alone).all()
    assert (nobody == -1).all()


def test_tiles_of_a_slide_that_is_labelled_wrong_do_not_speak_for_one_another() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(40), 25)  # 40 slides of 25 tiles, each of one class
    true = units % 4
    rows = np.eye(16)[true] + 0.15 * rng.normal(size=(40, 16))[units]
    rows = (rows + 0.05 * rng.normal(size=rows.shape)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    given = np.where(units == 9, 2, true)  # of class 1
    p = np.full((1000, 4), 0.1)
    p[np.arange(1000), true] = 0.7
    together = find_suspects(p, given, rows)
    apart = find_suspects(p, given, rows, units=units)
    assert len(together.order) == 0
    assert set(apart.order.tolist()) == set(np.flatnonzero(units == 9).tolist())
    assert (apart.suggested[units == 9] == 1).all()


def test_few_neighbours_are_all_asked_and_nobody_asks_itself() -> None:
    rows = np.eye(4, dtype=np.float32)
    given = np.array([0, 1, 1, 1])
    votes, nearest = neighbour_votes.neighbour_votes(
        rows, given, 2, np.array([0, 3]), np.array([0, 1, 2])
    )
    np.testing.assert_allclose(votes, [[0, 1], [0.5, 0.5]])
    assert nearest.tolist() == [[1, 2, -1, -1, -1], [0, 1, -1, -1, -1]]
    nobody, _ = neighbour_votes.neighbour_votes(rows, given, 2, np.array([0]), np.array([0]))
    assert np.isnan(nobody).all()
