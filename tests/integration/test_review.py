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


# --- held-out folds and the locked test set ---


@pytest.fixture
def with_test(world: World) -> int:
    """Return a model whose answers for two of the lungs, both wrong, are of a locked test set."""
    from sqlalchemy import update

    from cnsapp.services.splits import create_split
    from db.models import Model, Prediction

    liver, lung = world.class_ids
    a, b = world.image_ids[0], world.image_ids[1]
    said = [(i, liver, liver, 0.9) for i in a] + [(i, lung, lung, 0.8) for i in b[:2]]
    model_id = add_model(world, said + [(i, lung, liver, 0.99) for i in b[2:]])
    split = create_split(world.app.store, project_id=world.project_id, who="Maria")
    with world.app.store.writing() as session:
        session.execute(
            update(Prediction).where(Prediction.image_id.in_(b[2:])).values(part="test", fold=None)
        )
        session.execute(update(Model).where(Model.id == model_id).values(split_id=split.id))
    return model_id


def test_figures_of_folds_and_of_the_test_set_never_mix(world: World, with_test: int) -> None:
    store = world.app.store
    folds = confusion(store, model_id=with_test)
    assert (folds.counts, folds.n, folds.n_wrong) == ([[4, 0], [0, 2]], 6, 0)
    test = confusion(store, model_id=with_test, part="test")
    assert (test.counts, test.n, test.n_wrong) == ([[0, 0], [2, 0]], 2, 2)
    assert (test.scheme, test.accuracy) == ("locked test set", 0.0)
    today = confusion(store, model_id=with_test, part="test", truth="current")
    assert (today.n, today.n_elsewhere) == (2, 0)
    shown = [
        {i.id for i in cell_images(store, model_id=with_test, part=part)}
        for part in ("fold", "test")
    ]
    assert shown == [{*world.image_ids[0], *world.image_ids[1][:2]}, {*world.image_ids[1][2:]}]
    assert cell_images(store, model_id=with_test, only="wrong") == []
    assert len(cell_images(store, model_id=with_test, only="wrong", part="test")) == 2


def test_a_label_of_the_test_set_that_changed_is_no_change_of_the_folds(
    world: World, with_test: int
) -> None:
    store, image_id = world.app.store, world.image_ids[1][2]
    relabel(world, image_id, world.class_ids[0])
    assert confusion(store, model_id=with_test).n_changed == 0
    found = confusion(store, model_id=with_test, part="test", truth="current")
    assert (found.n_changed, found.counts) == (1, [[1, 0], [1, 0]])


def test_a_model_without_test_answers_offers_no_test_set(
    world: World, model_id: int, with_test: int
) -> None:
    from cnsapp.services import review

    assert review.test_split(world.app.store, model_id=model_id) is None
    assert review.test_split(world.app.store, model_id=with_test) == 1


def test_what_is_chosen_by_a_model_leaves_the_test_set_out(world: World, with_test: int) -> None:
    """Filters by fold, the map of looks and Explain: no answer of the test set is taken for one."""
    from cnsapp.services import explaining, images
    from cnsapp.services.filtering import NOT_LEARNT
    from cnsapp.services.images import ImageFilter
    from cnsapp.services.looks_points import _statement

    store, locked = world.app.store, world.image_ids[1][2:]

    def listed(fold: int) -> set[int]:
        wanted = ImageFilter(fold=(with_test, fold))
        page = images.list_images(store, project_id=world.project_id, filter=wanted)
        return {item.id for item in page.items}

    assert listed(NOT_LEARNT) == set(locked)
    assert not listed(0) & set(locked)
    with store.reading() as session:
        colours = dict(session.execute(_statement(session, world.project_id, "predicted")).all())
    assert {colours[i] for i in locked} == {None}
    assert None not in {colours[i] for i in world.image_ids[0]}
    told = explaining.probabilities(store, model_id=with_test, image_id=locked[0])
    assert told is not None and str(told).count("locked test set") == 1
