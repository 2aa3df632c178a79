"""Groups that are spelled in two ways, or share a picture, are one where images are held out."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.services.comparing import compare_models
from cnsapp.services.evaluation import evaluate_model
from cnsapp.services.review import confusion
from cnsapp.tasks.suggest import read_labels
from db.models import Image, NearPair
from tests.integration.worlds import World, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    """Return a project whose second class spells its patients otherwise."""
    world = make_world(app, {"liver": 12, "lung": 12}, n_groups=6, side=8)
    with app.store.writing() as session:
        for i in world.image_ids[1]:
            group = session.scalar(select(Image.group_key).where(Image.id == i))
            session.execute(
                update(Image).where(Image.id == i).values(group_key=f" {group} ".upper())
            )
    return world


def groups_of(world: World) -> dict[int, str | None]:
    return {label.image_id: label.group for label in read_labels(world.app.store, 1)[1]}


def test_suggestions_hold_out_a_patient_under_all_its_names(world: World) -> None:
    assert len(set(groups_of(world).values())) == 6


def test_suggestions_hold_out_both_patients_of_a_shared_picture(world: World) -> None:
    a, b = world.image_ids[0][0], world.image_ids[1][1]
    before = groups_of(world)
    assert before[a] != before[b]
    with world.app.store.writing() as session:
        session.add(NearPair(image_a=a, image_b=b, project_id=1, similarity=0.97, answer=""))
    after = groups_of(world)
    assert after[a] == after[b] and len(set(after.values())) == 5


def test_review_counts_the_groups_that_the_evaluation_counts(world: World) -> None:
    said = [
        (i, class_id, class_id, 0.9)
        for class_id, ids in zip(world.class_ids, world.image_ids, strict=False)
        for i in ids
    ]
    model_id = add_model(world, said)
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    store = world.app.store
    now = confusion(store, model_id=model_id, truth="current")
    assert now.n_groups == evaluate_model(store, model_id, truth="current").scores.n_groups == 6


def test_a_comparison_counts_patients_that_share_a_picture_once(world: World) -> None:
    said = [
        (i, class_id, class_id, 0.9)
        for class_id, ids in zip(world.class_ids, world.image_ids, strict=False)
        for i in ids
    ]
    models = [add_model(world, said), add_model(world, said)]
    a, b = world.image_ids[0][0], world.image_ids[1][1]
    store = world.app.store
    assert compare_models(store, model_ids=models).found.n_groups == 6
    with store.writing() as session:
        session.add(NearPair(image_a=a, image_b=b, project_id=1, similarity=0.97, answer=""))
    relabel(world, a, world.class_ids[1])  # a label is news, so it is compared anew
    assert compare_models(store, model_ids=models).found.n_groups == 5
