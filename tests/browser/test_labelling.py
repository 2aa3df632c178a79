"""Labelling in a real browser, against the database: nothing lost or doubled, undo for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select, update

from cnsapp.services import classes, images, importing, projects
from cnsapp.services.images import ImageFilter, ImageItem
from db.models import Image, LabelEvent
from tests.browser.conftest import LiveApp

pytestmark = pytest.mark.browser

N_IMAGES = 60
AHEAD = 5  # pictures that the page fetches before they are needed
PATIENCE = 60.0  # seconds; nothing here is timed, this only ends a test that hangs


class World:
    """A project of sixty small pictures in a running app, and the page that labels them."""

    def __init__(self, live_app: Any, page: Any, folder: Path) -> None:
        self.live, self.page = live_app, page
        self.store = live_app.store
        name = f"Tissue {len(projects.list_projects(self.store)) + 1}"
        project = projects.create_project(self.store, name=name, scheme="organ-systems")
        self.project_id = project.id
        importing.import_folder(live_app.app, project_id=project.id, path=folder)
        self.classes = projects.list_classes(self.store, project_id=project.id)
        self.arrived: set[str] = set()
        page.on("requestfinished", self._note)

    def _note(self, request: Any) -> None:
        if "/img/view/" in request.url:
            self.arrived.add(request.url)

    def wait_for_pictures(self, n: int) -> None:
        """Wait until `n` pictures came: one that a killed server still owes gets no class."""
        deadline = time.monotonic() + PATIENCE
        while len(self.arrived) < n:
            assert time.monotonic() < deadline, f"{len(self.arrived)} of {n} pictures came"
            self.page.wait_for_timeout(50)  # lets the browser tell what came

    def open(self, view: str = "") -> None:
        """Open the Label page as Maria."""
        query = f"project={self.project_id}&who=maria" + (f"&view={view}" if view else "")
        self.page.goto(f"{self.live.url}/label?{query}")
        self.ready(single=bool(view))

    def ready(self, *, single: bool) -> None:
        """Wait until the component shows pictures and its undo list is there."""
        self.page.locator(".one .frame img" if single else ".cell").first.wait_for()
        self.page.wait_for_load_state("networkidle")

    def shown(self) -> int:
        """Return the id of the image that is on screen, one by one."""
        return int(self.page.evaluate(f"{DEEP}; deep('.one .frame').dataset.id || 0"))

    def cell(self, place: int) -> Any:
        """Return a cell of the grid."""
        return self.page.locator(".cell").nth(place)

    def press(self, keys: Sequence[str], pause_ms: int) -> list[int]:
        """Press keys one after the other; return the image that was on screen at each."""
        seen = []
        for key in keys:
            seen.append(self.shown())
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(pause_ms)
        return seen

    def events(self) -> list[LabelEvent]:
        """Return all label events in their order."""
        with self.store.reading() as session:
            mine = select(LabelEvent).where(LabelEvent.project_id == self.project_id)
            found = list(session.scalars(mine.order_by(LabelEvent.id)))
            session.expunge_all()
        return found

    def wait_for_events(self, n: int, seconds: float = PATIENCE) -> list[LabelEvent]:
        """Return all label events as soon as there are `n` of them."""
        wait_until(lambda: len(self.events()) >= n, seconds, lambda: f"{len(self.events())} events")
        return self.events()

    def items(self, state: str = "all") -> list[ImageItem]:
        """Return the images as the database knows them."""
        found = images.list_images(
            self.store, project_id=self.project_id, filter=ImageFilter(state=state), limit=200
        )
        return found.items

    def all_saved(self) -> None:
        """Wait until the page says that everything is saved."""
        self.page.locator(".saved", has_text="All saved").wait_for(timeout=1000 * PATIENCE)


DEEP = """
const deep = (selector) => {
  for (const host of document.querySelectorAll('*')) {
    const found = host.shadowRoot && host.shadowRoot.querySelector(selector);
    if (found) return found;
  }
  return document.createElement('i');
}"""


def make_pictures(folder: Path, n: int) -> None:
    """Write small noise pictures, each its own."""
    folder.mkdir()
    noise = np.random.default_rng(7)
    for i in range(n):
        pixels = noise.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Picture.fromarray(pixels).save(folder / f"tile_{i:03d}.png")


def wait_until(
    true: Callable[[], bool], seconds: float = PATIENCE, why: Callable[[], str] = lambda: ""
) -> None:
    """Wait for something to become true; fail with a word when it does not."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {why()}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of sixty pictures."""
    folder = tmp_path_factory.mktemp("labelling") / "pictures"
    make_pictures(folder, N_IMAGES)
    return folder


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    """Return one running app for all tests that do not kill it; each has its own project."""
    live = LiveApp(tmp_path_factory.mktemp("labelling") / "home", start_worker=False)
    yield live
    live.stop()


@pytest.fixture
def world(shared_app: LiveApp, page: Any, pictures: Path) -> World:
    """Return a project of its own in the shared app."""
    return World(shared_app, page, pictures)


@pytest.fixture
def mortal_world(live_app: LiveApp, page: Any, pictures: Path) -> World:
    """Return a project in an app that the test may kill."""
    return World(live_app, page, pictures)


def test_a_class_key_stores_the_label_and_shows_the_next_image(world: World) -> None:
    world.open("One+by+one")
    first = world.shown()
    world.page.keyboard.press("3")
    assert world.shown() != first, "the next image comes in the same moment"
    (event,) = world.wait_for_events(1)
    assert (event.image_id, event.class_id) == (first, world.classes[2].id)
    assert (event.kind, event.source, event.annotator) == ("label", "human", "maria")
    world.all_saved()
    world.page.locator(".count", has_text="1 of 60 labelled").wait_for()


def test_twenty_keys_at_60_ms_label_the_twenty_images_that_were_shown(world: World) -> None:
    world.open("One+by+one")
    keys = [str(i % 9 + 1) for i in range(20)]
    seen = world.press(keys, 60)
    events = world.wait_for_events(20)
    assert len(set(seen)) == 20
    by_key = {str(i + 1): c.id for i, c in enumerate(world.classes[:9])}
    assert [(e.image_id, e.class_id) for e in events] == [
        (image_id, by_key[key]) for image_id, key in zip(seen, keys, strict=True)
    ]


def test_arrows_go_back_and_a_second_label_corrects_the_first(world: World) -> None:
    world.open("One+by+one")
    first = world.shown()
    world.press(["1", "ArrowLeft", "2"], 30)
    world.wait_for_events(2)
    item = next(item for item in world.items() if item.id == first)
    assert item.class_id == world.classes[1].id


def test_skip_unsure_and_removing_are_states_not_classes(world: World) -> None:
    world.open("One+by+one")
    seen = world.press(["s", "x", "1", "ArrowLeft", "Delete"], 30)
    world.wait_for_events(4)
    states = {item.id: (item.state, item.class_id) for item in world.items()}
    assert states[seen[0]] == ("skip", None)
    assert states[seen[1]] == ("unsure", None)
    assert states[seen[2]] == ("none", None)


def test_shift_click_and_one_key_label_the_range_as_one_action(world: World) -> None:
    world.open()
    world.cell(2).click()
    world.cell(9).click(modifiers=["Shift"])
    world.cell(5).click(modifiers=["Control"])
    world.page.keyboard.press("2")
    events = world.wait_for_events(7)
    expected = [item.id for i, item in enumerate(world.items()) if 2 <= i <= 9 and i != 5]
    assert [e.image_id for e in events] == expected
    assert len({e.action for e in events}) == 1
    assert {e.source for e in events} == {"bulk"}
    world.cell(2).locator(".tick", has_text="✓").wait_for()
    assert world.cell(2).locator(".word").inner_text() == world.classes[1].name


def test_ctrl_a_and_a_class_button_label_the_whole_page(world: World) -> None:
    world.open()
    world.page.keyboard.press("Control+a")
    world.page.locator(".choice", has_text="kidney").click()
    world.wait_for_events(N_IMAGES)
    world.all_saved()
    assert len(world.items("label")) == N_IMAGES
    world.page.keyboard.press("u")
    world.wait_for_events(2 * N_IMAGES)
    world.all_saved()
    assert world.items("label") == []


def test_a_dragged_box_selects_what_it_touches(world: World) -> None:
    world.open()
    first, last = world.cell(0).bounding_box(), world.cell(2).bounding_box()
    mouse = world.page.mouse
    mouse.move(first["x"] + 10, first["y"] + 10)
    mouse.down()
    mouse.move(last["x"] + 20, last["y"] + 40, steps=6)
    mouse.up()
    wait_until(lambda: world.page.locator('.cell[aria-selected="true"]').count() == 3)


def test_the_keyboard_alone_selects_labels_and_moves_on(world: World) -> None:
    world.open()
    items = world.items()
    world.page.keyboard.press("1")  # the framed image; the frame moves on
    world.page.keyboard.press("Shift+ArrowRight")
    world.page.keyboard.press("2")  # the second and third
    world.page.keyboard.press("ArrowRight")  # the used selection gives way
    world.page.keyboard.press("3")
    events = world.wait_for_events(4)
    labels = {e.image_id: e.class_id for e in events}
    expected = [0, 1, 1, 2]
    assert [labels[item.id] for item in items[:4]] == [world.classes[i].id for i in expected]


def test_undo_goes_back_action_by_action_also_after_a_reload(world: World) -> None:
    world.open()
    world.cell(0).click()
    world.page.keyboard.press("1")
    world.cell(1).click()
    world.cell(4).click(modifiers=["Shift"])
    world.page.keyboard.press("2")
    world.wait_for_events(5)
    world.page.reload()
    world.ready(single=False)
    world.page.keyboard.press("u")
    world.wait_for_events(9)
    wait_until(lambda: len(world.items("label")) == 1)
    world.page.get_by_role("button", name="Undo").click()
    world.wait_for_events(10)
    wait_until(lambda: world.items("label") == [])
    world.cell(0).locator(".word", has_text="tile_000").wait_for()
    world.page.keyboard.press("u")
    world.page.locator(".status", has_text="Nothing left to undo").wait_for()


def test_undo_one_by_one_brings_the_image_back(world: World) -> None:
    world.open("One+by+one")
    first, _ = world.press(["1", "2"], 60)
    world.wait_for_events(2)
    world.page.reload()
    world.ready(single=True)
    assert world.shown() not in (first,)
    world.page.keyboard.press("u")
    world.page.keyboard.press("u")
    world.wait_for_events(4)
    wait_until(lambda: world.shown() == first, why=lambda: str(world.shown()))


def test_a_reload_in_the_same_moment_loses_and_doubles_nothing(world: World) -> None:
    world.open("One+by+one")
    seen = []
    for _ in range(3):
        for key in "12345":
            seen.append(world.shown())
            world.page.keyboard.press(key)
        world.page.reload()
        world.ready(single=True)
    events = world.wait_for_events(15)
    world.all_saved()
    assert [e.image_id for e in events] == seen
    assert len(set(seen)) == 15


def test_labels_follow_when_the_page_is_left_at_once(world: World) -> None:
    world.open("One+by+one")
    seen = world.press(list("1234"), 0)
    world.page.get_by_role("link", name="Images").click()
    assert [e.image_id for e in world.wait_for_events(4)] == seen


def test_a_killed_server_costs_no_label(mortal_world: World) -> None:
    world = mortal_world
    world.open("One+by+one")
    seen = world.press(list("123"), 40)
    world.wait_for_events(3)
    world.all_saved()  # a commit whose answer the kill cuts off is rightly "not saved yet"
    world.wait_for_pictures(3 + 1 + AHEAD)
    world.live.kill()
    seen += world.press(list("45678"), 40)
    world.page.locator(".problem", has_text="Not saved yet, trying again").wait_for()
    assert world.page.locator(".saved").inner_text() == "5 not saved yet"
    world.live.restart()
    events = world.wait_for_events(8)
    world.all_saved()  # the page has the server's word for each: it sends none again
    assert [e.image_id for e in world.events()] == seen
    assert len({(e.client, e.seq) for e in events}) == 8


def test_unsaved_labels_outlive_a_closed_tab(mortal_world: World) -> None:
    world = mortal_world
    world.open("One+by+one")
    world.wait_for_pictures(1 + AHEAD)
    world.live.kill()
    seen = world.press(list("123"), 40)
    context = world.page.context
    world.page.close()
    world.live.restart()
    world.page = context.new_page()
    world.open("One+by+one")
    assert [e.image_id for e in world.wait_for_events(3)] == seen


def test_a_label_the_database_refuses_is_taken_back_on_screen(world: World) -> None:
    world.open()
    target = world.items()[0].id
    with world.store.writing() as session:  # as when another database came under this address
        session.execute(update(Image).where(Image.id == target).values(sha256="0" * 64))
    world.cell(0).click()
    world.page.keyboard.press("1")
    world.page.locator(".notice", has_text="1 label was not stored").wait_for()
    wait_until(lambda: world.cell(0).get_attribute("data-state") == "none")
    assert world.events() == []


def test_a_picture_that_did_not_arrive_gets_no_class_but_can_be_skipped(world: World) -> None:
    world.page.route("**/img/view/**", lambda route: route.abort())
    query = f"project={world.project_id}&who=maria&view=One+by+one"
    world.page.goto(f"{world.live.url}/label?{query}")
    world.page.locator(".one .frame.broken", has_text="cannot be shown").wait_for()
    world.page.keyboard.press("1")
    world.page.locator(".status", has_text="gets no class").wait_for()
    world.page.keyboard.press("s")
    (event,) = world.wait_for_events(1)
    assert event.kind == "skip"


def test_a_class_name_that_is_markup_is_shown_letter_by_letter(world: World) -> None:
    name = "<img src=x onerror=document.title='owned'>"
    classes.add_class(world.store, project_id=world.project_id, name=name, who="maria")
    world.open()
    world.page.locator(".choice .name", has_text=name).wait_for()
    world.cell(0).click()
    world.page.locator(".choice", has_text=name).click()
    world.cell(0).locator(".word", has_text=name).wait_for()
    assert world.page.title() != "owned"


def test_keys_typed_into_a_field_label_nothing(world: World) -> None:
    world.open()
    field = world.page.get_by_placeholder("File name")
    field.click()
    field.press_sequentially("12")
    world.page.wait_for_timeout(300)
    assert world.events() == []


def test_the_filters_live_in_the_address(world: World) -> None:
    world.open()
    field = world.page.get_by_placeholder("File name")
    field.fill("tile_01")
    field.press("Enter")
    wait_until(lambda: world.page.locator(".cell").count() == 10)
    assert "find=tile_01" in world.page.url
    world.page.reload()
    world.ready(single=False)
    wait_until(lambda: world.page.locator(".cell").count() == 10)


def test_the_large_picture_opens_labels_and_moves_on(world: World) -> None:
    world.open()
    world.cell(3).dblclick()
    world.page.locator("dialog.big[open] img").wait_for()
    world.page.keyboard.press("1")
    world.page.keyboard.press("ArrowRight")
    world.page.keyboard.press("2")
    events = world.wait_for_events(2)
    items = world.items()
    assert [e.image_id for e in events] == [items[3].id, items[5].id]
    world.page.keyboard.press("Escape")
    world.page.locator("dialog.big[open]").wait_for(state="hidden")
