"""Review's matrix in a real browser: cell, gallery, correction, and links that bring all back."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from cnsapp.services import metadata
from tests.browser.conftest import LiveApp
from tests.browser.visitor import PATIENCE, Visitor, wait_for
from tests.integration.worlds import World, add_model, make_world

pytestmark = pytest.mark.browser
SOON = 10_000 * PATIENCE  # ms; only ends a wait in vain
CHANGED = "SELECT count(*) FROM label_event WHERE source = 'review'"


def world_with_model(live: LiveApp) -> tuple[World, int]:
    """Make a project of two classes whose model takes three livers for colons."""
    world = make_world(live.app, {"liver": 6, "colon": 6}, n_groups=2)
    liver, colon = world.class_ids
    said = [
        (i, liver, colon if k < 3 else liver, 0.9 - k / 100)
        for k, i in enumerate(world.image_ids[0])
    ]
    said += [(i, colon, colon, 0.8) for i in world.image_ids[1]]
    return world, add_model(world, said)


def cell(page: Any, row: int, column: int) -> Any:
    """Return a cell of the matrix; places count from 1."""
    return page.locator(f'.matrix button[data-at="{row},{column}"]')


def pictures(page: Any) -> Any:
    return page.locator(".st-key-review_gallery .cells .cell")


def test_a_cell_its_images_a_correction_and_the_matrix_by_keys_alone(
    live_app: LiveApp, page: Any
) -> None:
    world_with_model(live_app)
    visitor = Visitor(live_app, page)
    page.goto(f"{live_app.url}/review?who=Ann&review_truth=Labels+of+today")
    wrong = cell(page, 1, 2)
    wrong.wait_for()
    cell(page, 1, 1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Labelled liver, predicted as colon").wait_for()
    expect(pictures(page)).to_have_count(3, timeout=SOON)
    expect(wrong).to_be_focused()
    expect(wrong).to_have_attribute("aria-pressed", "true", timeout=SOON)
    page.keyboard.press("Enter")  # once more: to the images
    gallery = page.locator(".st-key-review_gallery .cells")
    expect(gallery).to_be_focused(timeout=SOON)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("2")
    wait_for(lambda: visitor.count(CHANGED) == 1, 10, "the correction is stored")
    expect(wrong).to_have_text("2", timeout=SOON)
    expect(cell(page, 2, 2)).to_have_text("7", timeout=SOON)
    # nobody is thrown out of the list, nor out of the pictures, while correcting
    expect(pictures(page)).to_have_count(3)
    expect(gallery).to_be_focused()
    page.get_by_text("1 image has left this list since it was opened.").wait_for()
    page.keyboard.press("2")  # goes on with the third
    wait_for(lambda: visitor.count(CHANGED) == 2, 10, "the second correction is stored")
    expect(wrong).to_have_text("1", timeout=SOON)
    page.keyboard.press("u")
    expect(wrong).to_have_text("2", timeout=SOON)
    visitor.press_button("review_anew")
    expect(pictures(page)).to_have_count(2, timeout=SOON)
    visitor.no_traceback()


def test_at_training_the_matrix_stands_still_and_offers_the_labels_of_today(
    live_app: LiveApp, page: Any
) -> None:
    world_with_model(live_app)
    visitor = Visitor(live_app, page)
    page.goto(f"{live_app.url}/review?who=Ann")
    cell(page, 1, 2).click()
    expect(pictures(page)).to_have_count(3, timeout=SOON)
    pictures(page).first.click()
    page.keyboard.press("2")
    page.get_by_text("1 label was changed since the training; that does not show here.").wait_for()
    expect(cell(page, 1, 2)).to_have_text("3")
    visitor.press_button("review_today")
    expect(cell(page, 1, 2)).to_have_text("2", timeout=SOON)
    page.wait_for_url("**review_truth=Labels+of+today*")


def test_an_image_excluded_in_the_large_picture_leaves_the_counts(
    live_app: LiveApp, page: Any
) -> None:
    world_with_model(live_app)
    page.goto(f"{live_app.url}/review?who=Ann")
    cell(page, 1, 2).click()
    expect(pictures(page)).to_have_count(3, timeout=SOON)
    pictures(page).first.dblclick()
    page.locator("dialog.big[open]").wait_for()
    page.keyboard.press("Shift+X")
    expect(cell(page, 1, 2)).to_have_text("2", timeout=SOON)
    page.keyboard.press("u")
    expect(cell(page, 1, 2)).to_have_text("3", timeout=SOON)
    expect(pictures(page)).to_have_count(3)


def test_a_link_brings_filters_cell_and_order_back_and_chips_take_them_away(
    live_app: LiveApp, page: Any
) -> None:
    world, model_id = world_with_model(live_app)
    liver, colon = world.class_ids
    with live_app.store.writing() as session:
        named = {
            i: {"scanner": ("B" if k else "A", None)} for k, i in enumerate(world.image_ids[0])
        }
        metadata.put_values(session, world.project_id, named)
    visitor = Visitor(live_app, page)
    page.goto(
        f"{live_app.url}/review?who=Ann&model={model_id}&meta_scanner=B&sure_from=0.5"
        f"&cell={liver}-{colon}&order=Highest+loss&cells=%25+of+label+%28recall%29"
    )
    expect(cell(page, 1, 2)).to_have_text("40", timeout=SOON)  # 2 of the 5 livers of scanner B
    expect(pictures(page)).to_have_count(2, timeout=SOON)
    page.get_by_text("5 of 12 images", exact=True).wait_for()
    page.reload()
    expect(cell(page, 1, 2)).to_have_text("40", timeout=SOON)
    page.get_by_role("heading", name="Labelled liver, predicted as colon").wait_for()
    page.get_by_role("button", name="scanner: B").press("Enter")
    page.get_by_text("12 of 12 images", exact=True).wait_for()
    page.get_by_role("button", name="Confidence 0.50 to 1.00").press("Enter")
    expect(cell(page, 1, 2)).to_have_text("50", timeout=SOON)
    expect(pictures(page)).to_have_count(3, timeout=SOON)
    page.wait_for_url(lambda url: "scanner" not in url and "sure_from" not in url)
    visitor.no_traceback()


def test_thirty_classes_with_long_names_stay_in_sight(live_app: LiveApp, page: Any) -> None:
    names = {f"tissue of the {k}th long-named & <odd> kind": 1 for k in range(30)}
    world = make_world(live_app.app, names, side=8)
    one = world.class_ids
    said = [
        (ids[0], one[k], one[(k + k % 2) % 30], 0.9) for k, ids in enumerate(world.image_ids[:30])
    ]
    add_model(world, said)
    page.goto(f"{live_app.url}/review?who=Ann")
    wrong = cell(page, 2, 3)
    wrong.wait_for()
    first, second, third = list(names)[:3]
    assert (wrong.get_attribute("aria-label") or "").startswith(
        f"{second}, predicted as {third}: 1 of 1 "
    )
    assert cell(page, 1, 0).get_attribute("title") == f"All images labelled {first}"
    assert cell(page, 0, 1).text_content() == first  # cut on the screen, whole to who listens
    room = page.locator(".matrix").evaluate("(m) => [m.scrollWidth, m.clientWidth]")
    assert room[0] <= room[1]
    assert cell(page, 30, 30).bounding_box()["width"] >= 24
