"""A test set that earlier models learnt from is no secret any more: it is said."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.services import splits
from cnsapp.services.evaluation import evaluate_model
from cnsapp.services.split_uses import models_that_learnt
from cnsapp.tasks.snapshot import take_snapshot
from db.models import Model, Prediction
from tests.integration.worlds import World, add_model, make_world


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 30, "lung": 30}, n_groups=10, side=8)


def everything(world: World) -> list[tuple[int, int, int, float]]:
    return [
        (i, class_id, class_id, 0.9)
        for class_id, ids in zip(world.class_ids, world.image_ids, strict=False)
        for i in ids
    ]


def said_of(world: World, split_id: int) -> str:
    return " ".join(splits.part_counts(world.app.store, split_id=split_id).said)


def test_models_from_before_the_split_are_counted_and_have_no_test_score(world: World) -> None:
    before = add_model(world, everything(world))
    made = splits.create_split(world.app.store, who="Ada", project_id=world.project_id)
    with world.app.store.reading() as session:
        assert models_that_learnt(session, made.id) == [before]
    assert "1 model learnt from images of this test set" in said_of(world, made.id)
    with pytest.raises(InvalidInputError, match="was not scored on a locked test set"):
        evaluate_model(world.app.store, before, "test")
    warnings = take_snapshot(world.app, world.project_id, ReadingRule()).warnings
    assert any("1 model learnt from images of this test set" in line for line in warnings)


def test_a_model_of_the_split_is_none_of_them_but_knows_those_of_another(world: World) -> None:
    first = splits.create_split(world.app.store, who="Ada", project_id=world.project_id, seed=1)
    locked = {i.source.image_id for i in take_snapshot(
        world.app, world.project_id, ReadingRule()).testing}  # fmt: skip
    learnt = [row for row in everything(world) if row[0] not in locked]
    model_id = add_model(world, learnt)
    with world.app.store.writing() as session:
        session.execute(update(Model).values(split_id=first.id))
    assert "learnt from images" not in said_of(world, first.id)
    second = splits.create_split(world.app.store, who="Ada", project_id=world.project_id, seed=2).id
    with world.app.store.reading() as session:
        assert models_that_learnt(session, second) == [model_id]
    # what was answered as a test image was not learnt from
    with world.app.store.writing() as session:
        session.execute(update(Prediction).values(part="test"))
    assert "learnt from images" not in said_of(world, second)
