"""A class sheet in a real browser: its images and maps, on the screen and on one sheet of paper."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from cnsapp.domain.map_methods import DEFAULT_METHOD
from cnsapp.domain.maps import legend
from cnsapp.services import average_maps
from cnsapp.services.images import get_image
from cnsapp.services.map_files import picture_path, write_facts
from cnsapp.tasks.maps import as_levels, in_colour, save_whole, scale_colours
from tests.browser.conftest import LiveApp
from tests.browser.visitor import Visitor
from tests.integration.worlds import World, add_model, make_world
from tests.looks import index_of

pytestmark = pytest.mark.browser

NOTES = "window.print = () => { window.printed = document.title; }"


@pytest.fixture
def world(live_app: LiveApp) -> World:
    """Return two classes of 12 images, sorted by looks."""
    made = make_world(live_app.app, {"liver & <b>bile</b>": 12, "colon": 12}, n_groups=4, side=60)
    rng = np.random.default_rng(1)
    rows = np.eye(8)[np.repeat([0, 1], 12)] + 0.2 * rng.normal(size=(24, 8))
    index_of(live_app.store, made.project_id, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return made


@pytest.fixture
def model_id(world: World) -> int:
    """Return a model that is wrong once in the first class."""
    liver, colon = world.class_ids
    said = [(i, liver, colon if k == 0 else liver, 0.9) for k, i in enumerate(world.image_ids[0])]
    return add_model(world, said + [(i, colon, colon, 0.8) for i in world.image_ids[1]])


def make_maps(world: World, model_id: int) -> None:
    """Write maps of the first class as the worker does: all of them at the border alone."""
    app, liver = world.app, world.class_ids[0]
    heat = np.ones((60, 60), np.float32)
    heat[6:54, 6:54] = 0
    found = average_maps.class_maps(
        app, model_id=model_id, class_id=liver, image_ids=world.image_ids[0]
    )
    for one in found.maps:
        levels = as_levels(heat, (60, 60))
        save_whole(levels, picture_path(app.store, one.key, "levels"))
        save_whole(in_colour(levels), picture_path(app.store, one.key))
        facts = {
            "method": DEFAULT_METHOD, "class_ids": [], "model_sha256": "x", "sign": "positive",
            "legend": legend("positive", "liver") | {"colours": scale_colours("positive")},
            "empty": False,
        }  # fmt: skip
        write_facts(app.store, one.key, facts)


def n_pages(pdf: bytes) -> int:
    """Return how many pages a PDF says it has."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_a_class_fits_on_one_sheet_without_what_can_be_pressed(
    live_app: LiveApp, page: Any, world: World, model_id: int
) -> None:
    make_maps(world, model_id)
    visitor = Visitor(live_app, page)
    page.add_init_script(NOTES)
    page.goto(
        f"{live_app.url}/review?project={world.project_id}&who=maria&view=By+class"
        f"&model={model_id}&class={world.class_ids[0]}"
    )
    page.locator(".cns-average img").first.wait_for()
    visitor.settled()
    sheet = page.locator(".cns-sheet").first
    assert "liver & <b>bile</b>" in sheet.inner_text() and "Project world" in sheet.inner_text()
    assert page.locator(".cns-cell img[src^='/img/map/']").count() == 11  # those called rightly
    shares = page.locator(".cns-average table").inner_text()
    assert "1.00" in shares and "0.36" in shares and "11 maps, 4 groups" in shares
    assert "scale bars" in page.locator(".cns-average").inner_text()  # what the border may mean
    page.wait_for_function(
        "[...document.querySelectorAll('.cns-sheet img')].every((i) => i.naturalWidth > 0)"
    )
    visitor.no_traceback()
    assert not visitor.elsewhere

    button = page.get_by_role("button", name="Print this page")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("window.printed !== undefined")
    assert page.evaluate("window.printed") == "world - liver & <b>bile</b> - quick 1"

    page.emulate_media(media="print")
    for gone in ("[data-testid=stSidebar]", ".st-key-view", ".st-key-class_choice", "h1"):
        assert not page.locator(gone).first.is_visible(), gone
    assert not button.is_visible() and not page.get_by_text("Correct labels").first.is_visible()
    assert sheet.is_visible() and page.locator(".cns-average").is_visible()
    portrait, landscape = page.pdf(format="A4"), page.pdf(format="A4", landscape=True)
    assert portrait.startswith(b"%PDF") and n_pages(portrait) == 1
    assert n_pages(landscape) <= 2

    page.emulate_media(media="screen")
    page.locator(".cns-cell a").first.click()
    page.get_by_role("heading", name="Explain", exact=True).first.wait_for()
    first = re.search(r"image=(\d+)", page.url)
    assert first is not None
    assert get_image(live_app.store, image_id=int(first[1])).class_id == world.class_ids[0]


def test_paper_is_white_in_the_dark_theme_too(
    live_app: LiveApp, browser: Any, world: World, model_id: int
) -> None:
    context = browser.new_context(color_scheme="dark")
    context.set_default_timeout(60_000)  # only ends a wait in vain
    page = context.new_page()
    page.goto(f"{live_app.url}/review?project={world.project_id}&view=By+class&model={model_id}")
    page.locator(".cns-class").nth(1).wait_for()
    ground = "getComputedStyle(document.querySelector('.stApp')).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.cns-sheet b')).color"
    assert page.evaluate(ground) != "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.evaluate(ink) == "rgb(17, 17, 17)"
    assert n_pages(page.pdf(format="A4")) == 1
    context.close()
