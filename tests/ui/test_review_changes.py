"""Review, what changed: two models image by image, labels since one, and why there is neither."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.services.changes import comparable_models, outcome_images, two_models
from cnsapp.services.label_changes import LabelState, labels_since_model
from cnsapp.services.label_settings import change_settings
from cnsapp.services.labels import record_events
from cnsapp.services.models import get_model
from cnsapp.ui import review_changes_labels, review_changes_models
from cnsapp.ui.labeller import Badge
from db.models import Model
from tests.integration.worlds import World, add_model, relabel
from tests.ui.conftest import Screen

MODELS = {"view": "What changed"}
LABELS = {"view": "What changed", "changed": "Labels since this model"}


@pytest.fixture
def newer_id(world: World, model_id: int) -> int:
    """Return a second model: it mends liver 0, still has colon 0 wrong, and breaks liver 1 and 2.

    All others it has right, as the first model has.
    """
    liver, colon = world.class_ids
    a, b = world.image_ids[:2]
    said: list[Any] = [
        (i, liver, colon if k in (1, 2) else liver, 0.95 - 0.01 * k) for k, i in enumerate(a)
    ]
    said += [(i, colon, liver if k == 0 else colon, 0.7) for k, i in enumerate(b)]
    made = add_model(world, said)
    with world.app.store.writing() as session:
        session.execute(update(Model).where(Model.id == model_id).values(name="first"))
        session.execute(update(Model).where(Model.id == made).values(name="second"))
    return made


def test_one_model_alone_says_what_the_view_is_for(screen: Screen, model_id: int) -> None:
    screen.open("review", model=model_id, **MODELS)
    assert screen.errors == []
    assert "takes two models, and this project has one" in screen.words


def test_two_models_are_counted_with_the_one_before_as_default(
    screen: Screen, model_id: int, newer_id: int
) -> None:
    screen.open("review", model=newer_id, **MODELS)
    assert screen.errors == []
    assert screen.test.selectbox(key=f"changes_other_{newer_id}").value == model_id
    assert "From **first** to **second**, on 24 images from 3 groups" in screen.words
    outcome = screen.test.segmented_control(key="changes_outcome")
    assert outcome.options == ["Fixed (1)", "Broken (2)", "Still wrong (1)", "Both right (20)"]
    assert "No difference shown: “second” has −0.042 in balanced accuracy" in screen.words
    outcome.set_value("broken").run()
    assert screen.errors == []


def test_from_the_older_model_the_sentence_still_goes_forward(
    screen: Screen, model_id: int, newer_id: int
) -> None:
    screen.open("review", model=model_id, **MODELS)
    assert screen.test.selectbox(key=f"changes_other_{model_id}").value == newer_id
    assert "From **first** to **second**" in screen.words


def test_each_image_tells_what_both_said(world: World, model_id: int, newer_id: int) -> None:
    store = world.app.store
    found = two_models(store, older=model_id, newer=newer_id)
    names = {c.class_id: c.name for c in found.comparison.classes}
    (fixed,) = outcome_images(store, found, outcome="fixed").items
    assert fixed.item.id == world.image_ids[0][0]
    badge = review_changes_models.badge(fixed, names)
    assert badge == Badge("colon 0.90 → liver 0.95", "plain")
    broken = outcome_images(store, found, outcome="broken").items[0]
    assert review_changes_models.badge(broken, names).tone == "wrong"


def test_a_model_without_answers_cannot_be_compared_and_the_view_says_so(
    screen: Screen, world: World, model_id: int
) -> None:
    empty = add_model(world, [])
    store = world.app.store
    assert comparable_models(store, model=get_model(store, model_id=empty)) == []
    assert comparable_models(store, model=get_model(store, model_id=model_id)) == []
    screen.open("review", model=model_id, **MODELS)
    assert "The other model cannot be compared with this one" in screen.words
    assert screen.errors == []


def test_models_of_different_images_cannot_be_compared(screen: Screen, world: World) -> None:
    liver, colon = world.class_ids
    a, b = world.image_ids[:2]
    add_model(world, [(i, liver, liver, 0.9) for i in a])
    other = add_model(world, [(i, colon, colon, 0.9) for i in b])
    screen.open("review", model=other, **MODELS)
    assert "These two cannot be compared." in screen.words
    assert "No image was judged out of fold by all of these models" in screen.words
    assert screen.errors == []


def test_changed_labels_are_counted_by_kind_and_listed_by_move(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    liver, colon = world.class_ids
    for image_id in world.image_ids[0][:2]:
        relabel(world, image_id, colon)
    relabel(world, world.image_ids[2][0], liver)  # had no label
    sent = {
        "client": "maria-one", "seq": 1, "image_id": world.image_ids[1][5], "kind": "unsure",
        "source": "review", "action": "a",
    }  # fmt: skip
    # Ann labelled it: she is who becomes unsure of it
    record_events(app.store, project_id=world.project_id, annotator="ann", events=[sent])
    screen.open("review", model=model_id, **LABELS)
    assert screen.errors == []
    said = "Labels changed since this model: 2 changed, 1 new, 1 removed"
    assert screen.words.count("Labels changed since this model") == 1 and said in screen.words
    moves = screen.test.selectbox(key="changes_move")
    assert moves.options[:2] == ["All changes: 4", "liver → colon: 2"]
    assert sorted(moves.options[2:]) == ["colon → unsure: 1", "no label → liver: 1"]
    moves.select_index(1).run()
    assert screen.errors == []
    screen.test.selectbox(key="changes_who").select("ann").run()
    assert screen.errors == []
    assert screen.has("changes_train")
    newest = labels_since_model(app.store, model_id=model_id).changes[0]
    assert review_changes_labels.badge(newest) == Badge("was colon · ann", "changed")


def test_what_images_are_called_is_said_in_words() -> None:
    assert review_changes_labels.called(LabelState("label", 1, "liver")) == "liver"
    assert review_changes_labels.called(LabelState("none", None, None)) == "no label"
    assert review_changes_labels.called(LabelState("skip", None, None)) == "skipped"


def test_without_a_change_the_view_says_what_it_will_list(screen: Screen, model_id: int) -> None:
    screen.open("review", model=model_id, **LABELS)
    assert "No label changed since this model was trained." in screen.words
    assert screen.errors == [] and not screen.has("changes_train")


def test_a_blind_project_is_told_why_there_is_nothing(
    app: App, screen: Screen, world: World, newer_id: int
) -> None:
    change_settings(app.store, project_id=world.project_id, blind=True)
    for asked in (MODELS, LABELS):
        screen.open("review", model=newer_id, **asked)
        assert "not shown in a project that is labelled blindly" in screen.words
        assert "Fixed" not in screen.words
