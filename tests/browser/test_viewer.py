"""The viewer in a real browser: what is seen where, at which size, and what is asked for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from cnsapp.services import images, importing, projects, viewing
from tests.browser.conftest import LiveApp
from tests.browser.test_labelling import DEEP, World, wait_until

pytestmark = pytest.mark.browser

SIDE = 2400  # of the large pictures: more than a display-size picture, so they have tiles
TENTH = 10  # a step of colour is ten pixels: red tells the column, green the row


def map_of_itself(blue: int) -> np.ndarray[Any, Any]:
    """Return a picture whose colours say where in it they are."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([x // TENTH, y // TENTH, np.full_like(x, blue)], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two large pictures, a stack of two channels and two small ones."""
    folder = tmp_path_factory.mktemp("viewer") / "pictures"
    folder.mkdir()
    for name, blue in (("a_large.png", 0), ("b_large.png", 200)):
        Picture.fromarray(map_of_itself(blue)).save(folder / name, compress_level=1)
    stack = np.zeros((2, 200, 200), np.uint16)
    stack[0, :, :120], stack[1, :, 80:] = 4095, 4095
    tifffile.imwrite(folder / "c_stack.ome.tif", stack, ome=True, metadata={"axes": "CYX"})
    chess = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    for name in ("d_small.png", "e_small.png"):
        Picture.fromarray(chess).save(folder / name)
        chess = chess.T[::-1]
    return folder


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    """Return one running app for all tests."""
    live = LiveApp(tmp_path_factory.mktemp("viewer") / "home", start_worker=False)
    yield live
    live.stop()


class Viewer(World):
    """The project in the app, and the viewer on its page."""

    def __init__(self, live_app: Any, page: Any, folder: Path, project_id: int = 0) -> None:
        if project_id:
            self.live, self.page, self.store = live_app, page, live_app.store
            self.project_id = project_id
            self.classes = projects.list_classes(self.store, project_id=project_id)
        else:
            super().__init__(live_app, page, folder)
        page.set_default_timeout(60_000)
        viewing.set_um_per_px(self.store, project_id=self.project_id, value=0.25)
        self.ids = {item.name[0]: item.id for item in self.items()}
        self.asked: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))

    def open_at(self, letter: str) -> None:
        """Open one by one and go to an image by the first letter of its name."""
        self.open("One+by+one&next=in+order")
        self.go(letter)

    def go(self, letter: str) -> None:
        """Turn to an image with the keys that always turn."""
        for _ in range(len(self.ids)):
            if self.shown() == self.ids[letter]:
                break
            self.page.keyboard.press("PageDown")
        assert self.shown() == self.ids[letter]
        self.page.locator(".one .frame:not(.loading) img").wait_for()
        self.whole()

    def percent(self) -> float:
        """Return the scale that the viewer says."""
        return float(self.page.locator(".lens > output").inner_text().split()[0])

    def whole(self) -> None:
        """Wait until the picture is shown whole, as it is stored."""
        self.page.locator(".eye:not(.close)").first.wait_for()

    def sharp(self) -> None:
        """Wait until nothing is on its way."""
        self.page.locator(".eye.close").wait_for()
        self.page.locator(".marks .note").wait_for(state="hidden", timeout=60_000)

    def color(self, dx: float = 0, dy: float = 0) -> list[int]:
        """Return the colour that stands so many pixels from the middle of the frame."""
        script = f"""([dx, dy]) => {{ {DEEP}; const c = deep('.eye.close .closeup');
            const at = [c.width / 2 + dx, c.height / 2 + dy].map(Math.round);
            return [...c.getContext('2d').getImageData(...at, 1, 1).data]; }}"""
        found: list[int] = self.page.evaluate(script, [dx, dy])
        return found

    def place(self, dx: float = 0, dy: float = 0) -> tuple[int, int]:
        """Return which pixel of a large picture stands there, to ten or twenty pixels."""
        red, green, *_ = self.color(dx, dy)
        return red * TENTH, green * TENTH

    def middle(self) -> tuple[float, float]:
        """Return the middle of the frame in the window."""
        box = self.page.locator(".one .frame").bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, dx: float, dy: float) -> None:
        """Drag the picture with the mouse."""
        mouse, (x, y) = self.page.mouse, self.middle()
        mouse.move(x, y)
        mouse.down()
        for step in range(1, 6):
            mouse.move(x + dx * step / 5, y + dy * step / 5)
        mouse.up()

    def settle(self) -> None:
        """Wait for two frames."""
        self.page.evaluate("() => new Promise((f) => requestAnimationFrame(() => "
                           "requestAnimationFrame(() => setTimeout(f, 60))))")  # fmt: skip


@pytest.fixture(scope="module")
def project_id(shared_app: LiveApp, pictures: Path) -> int:
    """Return the project of all tests that give no label."""
    made = projects.create_project(shared_app.store, name="Looked at", scheme="organ-systems")
    report = importing.import_folder(shared_app.app, project_id=made.id, path=pictures)
    assert report.imported == 5, report.skipped
    return made.id


@pytest.fixture
def world(shared_app: LiveApp, page: Any, pictures: Path, project_id: int) -> Viewer:
    """Return the shared project in the shared app."""
    return Viewer(shared_app, page, pictures, project_id)


@pytest.fixture
def own_world(shared_app: LiveApp, page: Any, pictures: Path) -> Viewer:
    """Return a project of its own in the shared app, to be labelled."""
    return Viewer(shared_app, page, pictures)


def near(found: tuple[int, int], wanted: tuple[float, float], by: float = 25) -> bool:
    """Return whether two places are the same for the eye of JPEG."""
    return abs(found[0] - wanted[0]) <= by and abs(found[1] - wanted[1]) <= by


def test_a_large_picture_is_shown_pixel_for_pixel_and_whole_again(world: Viewer) -> None:
    world.open_at("a")
    whole = world.percent()
    assert whole < 40
    world.page.keyboard.press("z")
    world.sharp()
    assert world.percent() == 100
    assert near(world.place(), (SIDE / 2, SIDE / 2))
    assert near(world.place(300, -200), (SIDE / 2 + 300, SIDE / 2 - 200))
    world.page.keyboard.press("z")
    world.whole()
    wait_until(lambda: world.percent() == whole)  # the words follow the picture


def test_the_wheel_zooms_about_the_pointer(world: Viewer) -> None:
    world.open_at("a")
    x, y = world.middle()
    world.page.mouse.move(x + 150, y + 100)
    before = world.percent()
    world.page.mouse.wheel(0, -240)
    world.page.locator(".eye.close").wait_for()
    world.settle()
    first, under = world.percent(), world.place(150, 100)
    assert first > 1.5 * before
    world.page.mouse.wheel(0, -240)
    wait_until(lambda: world.percent() > 1.5 * first)
    assert near(world.place(150, 100), under, 30)
    assert not near(world.place(), (SIDE / 2, SIDE / 2), 30)
    for _ in range(4):
        world.page.mouse.wheel(0, 240)
    world.whole()


def test_dragging_moves_the_picture_and_stops_at_its_edge(world: Viewer) -> None:
    world.open_at("a")
    world.page.keyboard.press("z")
    world.sharp()
    world.drag(-200, 120)
    world.settle()
    assert near(world.place(), (SIDE / 2 + 200, SIDE / 2 - 120))
    for _ in range(12):
        world.drag(300, 200)
    world.sharp()
    half = world.page.locator(".one .frame").bounding_box()
    assert near(world.place(), (half["width"] / 2, half["height"] / 2))


def test_arrows_walk_over_a_zoomed_picture_and_turn_a_whole_one(world: Viewer) -> None:
    world.open_at("a")
    world.page.keyboard.press("z")
    world.sharp()
    width = world.page.locator(".one .frame").bounding_box()["width"]
    world.page.keyboard.press("ArrowRight")
    world.settle()
    assert world.shown() == world.ids["a"]
    assert near(world.place(), (SIDE / 2 + 0.2 * width, SIDE / 2))
    world.page.keyboard.press("PageDown")  # turns, zoomed or not
    assert world.shown() == world.ids["b"]
    world.whole()
    world.page.keyboard.press("ArrowLeft")
    assert world.shown() == world.ids["a"]
    world.page.keyboard.press("+")
    world.page.keyboard.press("Escape")
    world.whole()
    world.page.keyboard.press("ArrowRight")
    assert world.shown() == world.ids["b"]


def test_a_class_key_labels_the_zoomed_image_and_shows_the_next_one_whole(
    own_world: Viewer,
) -> None:
    world = own_world
    world.open_at("a")
    world.page.keyboard.press("z")
    world.page.locator(".eye.close").wait_for()
    world.page.keyboard.press("2")
    (event,) = world.wait_for_events(1)
    assert (event.image_id, event.class_id) == (world.ids["a"], world.classes[1].id)
    assert world.shown() == world.ids["b"]
    world.whole()


def test_brightness_stays_from_image_to_image_and_says_that_it_is_display_only(
    own_world: Viewer,
) -> None:
    world = own_world
    world.open_at("d")
    look = f"() => {{ {DEEP}; return getComputedStyle(deep('.one .frame img')).filter; }}"
    assert world.page.evaluate(look) == "none"
    world.page.get_by_role("button", name="Look").click()
    world.page.get_by_text("training sees the stored rule").wait_for()
    world.page.get_by_label("Brightness").fill("50")
    world.page.get_by_text("Display only: brightness +50").wait_for()
    assert world.page.evaluate(look) == "brightness(2) contrast(1)"
    before = world.shown()
    world.page.keyboard.press("1")  # the slider has the keyboard, the class key still labels
    assert world.wait_for_events(1)[0].image_id == before
    assert world.shown() != before
    assert world.page.evaluate(look) == "brightness(2) contrast(1)"
    world.page.reload()
    world.ready(single=True)
    world.page.get_by_text("Display only: brightness +50").wait_for()
    world.page.keyboard.press("r")
    world.page.get_by_text("Display only: brightness +50").wait_for(state="hidden")
    assert world.page.evaluate(look) == "none"


def bar(world: Viewer) -> tuple[float, float]:
    """Return the scale bar's length in micrometres as it says, and in pixels as it is."""
    text = world.page.locator(".scalebar span").inner_text()
    amount, unit = text.split()
    um = float(amount) * {"nm": 0.001, "µm": 1, "mm": 1000, "cm": 10_000}[unit]
    assert re.fullmatch(r"[125]0*|0\.0*[125]", amount), text
    return um, world.page.locator(".scalebar i").bounding_box()["width"]


def test_the_scale_bar_is_as_long_as_it_says_at_every_zoom(world: Viewer) -> None:
    world.open_at("a")
    lengths = set()
    for _ in range(9):
        world.settle()
        um, px = bar(world)
        # a pixel of the picture is 0.25 micrometres and fills percent / 100 pixels of the screen
        assert px == pytest.approx(um / 0.25 * world.percent() / 100, rel=0.02)
        assert 40 <= px <= 151
        lengths.add(um)
        world.page.keyboard.press("+")
    assert len(lengths) >= 5
    viewing.set_um_per_px(world.store, project_id=world.project_id, value=None)
    world.open_at("a")
    world.page.locator(".scalebar").wait_for(state="hidden")


def test_only_the_tiles_in_sight_are_asked_for(world: Viewer) -> None:
    world.open_at("a")
    world.settle()
    assert not [url for url in world.asked if "/img/tiles/" in url]  # a whole picture needs none
    world.page.keyboard.press("z")
    world.sharp()
    asked = {
        tuple(map(int, m)) for url in world.asked for m in re.findall(r"/(\d+)/(\d+)_(\d+)\.", url)
    }
    box = world.page.locator(".one .frame").bounding_box()
    (x0, x1), (y0, y1) = (
        (int((SIDE - length) / 2 // 512), int((SIDE + length) / 2 // 512))
        for length in (box["width"], box["height"])
    )
    seen = {(0, x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}
    assert asked == seen
    assert len(seen) < 5 * 5


def test_tiles_that_were_deleted_are_made_again(world: Viewer) -> None:
    world.open_at("a")
    world.page.keyboard.press("z")
    world.sharp()
    for folder in world.store.path("thumbs").glob("*/*.tiles"):
        shutil.rmtree(folder)
    world.drag(-400, 0)
    world.drag(-400, 0)
    wait_until(lambda: any(world.store.path("thumbs").glob("*/*.tiles/pyramid.json")), 60)
    world.sharp()
    assert near(world.place(), (world.place()[0], SIDE / 2))
    assert any(re.search(r"/0/4_2\.jpg", url) for url in world.asked)


def test_a_broken_original_is_told_and_its_picture_stays(world: Viewer) -> None:
    original = images.image_path(world.store, image_id=world.ids["b"])
    whole = original.read_bytes()
    for folder in world.store.path("thumbs").glob("*/*.tiles"):
        shutil.rmtree(folder)
    original.chmod(0o644)
    try:
        original.write_bytes(whole[:9000])
        world.open_at("b")
        world.page.keyboard.press("z")
        world.page.locator(".note", has_text="The file is cut off").wait_for(timeout=60_000)
        assert near(world.place(), (SIDE / 2, SIDE / 2))
        assert world.color()[2] == pytest.approx(200, abs=12)
    finally:
        original.write_bytes(whole)


def test_channels_are_laid_over_each_other_and_reset_shows_the_stored_picture(
    world: Viewer,
) -> None:
    world.open_at("c")
    world.page.get_by_role("button", name="Look").click()
    chips = world.page.locator(".chips .tool")
    chips.nth(1).wait_for()
    assert [chip.get_attribute("aria-pressed") for chip in chips.all()] == ["true", "false"]
    chips.nth(1).click()
    world.sharp()
    left, both, right = (world.color(dx) for dx in (-150, 0, 150))
    blue, green = (0x2F, 0x6B, 0xFF), (0x00, 0xC8, 0x53)
    assert left[:3] == pytest.approx(blue, abs=4)
    assert right[:3] == pytest.approx(green, abs=4)
    assert both[:3] == pytest.approx((0x2F, 0xFF, 0xFF), abs=4)  # light adds to light
    chips.nth(0).click()
    wait_until(lambda: sum(world.color(-150)[:3]) < 12)
    assert world.color(150)[:3] == pytest.approx(green, abs=4)
    world.page.get_by_role("button", name="Reset").click()
    world.whole()
    assert [chip.get_attribute("aria-pressed") for chip in chips.all()] == ["true", "false"]


def test_far_enlarged_pixels_are_squares(world: Viewer) -> None:
    world.open_at("d")
    for _ in range(4):
        world.page.keyboard.press("+")
    world.settle()
    pixel = world.percent() / 100
    assert pixel > 20
    values = {world.color(dx)[0] // 32 for dx in range(0, int(4 * pixel))}
    assert values <= {0, 1, 6, 7}, "a chess board has no gray between its fields"


def test_two_fingers_zoom_on_a_tablet(
    shared_app: LiveApp, browser: Any, pictures: Path, project_id: int
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, has_touch=True)
    try:
        world = Viewer(shared_app, context.new_page(), pictures, project_id)
        world.open_at("a")
        before = world.percent()
        x, y = world.middle()
        touch = context.new_cdp_session(world.page)
        for kind, apart in [("touchStart", 60), ("touchMove", 100), ("touchMove", 180)]:
            fingers = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        world.page.locator(".eye.close").wait_for()
        world.settle()
        assert world.percent() == pytest.approx(3 * before, rel=0.15)
        assert near(world.place(), (SIDE / 2, SIDE / 2), 40)
    finally:
        context.close()


def test_the_large_picture_of_the_grid_zooms_and_escape_leaves_step_by_step(
    own_world: Viewer,
) -> None:
    world = own_world
    world.open()
    world.cell(0).dblclick()
    big = world.page.locator(".big")
    big.locator("img").wait_for()
    world.page.keyboard.press("z")
    world.sharp()
    assert near(world.place(), (SIDE / 2, SIDE / 2))
    world.page.keyboard.press("Escape")
    world.whole()
    assert big.is_visible()
    world.page.keyboard.press("z")
    world.page.keyboard.press("3")
    (event,) = world.wait_for_events(1)
    assert (event.image_id, event.class_id) == (world.ids["a"], world.classes[2].id)
    world.page.keyboard.press("Escape")
    big.wait_for(state="hidden")


def test_the_dialog_of_an_image_zooms_too(world: Viewer) -> None:
    world.page.goto(f"{world.live.url}/images?project={world.project_id}")
    world.page.locator(".tile").first.click()
    frame = world.page.locator(".alone .frame")
    frame.locator("img").wait_for()
    world.page.get_by_role("button", name="1:1").click()
    world.sharp()
    assert world.percent() == 100
    assert near(world.place(100, 50), (SIDE / 2 + 100, SIDE / 2 + 50))
    frame.focus()
    world.page.keyboard.press("Escape")
    world.whole()
    assert frame.is_visible()


def test_every_button_of_the_viewer_is_reached_with_tab(world: Viewer) -> None:
    world.open_at("a")
    world.page.locator(".one .frame").focus()
    names = []
    for _ in range(5):
        world.page.keyboard.press("Tab")
        names.append(world.page.evaluate(
            "() => { let at = document.activeElement; for (let deeper = at; deeper; "
            "deeper = at.shadowRoot && at.shadowRoot.activeElement) at = deeper;"
            " return at.innerText.split('\\n')[0].trim(); }"))  # fmt: skip
    assert names[:4] == ["−", "+", "1:1", "Look"]
    world.page.keyboard.press("Shift+Tab")
    world.page.keyboard.press("Enter")
    world.page.get_by_text("training sees the stored rule").wait_for()


def test_a_project_of_another_pixel_size_is_set_on_the_settings_page(world: Viewer) -> None:
    world.page.goto(f"{world.live.url}/settings?project={world.project_id}")
    field = world.page.get_by_label("Micrometres a pixel")
    field.fill("0.5")
    field.press("Enter")
    world.page.get_by_role("button", name="Set", exact=True).click()
    wait_until(
        lambda: viewing.um_per_px(world.store, project_id=world.project_id) == 0.5,
        why=lambda: str(projects.get_project(world.store, project=world.project_id)),
    )
