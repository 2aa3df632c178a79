"""The matrix of any filter: classes and organ systems, shares, score and interval."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.metrics import balanced_accuracy_score
from sqlalchemy import insert, update

from cnsapp.bootstrap import App
from cnsapp.services import classes
from cnsapp.services.evaluation import evaluate_model
from cnsapp.services.images import ImageFilter
from cnsapp.services.review_filter import ReviewFilter
from cnsapp.services.review_list import list_review
from cnsapp.services.review_matrix import ReviewMatrix, review_matrix
from db.models import Image, NearPair, Prediction
from tests.integration.test_review_list import add_predictions
from tests.integration.worlds import World, make_world, relabel

DIGESTIVE, LYMPHATIC = "Digestive", "Lymphatic"


@pytest.fixture
def world(app: App) -> World:
    """Return colon and liver (digestive), spleen (lymphatic) and skin, which has no parent."""
    world = make_world(app, {"colon": 3, "liver": 2, "spleen": 2, "skin": 2}, n_groups=3)
    for class_id, parent in zip(world.class_ids, (DIGESTIVE, DIGESTIVE, LYMPHATIC), strict=False):
        classes.change_class(app.store, class_id=class_id, who="ann", parent=parent)
    return world


@pytest.fixture
def model_id(world: World) -> int:
    """Return a model that never says skin, and takes a colon for liver."""
    colon, liver, spleen, skin = world.class_ids
    a, b, c, d = world.image_ids[:4]
    return add_predictions(
        world,
        [
            (a[0], colon, [0.9, 0.1, 0.0, 0.0]),
            (a[1], colon, [0.3, 0.4, 0.2, 0.1]),  # liver: of the same system
            (a[2], colon, [0.3, 0.1, 0.6, 0.0]),  # spleen
            (b[0], liver, [0.1, 0.9, 0.0, 0.0]),
            (b[1], liver, [0.2, 0.8, 0.0, 0.0]),
            (c[0], spleen, [0.0, 0.0, 1.0, 0.0]),
            (c[1], spleen, [0.25, 0.3, 0.45, 0.0]),
            (d[0], skin, [0.0, 0.0, 0.9, 0.1]),
            (d[1], skin, [0.5, 0.2, 0.0, 0.3]),
        ],
    )


def matrix(world: World, model_id: int, **wanted: Any) -> ReviewMatrix:
    return review_matrix(world.app.store, model_id=model_id, wanted=ReviewFilter(**wanted))


def test_classes_with_shares_of_rows_and_columns(world: World, model_id: int) -> None:
    found = matrix(world, model_id)
    assert found.keys == world.class_ids
    assert found.names == ["colon", "liver", "spleen", "skin"]
    assert found.counts == [[1, 1, 1, 0], [0, 2, 0, 0], [0, 0, 2, 0], [1, 0, 1, 0]]
    assert found.row_shares[0] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert [row[3] for row in found.column_shares] == [None] * 4  # nothing is called skin
    assert [row[2] for row in found.column_shares] == pytest.approx([1 / 4, 0, 2 / 4, 1 / 4])
    assert (found.n, found.n_wrong, found.accuracy) == (9, 4, pytest.approx(5 / 9))
    true, said = [0] * 3 + [1] * 2 + [2] * 2 + [3] * 2, [0, 1, 2, 1, 1, 2, 2, 2, 0]
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, said))
    assert found.n_groups == 3
    assert found.interval is not None and found.interval[0] <= found.balanced_accuracy


def test_systems_roll_labels_and_answers_up(world: World, model_id: int) -> None:
    found = matrix(world, model_id, level="systems")
    assert found.keys == found.names == [DIGESTIVE, LYMPHATIC, "skin"]
    assert found.counts == [[4, 1, 0], [0, 2, 0], [1, 1, 0]]
    assert found.n_wrong == 3  # a colon taken for liver is right here
    assert found.balanced_accuracy == pytest.approx((4 / 5 + 1 + 0) / 3)
    systems = evaluate_model(world.app.store, model_id).scores.systems
    assert systems is not None and systems.balanced_accuracy == found.balanced_accuracy


def test_a_cell_of_systems_lists_its_images_by_what_the_system_has(
    world: World, model_id: int
) -> None:
    store, (a, _, c, d) = world.app.store, world.image_ids[:4]
    wanted = ReviewFilter(level="systems", label=DIGESTIVE, predicted=LYMPHATIC)
    (item,) = list_review(store, model_id=model_id, wanted=wanted).items
    assert (item.id, item.label, item.said, item.right) == (a[2], DIGESTIVE, LYMPHATIC, False)
    assert item.confidence == pytest.approx(0.6)
    assert item.margin == pytest.approx(0.2)  # 0.6 lymphatic less 0.3 + 0.1 digestive
    wrong = ReviewFilter(level="systems", show="wrong")
    found = list_review(store, model_id=model_id, wanted=ReviewFilter(level="systems"))
    assert found.n == 9
    ids = [i.id for i in list_review(store, model_id=model_id, wanted=wrong, order="image").items]
    assert ids == [a[2], *d]
    (odd,) = [i for i in found.items if i.id == c[1]]  # says spleen, though digestive has more
    assert (odd.said, odd.right) == (LYMPHATIC, True)
    assert odd.confidence == pytest.approx(0.45)


def test_every_cell_opens_as_many_images_as_it_counts(world: World, model_id: int) -> None:
    relabel(world, world.image_ids[0][1], world.class_ids[1])
    for level in ("classes", "systems"):
        for truth in ("trained", "current"):
            found = matrix(world, model_id, level=level, truth=truth)
            for i, label in enumerate(found.keys):
                for j, predicted in enumerate(found.keys):
                    wanted = ReviewFilter(
                        level=level,  # type: ignore[arg-type]
                        truth=truth,  # type: ignore[arg-type]
                        label=label,
                        predicted=predicted,
                    )
                    page = list_review(world.app.store, model_id=model_id, wanted=wanted)
                    assert page.n == found.counts[i][j], (level, truth, label, predicted)


def test_a_label_of_a_class_that_the_model_does_not_know_counts_by_its_system(
    world: World, model_id: int
) -> None:
    store, a = world.app.store, world.image_ids[0]
    stomach = classes.add_class(
        store, project_id=world.project_id, name="stomach", who="ann", parent="digestive"
    ).class_id
    assert stomach is not None
    relabel(world, a[1], stomach)
    today = matrix(world, model_id, truth="current")
    assert (today.n, today.n_elsewhere, today.n_changed) == (8, 1, 1)
    rolled = matrix(world, model_id, truth="current", level="systems")
    assert (rolled.n, rolled.n_elsewhere, rolled.counts[0][0]) == (9, 0, 4)
    brain = classes.add_class(store, project_id=world.project_id, name="brain", who="ann").class_id
    assert brain is not None
    relabel(world, a[0], brain)
    rolled = matrix(world, model_id, truth="current", level="systems")
    assert (rolled.n, rolled.n_elsewhere) == (8, 1)


def test_merged_classes_take_the_system_of_what_they_count_as(world: World, model_id: int) -> None:
    colon, _, spleen, _ = world.class_ids
    classes.merge_classes(world.app.store, class_id=spleen, into=colon, who="ann")
    found = matrix(world, model_id, level="systems")
    assert (found.keys, found.counts) == ([DIGESTIVE, "skin"], [[7, 0], [2, 0]])
    found = matrix(world, model_id)
    assert (found.names, found.counts) == (
        ["colon", "liver", "skin"],
        [[4, 1, 0], [0, 2, 0], [2, 0, 0]],
    )


def test_the_matrix_of_a_filter_has_its_own_score(world: World, model_id: int) -> None:
    found = matrix(world, model_id, images=ImageFilter(text="class0/"))
    assert (found.n, found.counts[0]) == (3, [1, 1, 1, 0])
    assert found.balanced_accuracy == pytest.approx(1 / 3)
    assert matrix(world, model_id, sure=(0.9, None)).n == 4
    nothing = matrix(world, model_id, images=ImageFilter(text="nowhere"))
    assert (nothing.n, nothing.balanced_accuracy, nothing.interval) == (0, None, None)
    assert (nothing.accuracy, nothing.n_groups) == (None, None)
    # a cell and a choice do not narrow the matrix itself
    assert matrix(world, model_id, show="wrong", label=world.class_ids[0]).n == 9


def test_without_groups_images_are_their_own_units(app: App) -> None:
    world = make_world(app, {"colon": 4, "liver": 4})
    colon, liver = world.class_ids
    said = [(i, colon, [0.9, 0.1]) for i in world.image_ids[0]]
    model_id = add_predictions(world, said + [(i, liver, [0.6, 0.4]) for i in world.image_ids[1]])
    found = matrix(world, model_id)
    assert (found.n_groups, found.balanced_accuracy) == (None, 0.5)
    assert found.interval is not None
    with app.store.writing() as session:
        session.execute(update(Image).values(group_key="one"))
        session.execute(update(Prediction).values(part="test"))
    one = matrix(world, model_id, part="test")
    assert (one.n, one.n_groups, one.interval) == (8, 1, None)


def test_near_duplicates_that_are_found_later_are_resampled_together(app: App) -> None:
    world = make_world(app, {"colon": 4, "liver": 4})
    colon, liver = world.class_ids
    (a, *_), (b, *_) = world.image_ids[:2]
    said = [(i, colon, [0.9, 0.1]) for i in world.image_ids[0]]
    model_id = add_predictions(world, said + [(i, liver, [0.4, 0.6]) for i in world.image_ids[1]])
    with app.store.writing() as session:
        session.execute(update(Image).values(group_key=Image.file_name))
    assert matrix(world, model_id).n_groups == 8
    pair = {"image_a": a, "image_b": b, "project_id": world.project_id, "similarity": 0.99}
    with app.store.writing() as session:  # as the job does that looks for them: without an event
        session.execute(insert(NearPair), [pair])
    assert matrix(world, model_id).n_groups == 7
