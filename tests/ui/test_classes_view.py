"""The view of the classes as Streamlit draws it: typical, many classes, nobody named."""

from __future__ import annotations

import pytest

from cnsapp.services import classes
from tests.integration.worlds import World
from tests.ui.conftest import Screen


def test_the_view_lists_the_classes_with_their_counts_and_models(
    screen: Screen, world: World, model_id: int
) -> None:
    assert model_id
    screen.open("label", who="ann", view="Classes")
    assert not screen.errors
    assert [t.value for t in screen.test.text_input if t.label.startswith("Name of")] == [
        "liver",
        "colon",
    ]
    assert screen.primary == []  # the popover is the one that is filled
    assert "12" in screen.words
    classes.rename_class(world.app.store, class_id=world.class_ids[0], name="hepar", who="jon")
    screen.test.run()
    screen.press("classes_undo")
    assert "Taken back: Renamed “liver” to “hepar”." in screen.words


@pytest.mark.usefixtures("world")
def test_nobody_named_is_told_to_choose_a_name(screen: Screen) -> None:
    screen.open("label", view="Classes")
    assert "Choose your name" in screen.words
    screen.press("classes_sort")
    assert "Nobody is named" in screen.words


def test_many_classes_come_in_pages(screen: Screen, world: World) -> None:
    names = [f"class {i:02d}" for i in range(40)]
    classes.add_classes(world.app.store, project_id=world.project_id, classes=names, who="ann")
    screen.open("label", who="ann", view="Classes")
    assert not screen.errors
    assert sum(t.label.startswith("Name of") for t in screen.test.text_input) == 30


def test_the_last_class_can_be_brought_back_where_it_was_deleted(
    screen: Screen, world: World
) -> None:
    for class_id in world.class_ids:
        classes.delete_class(world.app.store, class_id=class_id, who="ann")
    screen.open("label", who="ann", view="Classes")
    assert not screen.errors
    screen.press("classes_undo")
    found = classes.list_classes(world.app.store, project_id=world.project_id)
    assert [c.name for c in found] == ["colon"]
