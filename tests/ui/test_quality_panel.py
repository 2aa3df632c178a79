"""The view Quality of the Images page: nothing yet, problems, and what a click does."""

from __future__ import annotations

import pytest

from cnsapp.bootstrap import App
from cnsapp.services import images, quality
from cnsapp.services.quality_scan import QualityRow, keep_measures
from db.models import ImageFlag, NearPair
from tests.integration.worlds import World
from tests.ui.conftest import Screen

MEASURES = {
    "focus": 0.3, "contrast": 30.0, "empty": 0.0, "over": 0.0, "under": 0.0, "lightness": 60.0,
    "green_red": 20.0, "blue_yellow": -10.0, "spread": 15.0,
}  # fmt: skip


@pytest.fixture
def looked_at(app: App, world: World) -> World:
    """Return a project with one pair, one blurred image and everything measured."""
    ids = [i for same in world.image_ids for i in same]
    rows = [QualityRow(i, "", MEASURES, None) for i in ids]
    keep_measures(app.store, project_id=world.project_id, rows=rows)
    with app.store.writing() as session:
        session.add(
            NearPair(image_a=ids[0], image_b=ids[1], project_id=world.project_id, similarity=0.98)
        )
        session.add(
            ImageFlag(project_id=world.project_id, kind="blurred", image_id=ids[2], score=4.0)
        )
    return world


def open_quality(screen: Screen) -> Screen:
    screen.open("images", who="Bob")
    screen.test.session_state["images_tab"] = "Quality"
    screen.test.run()
    return screen


def test_before_anything_was_looked_at_the_view_says_what_it_is_for(
    screen: Screen, world: World
) -> None:
    open_quality(screen)
    assert "looked for in the background" in screen.words
    assert "28 images not looked at yet" in screen.words
    assert not screen.errors
    screen.press("quality_scan")
    assert not screen.has("quality_scan")  # it waits for the worker now
    assert world.project_id


def test_problems_are_listed_with_their_number_and_why(screen: Screen, looked_at: World) -> None:
    open_quality(screen)
    assert "1 pair" in screen.words and "splits keep them on one side" in screen.words
    assert "Looked for and not found: exact duplicates" in screen.words
    assert screen.has("quality_look_near") and not screen.has("quality_look_exact")
    assert not screen.errors and looked_at.project_id


def test_keeping_one_of_a_pair_and_undoing_it(app: App, screen: Screen, looked_at: World) -> None:
    a, b = looked_at.image_ids[0][:2]
    open_quality(screen).press("quality_look_near")
    assert "98.0 % alike" in screen.words
    screen.press(f"keep_{a}_of_{a}_{b}")
    assert "is excluded" in screen.words and "None left" in screen.words
    assert images.get_image(app.store, image_id=b).status == "excluded"
    screen.press("quality_undo")
    assert images.get_image(app.store, image_id=b).status == "ok"
    assert "98.0 % alike" in screen.words
    assert not screen.errors


def test_flagged_images_are_excluded_and_said_to_be(
    app: App, screen: Screen, looked_at: World
) -> None:
    soft = looked_at.image_ids[0][2]
    open_quality(screen).press("quality_look_blurred")
    screen.press("quality_exclude")
    assert images.get_image(app.store, image_id=soft).status == "excluded"
    screen.press("quality_back")
    assert "1 image excluded" in screen.words
    assert quality.overview(app.store, project_id=looked_at.project_id).counts["blurred"] == 0
    assert not screen.errors
