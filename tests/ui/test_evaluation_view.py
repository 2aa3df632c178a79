"""All figures of a model on the Models page."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from cnsapp.services import evaluation
from cnsapp.ui.evaluation_sections import BY_NAME
from db.models import DataSplit, Model, Prediction, SplitMember
from tests.integration.worlds import World, add_model
from tests.ui.conftest import Screen


def choose(screen: Screen, key: str, value: str) -> Screen:
    """Choose a segment of the control of that key."""
    control = next(c for c in screen.test.get("button_group") if c.key == key)
    control.set_value(value).run()
    return screen


def test_every_section_has_its_figures_with_n(screen: Screen, model_id: int, world: World) -> None:
    screen.open("models", project=world.project_id, model=model_id)
    assert not screen.errors
    assert "24 images from 3 groups" in screen.words and "whole groups resampled" in screen.words
    assert "Balanced accuracy" in screen.words and "Cohen" in screen.words
    for section, said in (
        ("Confusion", "rows are labels"),
        ("ROC and PR", "Average precision"),
        ("Calibration", "Brier score"),
        ("When it may abstain", "Wanted accuracy"),
        (BY_NAME, "nothing to compare"),  # eight images a group
    ):
        choose(screen, "evaluation_section", section)
        assert not screen.errors and said in screen.words, section


def test_a_rerun_computes_nothing(
    screen: Screen, model_id: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen.open("models", project=world.project_id, model=model_id)
    runs: list[int] = []
    monkeypatch.setattr(evaluation, "_evaluated", lambda *_: runs.append(1))
    choose(screen, "evaluation_section", "Calibration")
    assert not screen.errors and not runs


def test_a_model_without_predictions_says_what_to_do(screen: Screen, world: World) -> None:
    model_id = add_model(world, [])
    screen.open("models", project=world.project_id, model=model_id)
    assert not screen.errors
    assert "has no predictions of images that it had not seen" in screen.words


def test_the_locked_test_set_is_shown_apart_with_its_looks(
    screen: Screen, model_id: int, world: World
) -> None:
    with world.app.store.writing() as session:
        split = DataSplit(project_id=world.project_id, name="split", scheme="by group")
        session.add(split)
        session.flush()
        model = session.get_one(Model, model_id)
        model.split_id = split.id
        model.metrics = {
            **model.metrics,
            "test": {"balanced_accuracy": 0.5, "n": 8, "n_uses": 2},
        }
        for row in session.scalars(select(Prediction).order_by(Prediction.id)).all()[:8]:
            row.part = "test"
            session.add(SplitMember(split_id=split.id, image_id=row.image_id, part="test"))
    screen.open("models", project=world.project_id, model=model_id)
    assert "Locked test set, looked at 2 times" in screen.words
    assert "16 images from 3 groups" in screen.words
    choose(screen, "evaluation_part", "Locked test set")
    assert not screen.errors
    assert "8 images from 3 groups" in screen.words
    assert "looked at once" in screen.words
