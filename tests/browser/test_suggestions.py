"""Suggestions in a real browser: they come by themselves, are accepted together, and taken back."""

from __future__ import annotations

from typing import Any

import pytest

from cnsapp.services import images, jobs, label_settings, suggestion_runs
from tests.browser.conftest import LiveApp
from tests.browser.test_labelling import PATIENCE, wait_until
from tests.browser.visitor import PICTURES
from tests.integration.worlds import make_world

pytestmark = pytest.mark.browser


def test_suggestions_come_by_themselves_are_accepted_together_and_taken_back(
    live_app_with_worker: LiveApp, page: Any
) -> None:
    live = live_app_with_worker
    world = make_world(live.app, {"liver": 14, "colon": 14}, unlabelled=24, n_groups=7)
    project, store = world.project_id, live.store
    label_settings.change_settings(store, project_id=project, suggest_every=5)
    page.goto(f"{live.url}/label?project={project}&who=maria&show=Not+labelled")
    page.locator(".cell").nth(23).wait_for()
    assert page.locator(".cell[data-guess]").count() == 0
    jobs.submit_job(store, kind="features", project_id=project)
    # nobody reloads the page: the worker has made them, and the cells show them
    page.locator(".cell[data-guess]").first.wait_for(timeout=120_000)
    first = suggestion_runs.newest_run(store, project_id=project)
    assert first is not None

    page.locator(".cell").first.click()
    for _ in range(5):  # each label moves on to the next image
        page.keyboard.press("1")
    wait_until(
        lambda: (suggestion_runs.newest_run(store, project_id=project) or first).id > first.id
        or page.wait_for_timeout(200),
        PATIENCE, lambda: "five labels led to no new suggestions",
    )  # fmt: skip

    left = images.counts(store, project_id=project).unlabelled
    page.get_by_role("button", name="Suggestions").click()
    page.get_by_text("Accept the sure ones together").wait_for()
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.locator(".st-key-suggest_threshold").wait_for()
    page.wait_for_timeout(800)
    page.screenshot(path=PICTURES / "suggestions.png")
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.get_by_text("50%").first.wait_for()
    go = page.get_by_role("button", name=f"Label {left} images so")
    wait_until(  # while a page is drawn anew, Streamlit shows old and new beside each other
        lambda: go.count() == 1 or page.wait_for_timeout(200), PATIENCE, lambda: "two buttons stay"
    )
    go.click()
    page.get_by_text(f"{left} suggestions accepted").wait_for()
    counts = images.counts(store, project_id=project)
    assert counts.unlabelled == 0
    accepted = [i for i in world.image_ids[2] if images.get_image(store, image_id=i).source
                == "suggestion"]  # fmt: skip
    assert len(accepted) == left

    page.goto(f"{live.url}/label?project={project}&who=maria")
    page.locator(".cell").nth(30).wait_for()
    page.locator(".cell").first.click()
    page.keyboard.press("u")
    wait_until(
        lambda: images.counts(store, project_id=project).unlabelled == left
        or page.wait_for_timeout(200),
        PATIENCE, lambda: "one undo did not take them all back",
    )  # fmt: skip
