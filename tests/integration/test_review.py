"""Review: counts, cells, and the labels that changed since."""

from __future__ import annotations

import pytest

from cnsapp.bootstrap import App
from cnsapp.services.classes import rename_class
from cnsapp.services.review import cell_images, confusion
from tests.integration.worlds import World, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 4, "lung": 4})


@pytest.fixture
def model_id(world: World) -> int:
    liver, lung = world.class_ids
    a, b = world.image_ids[0], world.image_ids[1]
    said = [(a[0], liver, liver, 0.9), (a[1], liver, lung, 0.6), (a[2], liver, lung, 0.95)]
    said += [(a[3], liver, liver, 0.7)] + [(i, lung, lung, 0.8) for i in b]
    return add_model(world, said)


def test_the_matrix_counts_label_against_prediction(world: World, model_id: int) -> None:
    found = confusion(world.app.store, model_id=model_id)
    assert found.counts == [[2, 2], [0, 4]]
    assert (found.n, found.n_wrong, found.n_changed) == (8, 2, 0)
    assert found.names == ["liver", "lung"]
    assert found.balanced_accuracy == 0.75
    assert found.balanced_accuracy_interval == (0.6, 0.9)


def test_a_cell_opens_most_confidently_wrong_first(world: World, model_id: int) -> None:
    liver, lung = world.class_ids
    items = cell_images(world.app.store, model_id=model_id, true_class=liver, predicted_class=lung)
    assert [i.id for i in items] == [world.image_ids[0][2], world.image_ids[0][1]]
    assert items[0].confidence == 0.95
    assert (items[0].label_then, items[0].predicted_class_id) == (liver, lung)
    turned = cell_images(
        world.app.store, model_id=model_id, true_class=liver, predicted_class=lung, order="unsure"
    )
    assert [i.id for i in turned] == [i.id for i in reversed(items)]


@pytest.mark.parametrize("order", ["confidence", "unsure"])
def test_pages_go_on_where_the_last_one_ended(world: World, model_id: int, order: str) -> None:
    whole = cell_images(world.app.store, model_id=model_id, order=order)  # type: ignore[arg-type]
    paged, after = [], None
    while page := cell_images(
        world.app.store,
        model_id=model_id,
        order=order,  # type: ignore[arg-type]
        after=after,
        limit=3,
    ):
        paged += page
        after = page[-1].cursor
    assert [i.id for i in paged] == [i.id for i in whole]
    assert len(paged) == 8


def test_a_relabelled_image_is_marked_and_scored_anew(world: World, model_id: int) -> None:
    _, lung = world.class_ids
    relabel(world, world.image_ids[0][2], lung)
    then = confusion(world.app.store, model_id=model_id)
    assert then.counts == [[2, 2], [0, 4]] and then.n_changed == 1
    now = confusion(world.app.store, model_id=model_id, truth="current")
    assert now.counts == [[2, 1], [0, 5]]
    assert now.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert [c["n"] for c in now.per_class] == [3, 5]
    assert [c["name"] for c in now.per_class] == ["liver", "lung"]
    changed = cell_images(world.app.store, model_id=model_id, only="changed")
    assert [(i.id, i.changed, i.label_now) for i in changed] == [
        (world.image_ids[0][2], True, lung)
    ]


def test_scores_of_today_call_a_renamed_class_by_its_new_name(world: World, model_id: int) -> None:
    relabel(world, world.image_ids[0][1], world.class_ids[1])
    confusion(world.app.store, model_id=model_id, truth="current")
    rename_class(world.app.store, class_id=world.class_ids[0], name="hepar", who="ann")
    found = confusion(world.app.store, model_id=model_id, truth="current")
    assert found.names == ["hepar", "lung"]


def test_only_wrong_ones_can_be_asked_for(world: World, model_id: int) -> None:
    wrong = cell_images(world.app.store, model_id=model_id, only="wrong")
    assert {i.id for i in wrong} == set(world.image_ids[0][1:3])


def test_intervals_are_drawn_by_group_where_there_are_groups(app: App) -> None:
    world = make_world(app, {"liver": 6, "lung": 6}, n_groups=3)
    liver, lung = world.class_ids
    said = [(i, liver, liver, 0.9) for i in world.image_ids[0]]
    said += [(i, lung, lung if k else liver, 0.9) for k, i in enumerate(world.image_ids[1])]
    model_id = add_model(world, said)
    relabel(world, world.image_ids[0][0], lung)
    now = confusion(app.store, model_id=model_id, truth="current")
    assert now.n_groups == 3
    assert now.balanced_accuracy_interval is not None
