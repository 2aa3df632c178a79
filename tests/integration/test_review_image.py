"""All facts of one image in one call: label, answer, history, neighbours, what may be pressed."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import insert, update

from cnsapp.bootstrap import App
from cnsapp.errors import NotFoundError
from cnsapp.services import classes, exclusion, notes
from cnsapp.services.review_image import Said, review_image
from db.models import Image, ImageMeta, Prediction
from tests.integration.test_review_list import add_predictions
from tests.integration.worlds import World, make_world, relabel
from tests.looks import index_of


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 3, "lung": 3}, n_groups=2, unlabelled=2)


@pytest.fixture
def model_id(world: World) -> int:
    liver, lung = world.class_ids
    a, b = world.image_ids[:2]
    said = [(a[0], liver, [0.2, 0.8]), (a[1], liver, [0.9, 0.1]), (a[2], liver, [0.7, 0.3])]
    model_id = add_predictions(world, said + [(i, lung, [0.4, 0.6]) for i in b])
    with world.app.store.writing() as session:
        session.execute(update(Prediction).where(Prediction.image_id == b[0]).values(fold=1))
    return model_id


def on_a_circle(degrees: list[float]) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_an_image_with_everything_that_is_known(world: World, model_id: int) -> None:
    store, project = world.app.store, world.project_id
    liver, lung = world.class_ids
    image_id = world.image_ids[0][0]
    act = {"client": "a-browser", "seq": 1, "image_id": image_id}
    acts = [
        {**act, "kind": "note", "text": "smeared"},
        {**act, "seq": 2, "kind": "tagged", "text": "odd"},
    ]
    notes.record(store, project_id=project, who="bob", acts=acts)
    with store.writing() as session:
        meta = {"image_id": image_id, "key": "batch", "project_id": project, "value": "7"}
        session.execute(insert(ImageMeta), [meta])
    found = review_image(store, model_id=model_id, image_id=image_id)
    assert (found.image.id, found.image.status, found.image.group) == (image_id, "ok", "patient 1")
    assert (found.image.tags, found.image.noted) == (("odd",), True)
    label = found.label
    assert (label.state, label.class_id, label.name, label.who) == ("label", liver, "liver", "ann")
    assert label.at is not None and label.source == "import"
    assert [(c.name, p) for c, p in found.probabilities] == [("lung", 0.8), ("liver", 0.2)]
    answer = found.answer
    assert answer is not None and found.part == "fold"
    assert (answer.said, answer.confidence, answer.right) == (lung, 0.8, False)
    assert answer.loss == pytest.approx(-np.log(0.2))
    assert "fold 1" in found.how and "not seen this image" in found.how
    assert [note.text for note in found.notes] == ["smeared"]
    assert found.metadata == [("batch", "7")]
    assert {entry.kind for entry in found.history.entries} == {"label", "note", "tagged"}
    assert found.may == {"relabel", "unsure", "exclude", "note"}
    assert found.neighbours == [] and "not sorted by looks" in found.neighbours_note


def test_a_new_label_is_told_with_its_author_and_the_one_of_the_training(
    world: World, model_id: int
) -> None:
    store, (liver, lung) = world.app.store, world.class_ids
    image_id = world.image_ids[0][0]
    relabel(world, image_id, lung)
    found = review_image(store, model_id=model_id, image_id=image_id)
    assert (found.label.class_id, found.label.who, found.label.source) == (
        lung,
        "reviewer",
        "review",
    )
    assert found.answer is not None
    assert (found.answer.label_then, found.answer.label_now) == (liver, lung)
    assert (found.answer.changed, found.answer.right) == (True, False)
    today = review_image(store, model_id=model_id, image_id=image_id, truth="current")
    assert today.answer is not None and today.answer.right is True
    alone = review_image(store, model_id=model_id, image_id=image_id, only="reviewer")
    assert {entry.who for entry in alone.history.entries} == {"reviewer"}


def test_where_others_are_hidden_nothing_tells_their_labels(world: World, model_id: int) -> None:
    store, project = world.app.store, world.project_id
    (a, b), (liver, lung) = world.image_ids[:2], world.class_ids
    index_of(store, project, on_a_circle([0, 5, 10, 15, 20, 25, 60, 80]))
    note = {"client": "a-browser", "seq": 1, "image_id": a[0], "kind": "tagged", "text": "odd"}
    notes.record(store, project_id=project, who="ann", acts=[note])
    found = review_image(store, model_id=model_id, image_id=a[0], only="bob")
    assert found.label == Said("none", None, None, None, None, None)
    assert (found.image.state, found.image.class_id, found.image.tags) == ("none", None, ())
    answer = found.answer
    assert answer is not None and (answer.said, answer.confidence) == (lung, 0.8)
    assert (answer.label, answer.label_then, answer.label_now) == (None, None, None)
    assert (answer.right, answer.loss, answer.class_id, answer.tags) == (None, None, None, ())
    assert (found.neighbours, found.notes, list(found.history.entries)) == ([], [], [])
    relabel(world, a[0], lung)  # by "reviewer"
    relabel(world, b[0], liver)
    own = review_image(store, model_id=model_id, image_id=a[0], only="reviewer")
    assert (own.label.class_id, own.label.who, own.image.class_id) == (lung, "reviewer", lung)
    assert [(n.image_id, n.class_id) for n in own.neighbours] == [(b[0], liver)]


def test_an_excluded_image_is_shown_and_may_be_restored(world: World, model_id: int) -> None:
    store, image_id = world.app.store, world.image_ids[0][0]
    exclusion.exclude(
        store, project_id=world.project_id, image_ids=[image_id], who="ann", reason="blurred"
    )
    found = review_image(store, model_id=model_id, image_id=image_id)
    assert (found.image.status, found.answer) == ("excluded", None)
    assert found.may == {"restore", "note"}
    assert found.history.entries[0].text == "blurred"


def test_an_image_that_the_model_has_not_judged(world: World, model_id: int) -> None:
    found = review_image(world.app.store, model_id=model_id, image_id=world.image_ids[2][0])
    assert (found.part, found.answer, found.probabilities) == (None, None, [])
    assert "no answer" in found.how
    assert (found.label.state, found.label.name, found.label.who) == ("none", None, None)


def test_what_there_is_not_is_refused(world: World, model_id: int) -> None:
    other = make_world(world.app, {"x": 1}, name="other")
    for image_id in (99_999, other.image_ids[0][0]):
        with pytest.raises(NotFoundError, match=f"no image number {image_id}"):
            review_image(world.app.store, model_id=model_id, image_id=image_id)


def test_neighbours_are_labelled_images_by_likeness_with_what_they_are_worth(
    world: World, model_id: int
) -> None:
    store, project = world.app.store, world.project_id
    (a, b, c), (liver, lung) = world.image_ids[:3], world.class_ids
    # degrees from the image a0: the unlabelled c0 is nearest, then b0, a1 (excluded), b1, a2, b2
    index_of(store, project, on_a_circle([0, 15, 30, 10, 20, 60, 5, 80]))
    exclusion.exclude(store, project_id=project, image_ids=[a[1]], who="ann")
    found = review_image(store, model_id=model_id, image_id=a[0], n_neighbours=3)
    near = found.neighbours
    assert [n.image_id for n in near] == [b[0], b[1], a[2]]
    assert [n.similarity for n in near] == pytest.approx(np.cos(np.radians([10, 20, 30])), abs=1e-5)
    assert [n.class_name for n in near] == ["lung", "lung", "liver"]
    # groups go in turn: a0, a2 and b1 are of patient 1
    assert [n.same_group for n in near] == [False, True, True]
    # b0 was in another fold, so the network that judged a0 had learnt from it
    assert [n.learnt for n in near] == [True, False, False]
    assert "hint, not a second opinion" in found.neighbours_note
    assert c[0] not in [n.image_id for n in near]
    classes.merge_classes(store, class_id=lung, into=liver, who="ann")
    merged = review_image(store, model_id=model_id, image_id=a[0], n_neighbours=1).neighbours
    assert [(n.image_id, n.class_id, n.class_name) for n in merged] == [(b[0], liver, "liver")]


def test_neighbours_without_groups_or_answers_say_that_it_is_not_known(
    world: World, model_id: int
) -> None:
    store, (a, b, c) = world.app.store, world.image_ids[:3]
    index_of(store, world.project_id, on_a_circle([0, 90, 90, 90, 90, 90, 10, 90]))
    relabel(world, c[0], world.class_ids[0])
    with store.writing() as session:
        session.execute(update(Image).where(Image.id == c[0]).values(group_key=None))
        session.execute(
            update(Prediction).where(Prediction.image_id == b[1]).values(part="test", fold=None)
        )
    (near,) = review_image(store, model_id=model_id, image_id=a[0], n_neighbours=1).neighbours
    assert (near.image_id, near.same_group, near.learnt) == (c[0], None, None)
    by_id = {
        n.image_id: n.learnt
        for n in review_image(store, model_id=model_id, image_id=b[1], n_neighbours=9).neighbours
    }
    assert by_id[a[1]] is True  # the whole model, which judged the test set, learnt from all folds
    from_fold = review_image(store, model_id=model_id, image_id=a[1], n_neighbours=9).neighbours
    assert {n.image_id: n.learnt for n in from_fold}[b[1]] is False
    assert review_image(store, model_id=model_id, image_id=a[0], n_neighbours=0).neighbours == []
