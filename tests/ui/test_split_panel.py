"""The split on the Train page and the locked test set on Review: empty, typical, failing."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.services import splits
from db.models import Model, Prediction, SplitMember
from tests.integration.worlds import World, make_world
from tests.ui.conftest import Screen


def open_panel(screen: Screen, world: World) -> None:
    screen.open("train", who="Bob", project=world.project_id)
    screen.test.session_state["split_panel"] = True
    screen.test.run()


def test_one_click_locks_a_test_set_away(screen: Screen, world: World, app: App) -> None:
    open_panel(screen, world)
    assert "A locked test set is a part of the images" in screen.words
    assert "the images of each of 3 groups" in screen.words
    screen.press("split_make")
    assert not screen.errors
    found = splits.active_split(app.store, project_id=world.project_id)
    assert found is not None and (found.scheme, sum(found.n.values())) == ("by group", 28)
    assert "the test set is locked" in screen.words
    assert "Groups and near-duplicates are kept on one side" in screen.words
    assert "The test images were not looked at yet" in screen.words
    assert "Small in the test set" in screen.words
    assert "liver" in screen.words and "from 1 group" in screen.words
    screen.press("split_off")
    assert splits.active_split(app.store, project_id=world.project_id) is None
    screen.press("split_activate")
    assert splits.active_split(app.store, project_id=world.project_id) is not None
    assert not screen.errors


def test_a_project_of_one_patient_is_told_why_nothing_can_be_locked_away(
    screen: Screen, app: App
) -> None:
    single = make_world(app, {"liver": 4, "colon": 4}, n_groups=1, side=8)
    open_panel(screen, single)
    assert "All images come from one group" in screen.words
    screen.press("split_make")
    assert any("belong to one group" in error for error in screen.errors)


def test_pins_and_looks_are_shown_and_a_wrong_pin_is_said(
    screen: Screen, world: World, app: App
) -> None:
    split = splits.create_split(app.store, project_id=world.project_id, who="Maria")
    with app.store.writing() as session:
        splits.note_use(session, split_id=split.id, who="Maria", purpose="evaluation")
    open_panel(screen, world)
    assert "Looked at once; last" in screen.words and "by Maria" in screen.words
    with app.store.reading() as session:
        locked = session.scalar(
            select(SplitMember.image_id).where(
                SplitMember.split_id == split.id, SplitMember.part == "test"
            )
        )
    screen.test.text_input(key="split_pin_name").set_value(str(locked)).run()
    screen.test.selectbox(key="split_pin_part").set_value("train").run()
    screen.press("split_pin")
    assert any("cannot leave the test set" in error for error in screen.errors)
    screen.test.selectbox(key="split_pin_part").set_value("Where it is").run()
    screen.press("split_pin")
    assert [row[0] for row in splits.list_pinned(app.store, split_id=split.id)] == [locked]


@pytest.fixture
def tested(world: World, model_id: int, app: App) -> int:
    """Return a model that judged its last livers in a locked test set."""
    split = splits.create_split(app.store, project_id=world.project_id, who="Maria")
    with app.store.writing() as session:
        session.execute(
            update(Prediction)
            .where(Prediction.image_id.in_(world.image_ids[0][-4:]))
            .values(part="test", fold=None)
        )
        session.execute(update(Model).where(Model.id == model_id).values(split_id=split.id))
    return model_id


def test_review_says_what_a_look_costs_and_notes_it(
    screen: Screen, world: World, tested: int, app: App
) -> None:
    screen.open("review", model=tested, who="Bob")
    assert "n = 20" in screen.words
    screen.test.segmented_control(key="review_part").set_value("Locked test set").run()
    assert "The locked test set was not looked at yet" in screen.words
    assert "n = 4" not in screen.words
    screen.press("review_look")
    assert not screen.errors
    assert "4 images from" in screen.words and "of the locked test set" in screen.words
    assert "looked at once" in screen.words
    split = splits.active_split(app.store, project_id=world.project_id)
    assert split is not None and split.n_uses == 1
    assert [u.who for u in splits.uses(app.store, split_id=split.id)] == ["Bob"]
    screen.test.run()
    assert splits.count_uses(app.store, split_id=split.id) == 1


def test_review_of_a_model_without_a_test_set_offers_none(screen: Screen, model_id: int) -> None:
    screen.open("review", model=model_id)
    assert not [c for c in screen.test.get("button_group") if "review_part" in str(c.proto.id)]
