"""The queue in real browsers: who gets which image, reloads, cuts, and what stands at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from sqlalchemy import select

from cnsapp.services import importing, labels, projects
from cnsapp.services.looks_files import write_index
from db.models import Image, LabelEvent, Lease
from tests.browser.conftest import LiveApp
from tests.browser.test_labelling import DEEP, PATIENCE, make_pictures, wait_until

pytestmark = pytest.mark.browser
N_IMAGES = 60


class Shared:
    """A project in a running app, for several people at once."""

    def __init__(self, live: LiveApp, folder: Path, n_classes: int = 3) -> None:
        self.live, self.store = live, live.store
        name = f"Queue {len(projects.list_projects(self.store)) + 1}"
        names = ["colon", "liver", "lung"][:n_classes]
        self.project_id = projects.create_project(self.store, name=name, classes=names).id
        importing.import_folder(live.app, project_id=self.project_id, path=folder)
        with self.store.reading() as session:
            mine = select(Image.id).where(Image.project_id == self.project_id)
            self.ids = list(session.scalars(mine.order_by(Image.id)))

    def open(self, page: Any, who: str = "maria", **more: str) -> Person:
        """Open the one-by-one view as somebody."""
        query = {"project": self.project_id, "who": who, "view": "One by one", **more}
        page.goto(f"{self.live.url}/label?{urlencode(query)}")
        return Person(page)

    def events(self) -> list[LabelEvent]:
        """Return the label events in their order."""
        with self.store.reading() as session:
            mine = select(LabelEvent).where(LabelEvent.project_id == self.project_id)
            found = list(session.scalars(mine.order_by(LabelEvent.id)))
            session.expunge_all()
        return found

    def leased(self) -> dict[int, str]:
        """Return who holds which image."""
        with self.store.reading() as session:
            mine = select(Lease.image_id, Lease.holder).where(Lease.project_id == self.project_id)
            return dict(session.execute(mine).all())

    def label(self, image_ids: list[int], who: str = "colleague", kind: str = "label") -> None:
        """Label images as somebody who uses no browser."""
        class_id = projects.list_classes(self.store, project_id=self.project_id)[0].id
        events = [
            {
                "client": f"{who}-0001", "seq": image_id, "image_id": image_id, "kind": kind,
                "source": "human", "action": f"{who}-{image_id}",
                **({"class_id": class_id} if kind == "label" else {}),
            }
            for image_id in image_ids
        ]  # fmt: skip
        labels.record_events(self.store, project_id=self.project_id, annotator=who, events=events)

    def sort_by_looks(self) -> None:
        """Make an index of looks, as the worker does."""
        rng = np.random.default_rng(1)
        rows = rng.normal(size=(len(self.ids), 8)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        none = np.zeros(len(self.ids), np.int64)
        arrays = {
            "ids": np.array(self.ids), "signs": none, "rows": rows,
            "clusters": none.astype(np.int32), "unread": none[:0],
            "ratio": np.zeros(len(self.ids), np.float32),
            "places": np.zeros((len(self.ids), 2), np.float32),
        }  # fmt: skip
        facts = {"map_method": "pca", "previews": [[]]}
        write_index(self.store, project_id=self.project_id, arrays=arrays, facts=facts)


class Person:
    """Somebody in front of the one-by-one view."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.ready()

    def ready(self) -> None:
        """Wait until a picture is there."""
        self.page.locator(".one .frame img").first.wait_for(timeout=1000 * PATIENCE)
        self.page.wait_for_timeout(500)  # the pictures ahead

    def shown(self) -> int:
        """Return the id of the image on screen, 0 for none."""
        return int(self.page.evaluate(f"{DEEP}; deep('.one .frame').dataset.id || 0"))

    def press(self, *keys: str, pause_ms: int = 40) -> list[int]:
        """Press keys; return the image that was on screen at each."""
        seen = []
        for key in keys:
            wait_until(lambda: self.shown() > 0)  # of the last images one holds few
            seen.append(self.shown())
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(pause_ms)
        return seen

    def all_saved(self) -> None:
        """Wait until nothing is on its way any more."""
        self.page.wait_for_function("() => !window.__cnsappOutbox1.items.length")

    def text(self, selector: str) -> str:
        """Return the text of a part of the component."""
        return str(self.page.locator(selector).first.inner_text())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("queue") / "pictures"
    make_pictures(folder, N_IMAGES)
    return folder


@pytest.fixture(scope="module")
def app_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    live = LiveApp(tmp_path_factory.mktemp("queue") / "home", start_worker=False)
    yield live
    live.stop()


@pytest.fixture
def shared(app_for_all: LiveApp, pictures: Path) -> Shared:
    return Shared(app_for_all, pictures)


@pytest.fixture
def others(browser: Any) -> Iterator[Any]:
    """Return what opens pages of other people, each in a browser of their own."""
    opened: list[Any] = []

    def another() -> Any:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(1000 * PATIENCE)
        opened.append(context)
        return context.new_page()

    yield another
    for context in opened:
        context.close()


def test_two_browsers_are_handed_no_image_twice(shared: Shared, page: Any, others: Any) -> None:
    one, two = shared.open(page), shared.open(others(), "ben")
    seen: list[int] = []
    for _ in range(15):
        seen += one.press("1")
        seen += two.press("2")
    one.all_saved()
    two.all_saved()
    assert max(Counter(seen).values()) == 1
    assert sorted(e.image_id for e in shared.events()) == sorted(seen)


def test_five_browsers_label_every_image_exactly_once(
    shared: Shared, page: Any, others: Any
) -> None:
    people = [shared.open(page, "p0")] + [shared.open(others(), f"p{i}") for i in range(1, 5)]
    began = time.monotonic()
    while len(shared.events()) < N_IMAGES and time.monotonic() - began < 2 * PATIENCE:
        for person in people:
            if person.shown():
                person.page.keyboard.press("1")
        if not any(person.shown() for person in people):
            page.wait_for_timeout(500)
    events = shared.events()
    assert sorted(e.image_id for e in events) == shared.ids
    assert len({(e.client, e.seq) for e in events}) == N_IMAGES


def test_a_reload_goes_on_with_the_image_on_screen_and_arrows_lead_back(
    shared: Shared, page: Any
) -> None:
    maria = shared.open(page, next="random")
    seen = maria.press("1", "2", "ArrowRight", "3")
    on_screen = maria.shown()
    held = set(shared.leased())
    page.reload()
    maria.ready()
    assert maria.shown() == on_screen
    wait_until(lambda: on_screen in shared.leased())
    assert len(set(shared.leased()) & held) >= 15, "what was ahead is still ahead"
    back = [maria.shown()]
    for _ in seen:
        maria.page.keyboard.press("ArrowLeft")
        back.append(maria.shown())
    assert back == [on_screen, *reversed(seen)]
    assert maria.text(".one .now").startswith("colon")


def test_the_images_are_given_back_when_the_view_is_left(shared: Shared, page: Any) -> None:
    maria = shared.open(page)
    assert len(shared.leased()) >= 20
    maria.press("1", "1")
    maria.all_saved()
    page.get_by_text("Grid", exact=True).click()
    page.locator(".cell").first.wait_for()
    wait_until(lambda: not shared.leased())


def test_what_a_colleague_labelled_meanwhile_is_dropped(shared: Shared, page: Any) -> None:
    maria = shared.open(page, next="in order")
    first = maria.shown()
    theirs = shared.ids[2:8]
    shared.label(theirs)
    seen = maria.press(*"111111111111", pause_ms=150)
    assert seen[0] == first
    assert not set(theirs) & set(seen[10:]), "the next word with the server drops them"
    page.reload()
    maria.ready()
    assert maria.shown() not in theirs


def test_the_network_cut_for_a_while_costs_nothing(shared: Shared, page: Any) -> None:
    maria = shared.open(page)
    maria.page.wait_for_timeout(500)
    page.context.set_offline(True)
    seen = maria.press("1", "2", "3", "1")
    page.context.set_offline(False)
    maria.all_saved()
    seen += maria.press("2", "2")
    maria.all_saved()
    assert [e.image_id for e in shared.events()] == seen
    assert len(set(seen)) == 6


def test_a_restarted_server_goes_on_with_the_same_queue(
    live_app: LiveApp, pictures: Path, page: Any
) -> None:
    shared = Shared(live_app, pictures)
    maria = shared.open(page, next="in order")
    seen = maria.press("1", "2")
    maria.all_saved()
    live_app.kill()
    seen += maria.press("3")
    live_app.restart()
    maria.all_saved()
    maria.ready()
    seen += maria.press(*("1" * 30), pause_ms=60)
    maria.all_saved()
    assert seen == shared.ids[: len(seen)]


def test_the_reason_stands_beside_the_name(shared: Shared, page: Any) -> None:
    shared.sort_by_looks()
    maria = shared.open(page)
    assert maria.text(".one .why") == "to spread"


def test_labels_of_the_random_share_say_so(shared: Shared, page: Any) -> None:
    maria = shared.open(page, next="random")
    maria.press("1", "2")
    maria.all_saved()
    assert {e.action.startswith("random-") for e in shared.events()} == {True}
    maria = shared.open(page, next="in order")
    maria.press("1")
    maria.all_saved()
    assert not shared.events()[-1].action.startswith("random-")


def test_skipped_images_come_again_on_request_and_the_end_says_so(
    shared: Shared, page: Any
) -> None:
    shared.label(shared.ids[3:])
    maria = shared.open(page)
    skipped = maria.press("s", "s")
    maria.press("1")
    page.get_by_role("button", name="Show skipped again (2)").click()
    maria.ready()
    assert "next=skipped+again" in page.url
    assert maria.press("1") + maria.press("2") == skipped
    maria.all_saved()
    page.locator(".frame .end", has_text="last image of this queue").wait_for()


def test_what_people_disagree_on_is_decided_by_an_adjudication(shared: Shared, page: Any) -> None:
    shared.label(shared.ids[:2], "ann")
    maria = shared.open(page, "maria", next="in order", todo="Labelled")
    maria.press("2")
    maria.all_saved()
    head = shared.open(page, "head", next="people disagree")
    assert head.shown() == shared.ids[0]
    assert head.text(".one .why") == "people disagree"
    head.press("1")
    head.all_saved()
    assert shared.events()[-1].source == "adjudication"


def test_the_order_is_remembered_for_this_person_in_this_browser(shared: Shared, page: Any) -> None:
    shared.open(page, "maria")
    page.get_by_role("combobox", name="Next").click()
    page.get_by_role("option", name="random").click()
    wait_until(lambda: "next=random" in page.url)
    page.wait_for_function("() => localStorage.getItem('cnsapp.next_maria') === 'random'")
    shared.open(page, "maria")
    wait_until(lambda: "next=random" in page.url)
    shared.open(page, "ben")
    page.wait_for_timeout(1500)
    assert "next=" not in page.url


def test_two_people_on_one_image_are_both_kept(shared: Shared, page: Any) -> None:
    maria = shared.open(page, next="in order")
    image_id = maria.shown()
    shared.label([image_id], "ben")
    maria.press("2")
    maria.all_saved()
    assert {e.annotator for e in shared.events() if e.image_id == image_id} == {"maria", "ben"}
