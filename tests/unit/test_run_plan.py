"""Who is learnt from, chosen by and scored: never the same image, group or picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnsapp.domain.run_plan import SHARED_VALIDATION, Part, plan_run

Rows = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([None, "a", "b", "c", "d", "e", "f"])),
    min_size=12,
    max_size=60,
).filter(lambda rows: len({c for c, _ in rows}) > 1)


@settings(deadline=None, max_examples=60)
@given(Rows, st.sampled_from(["holdout", "folds"]), st.integers(0, 3))
def test_no_group_is_on_two_sides(
    rows: list[tuple[int, str | None]], evaluate: str, seed: int
) -> None:
    labels = np.array([c for c, _ in rows])
    groups = [g for _, g in rows]
    plan = plan_run(
        labels, groups, [f"{i}.png" for i in range(len(rows))], evaluate=evaluate, seed=seed,
        scheme="by group" if any(groups) else None,
    )  # fmt: skip
    everyone = set(range(len(rows)))
    for part in plan.parts:
        train, validation, held = (
            set(x.tolist()) for x in (part.train, part.validation, part.held)
        )
        assert train | validation | held == everyone
        assert len(train) + len(validation) + len(held) == len(everyone)
        assert held == ({i for i in everyone if plan.folds[i] == part.fold})
        sides = [{groups[i] for i in side} - {None} for side in (train, validation, held)]
        assert not sides[2] & (sides[0] | sides[1])
        if SHARED_VALIDATION not in plan.warnings and any(groups):
            assert not sides[0] & sides[1]
        rest = set(labels[sorted(train | validation)].tolist())
        if SHARED_VALIDATION not in plan.warnings:
            assert set(labels[sorted(train)].tolist()) == rest  # every class is learnt
        assert validation
        assert train
    if evaluate == "folds" and plan.n_folds:
        scored = np.concatenate([p.held for p in plan.parts])
        assert sorted(scored.tolist()) == sorted(everyone)
        assert plan.parts[-1].fold is None
    assert plan_run(
        labels, groups, [f"{i}.png" for i in range(len(rows))], evaluate=evaluate, seed=seed,
        scheme="by group" if any(groups) else None,
    ).parts[0].as_json() == plan.parts[0].as_json()  # fmt: skip


def test_a_holdout_keeps_one_fold_back_and_publishes_the_network_that_was_scored() -> None:
    labels = np.tile([0, 1], 30)
    groups = [f"p{i // 6}" for i in range(60)]
    plan = plan_run(labels, groups, None, n_folds=5)
    assert (len(plan.parts), plan.n_folds, plan.scheme) == (1, 1, "by group")
    (part,) = plan.parts
    assert len(part.held) == 12
    assert 6 <= len(part.validation) <= 12
    assert Part.from_json(part.as_json()).as_json() == part.as_json()


def test_the_fold_kept_back_is_one_that_scores_every_class() -> None:
    labels = np.array([0] * 20 + [1] * 4)
    groups = [f"p{i // 4}" for i in range(20)] + ["q", "q", "r", "r"]
    for seed in range(5):
        plan = plan_run(labels, groups, None, n_folds=5, seed=seed)
        assert set(labels[plan.parts[0].held]) == {0, 1}
        assert set(labels[plan.parts[0].train]) == {0, 1}


def test_one_group_only_is_scored_by_nothing_and_says_so() -> None:
    labels = np.tile([0, 1], 10)
    plan = plan_run(labels, ["p"] * 20, None, n_folds=5)
    assert plan.n_folds == 0
    assert plan.parts[0].fold is None
    assert len(plan.parts[0].held) == 0
    assert len(plan.parts[0].validation) > 0
    assert SHARED_VALIDATION in plan.warnings
    assert any("no score can be computed" in line for line in plan.warnings)


def test_the_users_own_validation_images_are_taken() -> None:
    labels = np.tile([0, 1], 30)
    groups = [f"p{i // 6}" for i in range(60)]
    wished = np.array([g in ("p1", "p2") for g in groups])
    plan = plan_run(labels, groups, None, evaluate="folds", n_folds=5, wished=wished)
    for part in plan.parts:
        mine = wished.copy()
        mine[part.held] = False
        if mine.any():
            assert part.validation.tolist() == np.flatnonzero(mine).tolist()
    assert plan.parts[-1].validation.tolist() == np.flatnonzero(wished).tolist()


def test_pictures_that_look_the_same_stay_on_one_side() -> None:
    labels = np.tile([0, 1], 30)
    pictures = [i // 4 for i in range(60)]
    plan = plan_run(labels, None, [f"{i}.png" for i in range(60)], pictures=pictures,
                    scheme="random")  # fmt: skip
    sides = np.zeros(60, int)
    sides[plan.parts[0].validation] = 1
    sides[plan.parts[0].held] = 2
    for picture in range(15):
        assert len(set(sides[[i for i in range(60) if pictures[i] == picture]])) == 1


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3, 0.5])
def test_the_validation_share_is_kept(share: float) -> None:
    labels = np.tile([0, 1], 100)
    plan = plan_run(labels, None, None, scheme="random", validation_share=share)
    part = plan.parts[0]
    n = len(part.train) + len(part.validation)
    assert abs(len(part.validation) / n - share) < 0.06
