"""What the rounds of a search are run on: nested parts, whole groups, never the test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnsapp.domain.search import Round
from cnsapp.tasks.full_run import FullRun
from cnsapp.tasks.resources import Source
from cnsapp.tasks.search_trials import (
    Clock,
    OutOfTime,
    can_share,
    lay_out,
    learning_rows,
    pack,
    unpack,
)
from cnsapp.tasks.snapshot import Labelled


def run_of(n: int, n_groups: int, *, n_test: int = 0) -> FullRun:
    """Return a settled run of n images to learn from in two classes, then a test set."""
    images = [
        Labelled(
            Source(i, f"{i:064x}", Path(f"{i}.png"), f"{i}.png"),
            class_id=7 + i % 2,
            event_id=i,
            group=f"p{i // 2 % n_groups}" if n_groups else None,
            part="test" if i >= n else "train",
        )
        for i in range(n + n_test)
    ]
    return FullRun(
        images=images, parts=[], folds=np.zeros(len(images), np.int64),
        test=np.arange(n, n + n_test), class_ids=[7, 8], class_names=["a", "b"],
        scheme="by group" if n_groups else "by file-name blocks", n_folds=5, warnings=[],
        fingerprint="", last_event_id=0, split_id=None, n_images=n, rule={}, size=0, device="",
        seconds=0.0,
    )  # fmt: skip


def test_smaller_rounds_lie_in_larger_ones_and_keep_groups_whole() -> None:
    run = run_of(400, 40, n_test=30)
    assert can_share(run, 0)
    quarter, half, whole = (lay_out(run, Round(share, 5, 1), 0, 5) for share in (0.25, 0.5, 1.0))
    assert set(quarter.rows) < set(half.rows) < set(whole.rows)
    assert len(whole.rows) == 400 and not set(whole.rows) & set(run.test)
    assert 80 <= len(quarter.rows) <= 120
    for course in (quarter, half):
        mine = set(course.rows)
        touched = {run.images[i].group for i in mine}
        assert mine == {i for i in range(400) if run.images[i].group in touched}
    for course in (quarter, half, whole):
        groups = np.array([run.images[i].group for i in course.rows])
        for group in set(groups):
            assert len(set(course.plan.folds[groups == group])) == 1
    again = lay_out(run, Round(0.25, 5, 1), 0, 5)
    assert (again.plan.folds == quarter.plan.folds).all()


def test_who_is_learnt_from_is_neither_judged_nor_chosen_by() -> None:
    course = lay_out(run_of(200, 20), Round(1.0, 2, 1), 0, 5)
    for part in course.plan.parts:
        rows = [set(part.train), set(part.validation), set(part.held)]
        assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


def test_few_images_are_judged_in_more_folds_than_asked_for() -> None:
    many = lay_out(run_of(1000, 100), Round(1.0, 1, 1), 0, 5)
    few = lay_out(run_of(60, 20), Round(1.0, 1, 1), 0, 5)
    assert many.judged == (0,) and len(few.judged) == 5


@pytest.mark.parametrize(("n", "n_groups"), [(200, 40), (400, 5)])
def test_too_few_images_or_groups_are_not_shared_out(n: int, n_groups: int) -> None:
    assert not can_share(run_of(n, n_groups), 0)


def test_images_without_groups_can_be_shared_out_too() -> None:
    run = run_of(400, 0)
    assert can_share(run, 0) and len(learning_rows(run)) == 400


def test_answers_survive_being_remembered_as_text() -> None:
    answers = np.array([0, 3, -1, 11, 2], np.int64)
    assert (unpack(pack(answers)) == answers).all()


def test_a_clock_that_is_over_says_so() -> None:
    Clock(60).look()
    with pytest.raises(OutOfTime):
        Clock(-1).look()
