"""The pages in a real browser: direct links, the matrix, who labels, and no stranger asked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import LiveApp
from tests.integration.worlds import World, add_model, make_world

pytestmark = pytest.mark.browser


def world_with_model(live: LiveApp) -> tuple[World, int]:
    """Make a project whose model takes one liver for a colon."""
    world = make_world(live.app, {"liver": 6, "colon": 6})
    liver, colon = world.class_ids
    said = [(i, liver, colon if k == 0 else liver, 0.9) for k, i in enumerate(world.image_ids[0])]
    said += [(i, colon, colon, 0.8) for i in world.image_ids[1]]
    return world, add_model(world, said)


def test_a_link_straight_to_a_page_opens_it_inside_the_frame(live_app: LiveApp, page: Any) -> None:
    page.goto(f"{live_app.url}/settings")  # the first page that anybody opens on this server
    page.get_by_role("heading", name="This installation").wait_for()
    assert page.get_by_role("link", name="Review").count() == 1
    assert page.get_by_role("link", name="app", exact=True).count() == 0


def test_a_cell_of_the_matrix_opens_its_images_by_mouse_and_by_keyboard(
    live_app: LiveApp, page: Any
) -> None:
    world_with_model(live_app)
    page.goto(f"{live_app.url}/review?who=Ann")
    page.locator('.matrix button[data-at="1,2"]').click()
    page.get_by_role("heading", name="Labelled liver, predicted as colon").wait_for()
    page.locator(".st-key-review_gallery").get_by_text("1 image", exact=True).wait_for()
    page.locator('.matrix button[data-at="1,2"]').press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Labelled colon, predicted as colon").wait_for()
    page.reload()
    page.get_by_role("heading", name="Labelled colon, predicted as colon").wait_for()


def test_the_browser_remembers_who_labels(live_app: LiveApp, page: Any) -> None:
    make_world(live_app.app, {"liver": 1})
    page.goto(f"{live_app.url}/images")
    name = page.locator(".st-key-frame_who input")
    name.fill("Ann Lee")
    name.press("Enter")
    page.wait_for_url("**who=Ann*")
    page.wait_for_function("localStorage.getItem('cnsapp.annotator') === 'Ann Lee'")
    page.goto(f"{live_app.url}/images")
    page.wait_for_url("**who=Ann*")


def test_no_page_asks_anybody_but_its_own_server(live_app: LiveApp, page: Any) -> None:
    _, model_id = world_with_model(live_app)
    hosts = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    for name in ("", "images", "label", "train", "review", "explain", "predict", "models"):
        page.goto(f"{live_app.url}/{name}?model={model_id}")
        page.get_by_text("Research use only").wait_for()
        page.wait_for_timeout(300)
    assert {host for host in hosts if host} == {urlsplit(live_app.url).netloc}
