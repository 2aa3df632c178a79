"""Models: trust in their files, and what was relabelled since."""

from __future__ import annotations

import pytest

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, NotFoundError
from cnsapp.services.model_standing import rename_model
from cnsapp.services.models import (
    check_model_file,
    current_model,
    get_model,
    labels_changed_since,
    list_models,
)
from tests.integration.worlds import World, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 4, "lung": 4}, unlabelled=2)


def trained(world: World) -> int:
    liver, lung = world.class_ids
    said = [(i, liver, liver, 0.9) for i in world.image_ids[0]]
    said += [(i, lung, lung, 0.8) for i in world.image_ids[1]]
    return add_model(world, said)


def test_models_come_newest_first_with_the_names_of_today(world: World) -> None:
    first, second = trained(world), trained(world)
    assert [m.id for m in list_models(world.app.store, project_id=world.project_id)] == [
        second,
        first,
    ]
    assert current_model(world.app.store, project_id=world.project_id).class_names == [
        "liver",
        "lung",
    ]


def test_a_project_without_a_model_says_what_to_do(world: World) -> None:
    with pytest.raises(NotFoundError, match="no model yet"):
        current_model(world.app.store, project_id=world.project_id)


def test_a_model_of_another_project_is_not_found(world: World) -> None:
    model_id = trained(world)
    with pytest.raises(NotFoundError, match="in this project"):
        get_model(world.app.store, model_id=model_id, project_id=world.project_id + 1)


def test_a_model_gets_another_name_but_no_empty_one(world: World) -> None:
    model_id = trained(world)
    assert rename_model(world.app.store, model_id=model_id, name="  best ").name == "best"
    with pytest.raises(CnsError, match="empty"):
        rename_model(world.app.store, model_id=model_id, name=" ")


def test_a_whole_model_file_passes_and_an_altered_or_missing_one_is_named(world: World) -> None:
    model_id = trained(world)
    file = check_model_file(world.app, model_id=model_id)
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CnsError, match="was altered after training"):
        check_model_file(world.app, model_id=model_id)
    file.unlink()
    with pytest.raises(CnsError, match=r"is missing.*train again"):
        check_model_file(world.app, model_id=model_id)


def test_relabelled_new_and_unlabelled_images_are_counted_apart(world: World) -> None:
    model_id = trained(world)
    store, (liver, lung) = world.app.store, world.class_ids
    assert labels_changed_since(store, model_id=model_id).total == 0
    relabel(world, world.image_ids[0][0], lung)
    relabel(world, world.image_ids[0][1], liver)  # the same label again is no change
    relabel(world, world.image_ids[2][0], liver)
    found = labels_changed_since(store, model_id=model_id)
    assert (found.n_changed, found.n_new, found.n_removed) == (1, 1, 0)
    assert found.image_ids == [world.image_ids[0][0], world.image_ids[2][0]]
