"""One image is judged in Review's large picture: what the model says, why, and a word by key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from cnsapp.services import jobs
from cnsapp.services.models import current_model
from cnsapp.services.training import start_training
from db.models import Image, ImageEvent, LabelEvent, Prediction
from db.session import Store
from tests.browser.conftest import LiveApp
from tests.browser.visitor import PATIENCE, wait_for
from tests.integration.worlds import World, make_world
from tests.looks import index_of

pytestmark = pytest.mark.browser

NAMES = {"liver": 10, "l<u>ng & *co*": 10}
SIDE = 80  # pixels of a picture


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveApp, World]]:
    """Return a running app whose worker has trained a model of two classes."""
    live = LiveApp(tmp_path_factory.mktemp("review") / "home", start_worker=True)
    made = make_world(live.app, NAMES, side=SIDE)
    angles = np.radians(np.arange(20) * 4)  # the nearest of each image are those before and behind
    index_of(live.store, made.project_id, np.stack([np.cos(angles), np.sin(angles)], axis=1))
    job_id = start_training(live.app, project_id=made.project_id)
    wait_for(
        lambda: jobs.get_job(live.store, job_id=job_id).state not in ("queued", "running"),
        60,
        "a model",
    )
    assert jobs.get_job(live.store, job_id=job_id).state == "done"
    yield live, made
    live.stop()


class Desk:
    """Somebody before the large picture."""

    def __init__(self, live: LiveApp, world: World, page: Any) -> None:
        self.store: Store = live.store
        self.page, self.world = page, world
        self.model_id = current_model(live.store, project_id=world.project_id).id
        page.goto(
            f"{live.url}/review?project={world.project_id}&model={self.model_id}&who=Maria"
            "&show=All&order=As+imported"
        )

    def open(self, image_id: int) -> None:
        """Open an image large from the gallery."""
        self.page.locator(f".lab #cell-{image_id}").dblclick()
        self.shows(image_id)

    def shows(self, image_id: int) -> None:
        """Wait until an image is large, with its facts beside it."""
        self.page.locator(f'.big .frame[data-id="{image_id}"]:not(.loading)').wait_for()
        self.page.locator(".why:not(.waiting)").wait_for()

    def press(self, key: str) -> None:
        """Press a key."""
        self.page.keyboard.press(key)

    def text(self, place: str) -> str:
        """Return the words at a place."""
        return " ".join(str(self.page.locator(place).inner_text()).split())

    def map_shown(self) -> str:
        """Wait for a map that has arrived; return its address."""
        laid = self.page.locator(".big img.laid")
        laid.wait_for(timeout=60_000 * PATIENCE)
        self.page.wait_for_function(
            "node => node.complete && node.naturalWidth > 0", arg=laid.element_handle()
        )
        return str(laid.get_attribute("src"))

    def rect(self, place: str) -> dict[str, float]:
        """Return where something lies on the screen."""
        found: dict[str, float] = self.page.locator(place).bounding_box()
        return found

    def saved(self, query: Any, what: str) -> None:
        """Wait for a row in the database."""

        def there() -> bool:
            with self.store.reading() as session:
                return session.scalar(query.limit(1)) is not None

        wait_for(there, 10, what)


def test_an_image_is_looked_at_explained_and_judged_by_keys(
    world: tuple[LiveApp, World], page: Any
) -> None:
    live, made = world
    desk = Desk(live, made, page)
    first, second, third = made.image_ids[0][:3]
    lung = made.class_ids[1]
    desk.open(first)
    probabilities_are_those_of_the_database(desk, first)
    near = [int(n) for n in page.locator(".nearest button").evaluate_all(
        "nodes => nodes.map((node) => node.dataset.id)"
    )]  # fmt: skip
    assert near == made.image_ids[0][1:6]  # by the angles above
    assert "liver" in desk.text(".nearest button >> nth=0")
    # the map, made by the worker, and the other class's by a key
    url = desk.map_shown()
    desk.press(",")
    page.locator('.themap button[aria-pressed="true"]', has_text="Its label").wait_for()
    desk.press(",")
    page.locator('.themap button[aria-pressed="true"]', has_text="Prediction").wait_for()
    assert desk.map_shown() == url
    # judged: a note, a label, undone, excluded, taken back
    desk.press("n")
    page.locator(".popup.note textarea").fill("smeared")
    desk.press("Enter")
    noted = (ImageEvent.image_id == first, ImageEvent.kind == "note", ImageEvent.who == "Maria")
    desk.saved(select(ImageEvent.id).where(*noted, ImageEvent.reason == "smeared"), "the note")
    page.locator(".shortstory", has_text="smeared").wait_for()
    desk.press("2")
    desk.shows(second)  # a label shows the next one
    labelled = (LabelEvent.image_id == first, LabelEvent.source == "review")
    desk.saved(select(LabelEvent.id).where(*labelled, LabelEvent.class_id == lung), "the label")
    desk.press("ArrowRight")
    desk.shows(third)
    desk.press("ArrowLeft")
    desk.shows(second)
    desk.press("x")
    unsure = (LabelEvent.image_id == second, LabelEvent.kind == "unsure")
    desk.saved(select(LabelEvent.id).where(*unsure), "unsure")
    desk.shows(third)
    desk.press("Shift+X")
    desk.shows(made.image_ids[0][3])
    out = select(Image.id).where(Image.id == third, Image.status == "excluded")
    desk.saved(out, "the exclusion")
    desk.press("u")  # takes back the last thing done: the exclusion
    desk.shows(third)
    back = select(Image.id).where(Image.id == third, Image.status == "ok")
    desk.saved(back, "the image is in use again")
    desk.press("u")
    desk.shows(second)
    undone = (LabelEvent.image_id == second, LabelEvent.kind == "undo")
    desk.saved(select(LabelEvent.id).where(*undone), "unsure is taken back")
    assert "Traceback" not in page.locator("body").inner_text()


def probabilities_are_those_of_the_database(desk: Desk, image_id: int) -> None:
    with desk.store.reading() as session:
        stored = session.scalar(
            select(Prediction.probabilities).where(
                Prediction.model_id == desk.model_id, Prediction.image_id == image_id
            )
        )
    assert stored is not None
    wanted = sorted(zip(stored, NAMES, strict=True), reverse=True)
    rows = desk.page.locator(".bars > div").all_inner_texts()
    assert [" ".join(row.split()) for row in rows] == [f"{name} {p:.3f}" for p, name in wanted]


def test_the_map_stays_on_the_picture_and_the_neighbours_open_beside_it(
    world: tuple[LiveApp, World], page: Any
) -> None:
    live, made = world
    desk = Desk(live, made, page)
    image_id = made.image_ids[1][4]
    desk.open(image_id)
    desk.map_shown()
    eye, laid = desk.rect(".big .eye"), desk.rect(".big .laid")
    side = min(eye["width"], eye["height"])  # a square picture, whole, in the middle
    assert laid["width"] == pytest.approx(side, abs=1) == pytest.approx(laid["height"], abs=1)
    assert laid["x"] == pytest.approx(eye["x"] + (eye["width"] - side) / 2, abs=1)
    x, y = laid["x"] + 0.25 * side, laid["y"] + 0.5 * side
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    wait_for(lambda: desk.rect(".big .laid")["width"] > 1.2 * side, 10, "the map is larger")
    percent = float(desk.text(".big .lens > output").split()[0])
    laid = desk.rect(".big .laid")
    assert laid["width"] == pytest.approx(SIDE * percent / 100, rel=0.01)  # as the picture itself
    assert (x - laid["x"]) / laid["width"] == pytest.approx(0.25, abs=0.01)  # the point stayed
    assert (y - laid["y"]) / laid["height"] == pytest.approx(0.5, abs=0.01)
    desk.press("Escape")
    desk.press(".")
    page.locator(".big .laid").wait_for(state="detached")
    desk.press(".")
    desk.map_shown()
    page.locator(".themap input").fill("30")
    assert page.locator(".big .laid").evaluate("node => node.style.opacity") == "0.3"
    desk.press(";")
    popup = page.locator(".popup.nearby")
    popup.wait_for()
    name = re.search(r"\d+ of 5: (\S+)", popup.inner_text())
    assert name is not None
    desk.press("ArrowRight")
    page.wait_for_function(
        "([node, was]) => !node.innerText.includes(was)", arg=[popup.element_handle(), name[0]]
    )
    before = count_labels(desk)
    desk.press("1")  # labels nothing while a neighbour is looked at
    desk.press("Escape")
    popup.wait_for(state="detached")
    desk.press("?")
    assert "Shift X" in page.locator(".sheet").inner_text()
    assert count_labels(desk) == before


def count_labels(desk: Desk) -> int:
    with desk.store.reading() as session:
        return len(session.scalars(select(LabelEvent.id)).all())


def test_a_map_that_fails_says_why_and_can_be_tried_again(
    world: tuple[LiveApp, World], page: Any
) -> None:
    live, made = world
    file = next(live.store.path("models").glob("*.safetensors"))
    away = file.with_suffix(".away")
    desk = Desk(live, made, page)
    page.locator(".lab .cell").first.wait_for()
    file.rename(away)
    try:
        desk.open(made.image_ids[1][7])
        page.locator(".maptext", has_text="The map could not be made").wait_for()
        probabilities_are_those_of_the_database(desk, made.image_ids[1][7])
    finally:
        away.rename(file)
    page.locator(".maptext button", has_text="Try again").click()
    desk.map_shown()
