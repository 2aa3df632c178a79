"""By looks in a real browser: an outline on the map, clusters, similar images; labelled at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnsapp.services import looks
from db.models import LabelEvent
from tests.browser.conftest import LiveApp
from tests.browser.test_labelling import DEEP, PATIENCE, World, make_pictures, wait_until
from tests.browser.visitor import PICTURES, Visitor
from tests.looks import index_of

pytestmark = pytest.mark.browser

N = 60
LEFT, MIDDLE = 15, 20  # images in the left heap of the map, and in the middle one
TONES = {"light": lambda n: n > 600, "dark": lambda n: n < 200}


class Looks(World):
    """Sixty pictures in three heaps that lie beside each other on the map, a cluster each."""

    def __init__(self, live: LiveApp, page: Any, folder: Path, n: int = N) -> None:
        super().__init__(live, page, folder)
        self.ids = [item.id for item in self.items()]
        heap = np.repeat([0, 1, 2], [LEFT, MIDDLE, n - LEFT - MIDDLE])
        rng = np.random.default_rng(2)
        rows = np.eye(8)[heap] + 0.1 * rng.normal(size=(n, 8))
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        places = np.stack([10.0 * heap, np.zeros(n)], axis=1) + rng.uniform(-1, 1, (n, 2))
        ratio = rng.permutation(n) / n
        self.heap, self.clear = heap, ratio < 0.5
        index_of(self.store, self.project_id, self.rows, clusters=heap, places=places, ratio=ratio)
        self.visitor = Visitor(live, page)

    def open_looks(self, more: str = "") -> None:
        """Open the view by looks."""
        query = f"project={self.project_id}&who=maria&view=By+looks{more}"
        self.page.goto(f"{self.live.url}/label?{query}")

    def open_map(self) -> None:
        """Open the map and wait until it is drawn."""
        self.open_looks()
        self.page.locator(".lookmap .stage[data-drawn]").wait_for()
        self.visitor.settled()

    def around(self, left: float, right: float) -> None:
        """Draw an outline around a part of the map's width, as a hand does."""
        box = self.page.locator(".lookmap .stage").bounding_box()
        side = min(box["width"], box["height"])
        start = box["x"] + (box["width"] - side) / 2
        x1, x2 = start + left * side, start + right * side
        y1, y2 = box["y"] + box["height"] / 2 - 120, box["y"] + box["height"] / 2 + 120
        mouse = self.page.mouse
        mouse.move(x1, y1)
        mouse.down()
        for x, y in ((x2, y1), (x2, y2), (x1, y2), (x1, y1 + 4)):
            mouse.move(x, y, steps=8)
        mouse.up()

    def row(self, cluster: int) -> Any:
        """Return the row of a cluster in the list."""
        return self.page.locator(f'.clusters .row[data-id="{cluster}"]')

    def numbers(self) -> list[int]:
        """Return the clusters in the order of the list."""
        rows = self.page.locator(".clusters .row")
        return [int(i) for i in rows.evaluate_all("all => all.map((r) => r.dataset.id)")]

    def cells(self) -> list[int]:
        """Return the images of the grid in their order."""
        found = self.page.locator(".cell").evaluate_all("all => all.map((c) => c.dataset.id)")
        return [int(i) for i in found if i]

    def wait_for_cells(self, ids: list[int]) -> None:
        """Wait until the grid shows just these, in any order."""
        wait_until(
            lambda: sorted(self.cells()) == sorted(ids) or self.page.wait_for_timeout(100),
            PATIENCE, lambda: f"the grid shows {self.cells()}, not {ids}",
        )  # fmt: skip

    def label_all(self, key: str, name: str) -> None:
        """Label all that is chosen."""
        self.page.locator(f".st-key-{key}_all button").first.click()
        self.page.locator(f".st-key-{key}_class").get_by_role("combobox").click()
        self.page.get_by_role("option", name=name, exact=True).click()
        self.page.locator(f".st-key-{key}_go button:not([disabled])").click()

    def labels_of(self, kind: str = "label") -> list[LabelEvent]:
        """Return the stored events of a kind."""
        return [event for event in self.events() if event.kind == kind]


@pytest.fixture
def shown(live_app: LiveApp, page: Any, tmp_path: Path) -> Looks:
    """Return the project, before a browser."""
    folder = tmp_path / "pictures"
    make_pictures(folder, N)
    return Looks(live_app, page, folder)


def test_what_is_outlined_on_the_map_is_labelled_at_once_and_taken_back(shown: Looks) -> None:
    shown.open_map()
    assert shown.page.locator(".lookmap .said").inner_text() == "60 images"
    shown.around(0.01, 0.3)
    shown.wait_for_cells(shown.ids[:LEFT])
    assert shown.page.locator(".lookmap .said").inner_text() == "15 of 60 images"
    chosen = shown.classes[2]
    shown.label_all("looks_map_grid", chosen.name)
    shown.page.get_by_text(f"15 images labelled as {chosen.name}.").wait_for()
    events = shown.labels_of()
    assert sorted(e.image_id for e in events) == shown.ids[:LEFT]
    assert {(e.class_id, e.annotator, e.source) for e in events} == {(chosen.id, "maria", "bulk")}
    assert len({e.action for e in events}) == 1
    legend = shown.page.locator(".lookmap .legend button", has_text=chosen.name)
    assert legend.locator("em").inner_text() == "15"

    shown.page.locator(".st-key-looks_undo button").click()
    shown.page.get_by_text("Taken back for 15 images.").wait_for()
    assert len(shown.labels_of("undo")) == LEFT
    assert {item.state for item in shown.items()} == {"none"}
    shown.visitor.no_traceback()
    assert shown.visitor.elsewhere == []


def test_an_outline_of_more_than_a_grid_shows_says_what_to_do(
    live_app: LiveApp, page: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    make_pictures(folder, 205)
    shown = Looks(live_app, page, folder, n=205)
    shown.open_map()
    shown.around(0.01, 0.99)
    shown.page.get_by_text("200 of them are shown. Draw a smaller outline to see").wait_for()
    wait_until(
        lambda: len(shown.cells()) == 200 or page.wait_for_timeout(100),
        PATIENCE, lambda: f"{len(shown.cells())} cells",
    )  # fmt: skip
    shown.label_all("looks_map_grid", shown.classes[0].name)
    page.get_by_text(f"205 images labelled as {shown.classes[0].name}.").wait_for()
    assert len(shown.labels_of()) == 205


def test_browser_and_server_agree_on_what_an_outline_holds(shown: Looks) -> None:
    shown.open_map()
    for right in (0.2, 0.47, 0.55, 0.99):
        shown.around(0.01, right)
        shown.visitor.settled()
        said = shown.page.locator(".lookmap .said").inner_text()
        n = int(said.split()[0]) if " of " in said else 0
        wait_until(
            lambda n=n: len(shown.cells()) == n or shown.page.wait_for_timeout(100),
            PATIENCE, lambda s=said: f"{s}, but {len(shown.cells())} in the grid",
        )  # fmt: skip
    assert n == N
    shown.page.keyboard.press("Escape")  # the map has the focus
    shown.page.get_by_text("Drag around a heap of points").wait_for()


def test_a_point_shows_its_picture_and_its_name(shown: Looks) -> None:
    shown.open_map()
    place = shown.page.evaluate(
        f"() => {{ {DEEP}; const b = deep('.stage').getBoundingClientRect();"
        " return [b.x, b.y, b.width, b.height] }"
    )
    points = looks.map_points(shown.store, project_id=shown.project_id)
    steps = points.places.astype(float)
    apart = np.linalg.norm(steps[:, None] - steps[None], axis=2) + 1e9 * np.eye(N)
    lone = int(apart.min(axis=1).argmax())  # no other point is nearer to the mouse
    side = min(place[2], place[3]) - 32
    middle = np.array([place[0] + place[2] / 2, place[1] + place[3] / 2])
    x, y = (steps[lone] / 65_535 - 0.5) * side + middle
    shown.page.mouse.move(x + 1, y + 1)
    tip = shown.page.locator(".lookmap .tip")
    tip.locator("img").wait_for()
    item = looks.list_items(shown.store, image_ids=[int(points.image_ids[lone])])[0]
    tip.get_by_text(item.name.split("/")[-1], exact=True).wait_for()
    assert tip.locator(".key").inner_text() == "No class"
    shown.page.wait_for_function(f"() => {{ {DEEP}; return deep('.tip img').naturalWidth > 0 }}")


def test_a_cluster_is_labelled_as_a_whole_but_for_what_has_a_label(shown: Looks) -> None:
    shown.open_looks("&looks_by=Clusters")
    shown.row(0).get_by_role("button", name="Open").click()
    shown.wait_for_cells(shown.ids[:LEFT])
    clear = [i for i, is_clear in zip(shown.ids, shown.clear, strict=True) if is_clear]
    n_border = LEFT - len(set(clear) & set(shown.ids[:LEFT]))
    assert shown.page.locator(".badge:visible", has_text="border").count() == n_border > 0
    first = shown.cells()[0]
    shown.cell(0).click()
    shown.page.keyboard.press(shown.classes[0].hotkey or "1")  # one by hand, the others at once
    shown.wait_for_events(1)
    chosen = shown.classes[4]
    shown.page.locator(".st-key-looks_todo label").first.click()
    shown.wait_for_cells([i for i in shown.ids[:LEFT] if i != first])
    shown.label_all("looks_cluster_grid", chosen.name)
    shown.page.get_by_text(f"{LEFT - 1} images labelled as {chosen.name}.").wait_for()
    named = {item.id: item.class_id for item in shown.items()}
    assert named[first] == shown.classes[0].id
    assert {named[i] for i in shown.ids[:LEFT] if i != first} == {chosen.id}
    assert {named[i] for i in shown.ids[LEFT:]} == {None}
    shown.page.locator(".st-key-looks_back button").click()
    shown.row(0).get_by_text("15 labelled").wait_for()
    assert shown.numbers()[-1] == 0  # nothing is left in it: it went to the end


def test_keys_label_the_clear_images_of_one_cluster_after_the_other(shown: Looks) -> None:
    shown.open_looks("&looks_by=Clusters")
    shown.page.locator(".clusters .row.current").wait_for()
    order = shown.numbers()
    n_clear = [int((shown.clear & (shown.heap == k)).sum()) for k in order]
    assert n_clear == sorted(n_clear, reverse=True)
    shown.row(order[0]).get_by_text(f"Label the {n_clear[0]} clear ones as").wait_for()
    assert shown.row(order[0]).locator("img").count() == 6
    one, other = shown.classes[1], shown.classes[3]
    shown.page.keyboard.press(one.hotkey or "2")
    shown.page.keyboard.press(other.hotkey or "4")  # at once: the frame moved on meanwhile
    for at, chosen in ((0, one), (1, other)):
        said = f"{n_clear[at]} images labelled as {chosen.name}"
        shown.row(order[at]).get_by_text(said).wait_for()
    due = {}
    for i, is_clear, k in zip(shown.ids, shown.clear, shown.heap.tolist(), strict=True):
        at = order.index(k)
        due[i] = (one.id, other.id, None)[at] if is_clear else None
    assert {item.id: item.class_id for item in shown.items()} == due
    events = shown.labels_of()
    assert {(e.annotator, e.source) for e in events} == {("maria", "bulk")}
    assert len({e.action for e in events}) == 2

    shown.page.keyboard.press("u")  # the last one
    shown.row(order[1]).get_by_text(f"Label the {n_clear[1]} clear ones as").wait_for()
    shown.row(order[0]).get_by_role("button", name="Undo").click()
    shown.row(order[0]).get_by_text(f"Label the {n_clear[0]} clear ones as").wait_for()
    assert {item.state for item in shown.items()} == {"none"}
    shown.page.keyboard.press("ArrowDown")
    shown.row(order[1]).get_by_role("button", name=f"as {other.name}").click()
    shown.row(order[1]).get_by_text(f"{n_clear[1]} images labelled as {other.name}").wait_for()
    shown.page.reload()
    shown.row(order[1]).get_by_text("All clear ones are looked at.").wait_for()
    assert shown.numbers() == [order[0], order[2], order[1]]
    shown.visitor.no_traceback()


def test_clusters_that_were_sorted_anew_meanwhile_are_not_labelled(shown: Looks) -> None:
    shown.open_looks("&looks_by=Clusters")
    shown.page.locator(".clusters .row.current").wait_for()
    first = shown.numbers()[0]
    index_of(shown.store, shown.project_id, shown.rows, clusters=shown.heap[::-1].copy())
    shown.page.keyboard.press(shown.classes[0].hotkey or "1")
    shown.row(first).get_by_text("The images were sorted anew meanwhile").wait_for()
    assert shown.labels_of() == []


def test_no_page_asks_for_what_is_not_there(shown: Looks) -> None:
    missing: list[str] = []
    shown.page.on("response", lambda r: missing.append(r.url) if r.status >= 400 else None)
    shown.open_looks("&looks_by=Clusters")
    shown.page.locator(".clusters .row.current").wait_for()
    shown.page.get_by_role("link", name="Settings").click()
    shown.page.get_by_role("heading", name="Settings").first.wait_for()
    shown.page.reload()
    shown.page.get_by_role("heading", name="Settings").first.wait_for()
    assert missing == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_clusters_read_well_in_both_looks(shown: Looks, scheme: str) -> None:
    shown.page.emulate_media(color_scheme=scheme)
    shown.open_looks("&looks_by=Clusters")
    shown.page.locator(".clusters .row.current").wait_for()
    shown.page.keyboard.press(shown.classes[0].hotkey or "1")
    shown.page.get_by_text("labelled as").first.wait_for()
    shown.visitor.picture(f"looks-clusters-{scheme}")
    chip = shown.page.locator(".clusters .chip").first
    colors = chip.evaluate(
        "e => { const c = getComputedStyle(e); return [c.color, c.backgroundColor]; }"
    )
    tone = [
        sum(int(float(v)) for v in color[color.index("(") + 1 : -1].split(",")[:3])
        for color in colors
    ]
    assert abs(tone[0] - tone[1]) > 350


def test_the_selected_images_of_the_grid_lead_to_similar_ones(shown: Looks) -> None:
    shown.open()
    shown.cell(20).click()
    shown.cell(22).click(modifiers=["Control"])
    asked = [shown.ids[20], shown.ids[22]]
    shown.page.get_by_role("button", name="Similar", exact=True).click()
    shown.page.locator(".badge").first.wait_for()
    closeness = shown.rows @ (shown.rows[20] + shown.rows[22])
    due = [shown.ids[k] for k in np.argsort(-closeness) if shown.ids[k] not in asked]
    wait_until(
        lambda: shown.cells() == due or shown.page.wait_for_timeout(100),
        PATIENCE, lambda: f"{shown.cells()[:5]}…, not {due[:5]}…",
    )  # fmt: skip
    assert f"like={asked[0]}%2C{asked[1]}" in shown.page.url
    assert "default value" not in shown.live.log.read_text()  # a warning of Streamlit's
    shown.page.reload()  # the address is enough
    shown.page.locator(".badge").first.wait_for()
    assert shown.cells() == due


def test_before_there_is_an_index_the_view_says_what_it_is_for(
    live_app: LiveApp, page: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    make_pictures(folder, 4)
    world = World(live_app, page, folder)
    page.goto(f"{live_app.url}/label?project={world.project_id}&who=maria&view=By+looks")
    page.get_by_text("Here images are sorted by what they look like").wait_for()
    page.locator(".st-key-looks_make button").click()
    page.get_by_text("waiting for the worker").first.wait_for()
    page.wait_for_timeout(500)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "looks-empty.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_reads_well_in_both_looks(shown: Looks, scheme: str) -> None:
    shown.page.emulate_media(color_scheme=scheme)
    shown.open_map()
    shown.around(0.01, 0.3)
    shown.wait_for_cells(shown.ids[:LEFT])
    shown.visitor.picture(f"looks-map-{scheme}")
    app = shown.page.locator(".stApp")
    color = app.evaluate("e => getComputedStyle(e).backgroundColor")
    ground = sum(int(v) for v in color[4:-1].split(",")[:3])
    assert TONES[scheme](ground)
    dot = shown.page.locator(".lookmap .legend i").first
    grey = dot.evaluate("e => getComputedStyle(e).backgroundColor")[4:-1].split(",")
    assert abs(sum(int(v) for v in grey[:3]) - ground) > 150  # unlabelled points are seen on it
