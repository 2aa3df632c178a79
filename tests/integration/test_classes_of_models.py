"""Models made before their classes were renamed, merged or deleted still read right."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from cnsapp.bootstrap import App
from cnsapp.services import classes
from cnsapp.services.explaining import map_probabilities
from cnsapp.services.models import get_model, labels_changed_since
from cnsapp.services.review import cell_images, class_names, confusion
from cnsapp.tasks.predict import _today, columns_of
from db.models import Model
from tests.integration.worlds import World, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 4, "lung": 4, "colon": 4}, n_groups=3)


@pytest.fixture
def model_id(world: World) -> int:
    """Return a model that takes a liver for lung, a lung for colon and a colon for liver."""
    liver, lung, colon = world.class_ids
    wrong = {liver: lung, lung: colon, colon: liver}
    said = [
        (i, label, wrong[label] if k == 0 else label, 0.9 - 0.01 * k)
        for label, ids in zip(world.class_ids, world.image_ids, strict=False)
        for k, i in enumerate(ids)
    ]
    made = add_model(world, said)
    with world.app.store.writing() as session:
        model = session.get_one(Model, made)
        names = zip(world.class_ids, ("liver", "lung", "colon"), strict=True)
        model.metrics = {
            **model.metrics,
            "per_class": [{"class_id": i, "name": name} for i, name in names],
        }
    return made


def undo(world: World) -> None:
    classes.undo_class_change(world.app.store, project_id=world.project_id, who="ann")


def test_a_renamed_class_shows_its_name_of_today_and_tells_the_old_one(
    world: World, model_id: int
) -> None:
    store = world.app.store
    assert get_model(store, model_id=model_id).told == []
    classes.rename_class(store, class_id=world.class_ids[0], name="hepar", who="ann")
    model = get_model(store, model_id=model_id)
    assert model.class_names == ["hepar", "lung", "colon"]
    assert model.told == ["“liver” is called “hepar” since this model was trained."]
    assert columns_of(model)[-3:] == ["p_hepar", "p_lung", "p_colon"]
    undo(world)
    assert get_model(store, model_id=model_id).told == []


def test_predictions_and_labels_of_a_merged_class_count_as_the_other(
    world: World, model_id: int
) -> None:
    store, (liver, lung, colon) = world.app.store, world.class_ids
    before = confusion(store, model_id=model_id)
    assert before.counts == [[3, 1, 0], [0, 3, 1], [1, 0, 3]]
    classes.merge_classes(store, class_id=colon, into=liver, who="ann")
    model = get_model(store, model_id=model_id)
    assert model.class_names == ["liver", "lung", "colon (now liver)"]
    (told,) = model.told
    assert "“colon” was merged into “liver”" in told and "counts as “liver”" in told
    for truth in ("trained", "current"):
        now = confusion(store, model_id=model_id, truth=truth)  # type: ignore[arg-type]
        assert (now.class_ids, now.names) == ([liver, lung], ["liver", "lung"])
        assert now.counts == [[7, 1], [1, 3]]
        assert (now.n, now.n_wrong, now.n_changed, now.n_elsewhere) == (12, 2, 0, 0)
        true, said = [0] * 8 + [1] * 4, [1] + [0] * 7 + [0] + [1] * 3
        assert now.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, said))
        assert [row["n"] for row in now.per_class] == [8, 4]
    items = cell_images(store, model_id=model_id, true_class=lung, predicted_class=liver)
    assert [(i.id, i.predicted_class_id) for i in items] == [(world.image_ids[1][0], liver)]
    wrong = cell_images(store, model_id=model_id, only="wrong")
    assert {i.id for i in wrong} == {world.image_ids[0][0], world.image_ids[1][0]}
    assert not any(i.changed for i in cell_images(store, model_id=model_id))
    assert labels_changed_since(store, model_id=model_id).total == 0
    undo(world)
    assert confusion(store, model_id=model_id) == before


def test_a_label_changed_after_a_merge_is_still_found(world: World, model_id: int) -> None:
    store, (liver, lung, colon) = world.app.store, world.class_ids
    classes.merge_classes(store, class_id=colon, into=liver, who="ann")
    relabel(world, world.image_ids[2][1], liver)  # what it counts as already
    assert labels_changed_since(store, model_id=model_id).total == 0
    relabel(world, world.image_ids[2][1], lung)
    assert labels_changed_since(store, model_id=model_id).n_changed == 1
    now = confusion(store, model_id=model_id, truth="current")
    assert now.counts == [[6, 1], [2, 3]] and now.n_changed == 1


def test_a_class_merged_into_one_that_the_model_does_not_know_is_called_so(
    world: World, model_id: int
) -> None:
    store = world.app.store
    gut = classes.add_class(store, project_id=world.project_id, name="gut", who="ann").class_id
    assert gut is not None
    classes.merge_classes(store, class_id=world.class_ids[2], into=gut, who="ann")
    now = confusion(store, model_id=model_id)
    assert (now.names, now.class_ids) == (["liver", "lung", "gut"], [*world.class_ids[:2], gut])
    assert now.counts == [[3, 1, 0], [0, 3, 1], [1, 0, 3]]
    assert columns_of(get_model(store, model_id=model_id))[-1] == "p_gut"


def test_a_deleted_class_is_shown_as_deleted(world: World, model_id: int) -> None:
    store, (_, lung, colon) = world.app.store, world.class_ids
    classes.delete_class(store, class_id=colon, who="ann")
    model = get_model(store, model_id=model_id)
    assert model.class_names == ["liver", "lung", "colon (deleted)"]
    assert "“colon” was deleted" in model.told[0]
    assert class_names(store, model_id=model_id)[colon] == "colon (deleted)"
    then = confusion(store, model_id=model_id)
    assert then.counts == [[3, 1, 0], [0, 3, 1], [1, 0, 3]]
    assert then.n_changed == 0
    relabel(world, world.image_ids[0][1], lung)
    now = confusion(store, model_id=model_id, truth="current")
    assert now.counts == [[2, 1, 0], [1, 3, 1], [0, 0, 0]]
    assert now.n_elsewhere == 4
    assert not any(i.changed for i in cell_images(store, model_id=model_id, true_class=colon))
    classes.add_class(store, project_id=world.project_id, name="colon", who="ann")  # another one
    assert get_model(store, model_id=model_id).class_names[2] == "colon (deleted)"


def test_tables_and_maps_add_up_what_counts_as_one_class(world: World, model_id: int) -> None:
    store, (liver, _, colon) = world.app.store, world.class_ids
    classes.merge_classes(store, class_id=colon, into=liver, who="ann")
    model = get_model(store, model_id=model_id)
    assert columns_of(model)[-2:] == ["p_liver", "p_lung"]
    assert _today(np.array([0.3, 0.4, 0.3]), model).tolist() == pytest.approx([0.6, 0.4])
    found = map_probabilities(store, model_id=model_id, facts={"probabilities": [0.3, 0.4, 0.3]})
    assert found is not None
    assert [(c.name, round(p, 6)) for c, p in found.values] == [("liver", 0.6), ("lung", 0.4)]
