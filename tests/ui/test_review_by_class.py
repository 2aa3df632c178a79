"""Review, By class: all classes, one class, one group, without features, and in a blind project."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from cnsapp.bootstrap import App
from cnsapp.services import by_class
from cnsapp.services.label_settings import change_settings
from db.models import Model
from tests.integration.worlds import World, add_model, make_world
from tests.ui.conftest import Screen


@pytest.fixture
def model_id(app: App, model_id: int) -> int:
    """Return the model, made long ago: “just now” in its name must not change while a test runs."""
    with app.store.writing() as session:
        session.get_one(Model, model_id).created_at = datetime(2026, 1, 1, tzinfo=UTC)
    return model_id


def by_class_view(screen: Screen, model_id: int, **more: object) -> Screen:
    return screen.open("review", model=model_id, view="By class", who="Bob", **more)


def test_all_classes_stand_with_their_figures(screen: Screen, world: World, model_id: int) -> None:
    shown = by_class_view(screen, model_id).words
    assert "All classes" in shown and "Project world" in shown and not screen.errors
    assert "taken for colon 1" in shown and "taken for liver 1" in shown
    assert len(re.findall(r"recall 0\.92 \(\d\.\d\d–\d\.\d\d\), n = 12", shown)) == 2  # 11 of 12
    assert "sorted by looks" in shown  # what lacks for typical images
    assert world.class_ids


def test_a_class_without_features_shows_its_figures_and_offers_to_sort(
    screen: Screen, world: World, model_id: int
) -> None:
    liver = world.class_ids[0]
    by_class_view(screen, model_id, **{"class": liver})
    assert "Recall: of those labelled so, found" in screen.words and "0.92" in screen.words
    assert "Least typical" in screen.words  # the model's doubt alone tells these
    assert "Most typical" not in screen.words and not screen.has("class_make")
    assert not screen.errors
    screen.press("class_sort")
    assert not screen.has("class_sort")
    assert screen.test.selectbox(key="class_shown").value == liver


@pytest.mark.parametrize("strange", ["999999", "x", "²"])
def test_a_strange_class_in_the_address_means_all(
    screen: Screen, model_id: int, strange: str
) -> None:
    by_class_view(screen, model_id, **{"class": strange})
    assert "All classes" in screen.words and not screen.errors


def test_a_group_stands_beside_the_rest_with_its_images(
    screen: Screen, world: World, model_id: int
) -> None:
    by_class_view(screen, model_id, sheet="Group", sheet_group="PATIENT 2")
    shown = screen.words
    sheet = by_class.group_sheet(world.app.store, model_id=model_id, group="patient 2")
    assert "Group patient 2" in shown and f"n = {sheet.row.n} images" in shown
    assert "Class by class" in shown and "Recall in the rest" in shown
    for one in sheet.images:
        assert f"image={one.image.id}" in shown  # each leads to Explain
    assert not screen.errors


def test_from_classes_to_groups_and_back(screen: Screen, model_id: int) -> None:
    by_class_view(screen, model_id)
    screen.test.segmented_control(key="class_by").set_value("Group").run()
    assert screen.test.query_params["sheet"] == "Group" and "Group patient" in screen.words
    screen.test.segmented_control(key="class_by").set_value("Class").run()
    assert "sheet" not in screen.test.query_params and "All classes" in screen.words
    assert not screen.errors


def test_the_matrix_is_not_narrowed_to_the_group_of_a_sheet(screen: Screen, model_id: int) -> None:
    screen.open("review", model=model_id, who="Bob", group="patient 1")
    screen.test.segmented_control(key="view").set_value("By class").run()
    screen.test.segmented_control(key="class_by").set_value("Group").run()
    screen.test.selectbox(key="group_shown").set_value("patient 2").run()
    screen.test.segmented_control(key="view").set_value("Matrix").run()
    assert screen.test.selectbox(key="group").value == "patient 1"
    screen.test.segmented_control(key="view").set_value("By class").run()
    assert "Group patient 2" in screen.words and not screen.errors


def test_without_groups_the_view_says_where_groups_come_from(screen: Screen, app: App) -> None:
    plain = make_world(app, {"liver": 12, "colon": 12})
    said = [(i, c, c, 0.9) for c, ids in zip(plain.class_ids, plain.image_ids, strict=False)
            for i in ids]  # fmt: skip
    by_class_view(screen, add_model(plain, said), sheet="Group")
    assert "Groups (patient, slide, animal) come from" in screen.words and not screen.errors


def test_names_come_through_letter_by_letter(screen: Screen, app: App) -> None:
    odd = make_world(app, {'a<b>&"*c*_': 12, "other": 12}, n_groups=2, name="<i>p</i>")
    said = [(i, c, odd.class_ids[0], 0.9)
            for c, ids in zip(odd.class_ids, odd.image_ids, strict=False) for i in ids]  # fmt: skip
    by_class_view(screen, add_model(odd, said), **{"class": odd.class_ids[0]})
    assert "a&lt;b&gt;&amp;&quot;*c*_" in screen.words and "<i>p</i>" not in screen.words
    assert not screen.errors


def test_a_blind_project_tells_nothing(screen: Screen, world: World, model_id: int) -> None:
    change_settings(world.app.store, project_id=world.project_id, blind=True)
    by_class_view(screen, model_id, **{"class": world.class_ids[0]})
    assert "read blind" in screen.words and not screen.errors
    assert "cns-sheet" not in screen.words
