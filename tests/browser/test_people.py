"""Two people in two browsers: both are kept, both are told, and what they part on is settled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnsapp.domain.consensus import ConsensusRule
from cnsapp.services import bulk, importing, label_settings, projects, readings
from cnsapp.services.readings import Wanted
from tests.browser.conftest import LiveApp
from tests.browser.test_labelling import World, make_pictures, wait_until

pytestmark = pytest.mark.browser


@pytest.fixture
def world(live_app: LiveApp, page: Any, tmp_path: Path) -> World:
    """Return a project in which Maria and Ben have read thirty images, and parted on three."""
    make_pictures(tmp_path / "pictures", 60)
    made = World(live_app, page, tmp_path / "pictures")
    ids = [item.id for item in made.items()]
    classes = [c.id for c in made.classes[:3]]
    for who, shift in (("maria", 0), ("ben", 1)):
        bulk.label_images(
            made.store, project_id=made.project_id, annotator=who, image_ids=ids[10:40],
            class_id=None, classes=[classes[(k + shift * (k < 3)) % 3] for k in range(30)],
        )  # fmt: skip
    return made


@pytest.fixture
def other(browser: Any) -> Iterator[Any]:
    """Return a page of another browser."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def address(world: World, who: str, **more: str) -> str:
    query = "".join(f"&{name}={value}" for name, value in more.items())
    return f"{world.live.url}/label?project={world.project_id}&who={who}{query}"


def open_grid(world: World, page: Any, who: str, **more: str) -> None:
    page.goto(address(world, who, **more))
    page.locator(".cell img").first.wait_for()
    page.wait_for_load_state("networkidle")


def test_two_people_label_one_image_and_a_third_look_settles_it(world: World, other: Any) -> None:
    maria, ben = world.page, other
    open_grid(world, maria, "maria")
    open_grid(world, ben, "ben")
    maria.locator(".cell").nth(0).click()
    ben.locator(".cell").nth(0).click()
    maria.keyboard.press("1")
    ben.keyboard.press("2")
    events = world.wait_for_events(62)[-2:]
    assert {(e.annotator, e.class_id) for e in events} == {
        ("maria", world.classes[0].id), ("ben", world.classes[1].id),
    }  # fmt: skip
    image_id = events[0].image_id
    assert events[1].image_id == image_id
    for page in (maria, ben):
        page.locator(".cell").nth(0).get_by_text("people disagree").wait_for()

    maria.goto(address(world, "maria", view="People"))
    maria.get_by_text("The same class on 87 % of 31 images.").wait_for()
    # ben's name comes first: he said the second class, she the first
    names = [world.classes[k].name for k in range(2)]
    cell = maria.get_by_role(
        "button", name=f"ben: {names[1]}, maria: {names[0]}: 2 of", exact=False
    )
    cell.click()
    gallery = maria.locator(".st-key-people_gallery")
    gallery.get_by_text(f"ben: {names[1]}, maria").wait_for()
    wait_until(lambda: gallery.locator(".cell").count() == 2)
    maria.get_by_text("Settle disputes").click()
    maria.wait_for_timeout(1000)  # the run that the switch starts, and its end
    maria.locator('[data-test-script-state="notRunning"]').first.wait_for()
    maria.wait_for_timeout(1000)
    gallery.locator(".cell").nth(0).click()
    maria.wait_for_load_state("networkidle")
    maria.keyboard.press("2")
    event = world.wait_for_events(63)[-1]
    assert (event.image_id, event.source, event.annotator) == (image_id, "adjudication", "maria")
    called = next(item for item in world.items() if item.id == image_id)
    assert called.class_id == world.classes[1].id
    maria.reload()
    maria.get_by_text("The same class on 87 % of 31 images.").wait_for()


def test_a_label_among_the_disputed_images_settles_them(world: World) -> None:
    label_settings.change_settings(
        world.store, project_id=world.project_id, rule=ConsensusRule("majority", 2)
    )
    page = world.page
    open_grid(world, page, "cleo", disputed="true")
    page.get_by_text("the label you give here decides").wait_for()
    assert page.locator(".cell").count() == 3
    page.keyboard.press("Control+a")
    page.keyboard.press("3")
    events = world.wait_for_events(63)[-3:]
    assert {(e.source, e.annotator) for e in events} == {("adjudication", "cleo")}
    called = {item.id: (item.state, item.class_id) for item in world.items()}
    assert {called[e.image_id] for e in events} == {("label", world.classes[2].id)}


def test_only_mine_shows_and_receives_nothing_of_others(world: World, other: Any) -> None:
    bulk.label_images(
        world.store, project_id=world.project_id, annotator="maria",
        image_ids=[item.id for item in world.items()[:5]], class_id=world.classes[0].id,
    )  # fmt: skip
    answers: list[dict[str, Any]] = []
    other.on(
        "response",
        lambda r: answers.append(r.json()) if r.url.endswith("/api/labels") else None,
    )
    open_grid(world, other, "ben", whose="mine")
    first = other.locator(".cell").nth(0)
    assert world.classes[0].name not in first.inner_text()
    first.click()
    other.keyboard.press("3")
    world.wait_for_events(66)
    first.get_by_text(world.classes[2].name).wait_for()
    other.keyboard.press("u")
    world.wait_for_events(67)
    other.locator(".saved", has_text="All saved").wait_for()
    assert world.classes[0].name not in first.inner_text()
    wait_until(lambda: len(answers) == 2)
    for answer in answers:
        (image,) = answer["images"]
        assert image["class_id"] in (None, world.classes[2].id)
        assert not image["disputed"]


def test_a_second_reading_is_asked_for_and_given_blindly(world: World, other: Any) -> None:
    readings.ask(
        world.store, project_id=world.project_id, asked_by="maria",
        wanted=Wanted(by="cleo", number=20),
    )  # fmt: skip
    other.goto(address(world, "cleo", view="People"))
    other.get_by_role("button", name="Read them now").click()
    other.locator(".one .frame img").wait_for()
    other.wait_for_load_state("networkidle")
    other.keyboard.press("1")
    event = world.wait_for_events(61)[-1]
    assert (event.source, event.annotator) == ("second", "cleo")
    (count,) = readings.count_readings(world.store, project_id=world.project_id)
    assert (count.open, count.done) == (19, 1)


def test_a_second_reader_is_not_told_that_others_read_otherwise(world: World, other: Any) -> None:
    readings.ask(
        world.store, project_id=world.project_id, asked_by="maria",
        wanted=Wanted(by="cleo", number=20),
    )  # fmt: skip
    answers: list[dict[str, Any]] = []
    other.on(
        "response",
        lambda r: answers.append(r.json()) if r.url.endswith("/api/labels") else None,
    )
    other.goto(address(world, "cleo", view="One+by+one", next="second+readings"))
    other.locator(".one .frame img").wait_for()
    other.wait_for_load_state("networkidle")
    other.keyboard.press("3")
    world.wait_for_events(61)
    other.locator(".saved", has_text="All saved").wait_for()
    wait_until(lambda: len(answers) == 1 or other.wait_for_timeout(50))
    (image,) = answers[0]["images"]
    assert (image["class_id"], image["disputed"]) == (world.classes[2].id, False)
    other.keyboard.press("ArrowLeft")
    other.locator(".one .now", has_text=world.classes[2].name).wait_for()
    assert other.get_by_text("people disagree").count() == 0
    other.keyboard.press("u")
    world.wait_for_events(62)
    wait_until(lambda: len(answers) == 2 or other.wait_for_timeout(50))
    (image,) = answers[1]["images"]
    assert (image["state"], image["disputed"]) == ("none", False)


def test_one_person_alone_is_told_how_to_go_on(
    live_app: LiveApp, page: Any, tmp_path: Path
) -> None:
    make_pictures(tmp_path / "pictures", 12)
    project = projects.create_project(live_app.store, name="Alone", classes=["a", "b"])
    importing.import_folder(live_app.app, project_id=project.id, path=tmp_path / "pictures")
    page.goto(f"{live_app.url}/label?project={project.id}&who=maria&view=People")
    page.get_by_text("Nobody has labelled in this project yet.").wait_for()
    page.goto(f"{live_app.url}/label?project={project.id}&who=maria")
    page.locator(".cell img").first.wait_for()
    page.keyboard.press("Control+a")
    page.keyboard.press("1")
    page.locator(".saved", has_text="All saved").wait_for()
    page.goto(f"{live_app.url}/label?project={project.id}&who=maria&view=People")
    page.get_by_text("One person has labelled so far.").wait_for()
    page.get_by_role("button", name="Ask for 1 reading").click()
    page.get_by_text("Asked for 1 reading.").wait_for()
    page.goto(f"{live_app.url}/label?project={project.id}&who=maria&view=Progress")
    page.get_by_text("12 of 12").first.wait_for()
    page.get_by_text("The learning curve begins with the first suggestions.").wait_for()


def test_what_was_done_can_be_read_on_narrow_screens(world: World, other: Any) -> None:
    for width, height in ((1440, 900), (1280, 800), (1024, 768)):
        other.set_viewport_size({"width": width, "height": height})
        open_grid(world, other, "cleo")
        line = other.locator(".status").bounding_box()
        assert line["width"] > 100, f"{width} pixels leave {line['width']:.0f} for what was done"


def test_under_a_vote_a_first_reading_is_seen_to_wait(world: World) -> None:
    label_settings.change_settings(
        world.store, project_id=world.project_id, rule=ConsensusRule("majority", 2)
    )
    world.open()
    world.page.keyboard.press("1")
    world.cell(0).locator(".word", has_text="waits for a reader").wait_for()
    world.page.locator(".count", has_text="1 image waits for another reader").wait_for()
