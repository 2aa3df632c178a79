"""The heat map of a predicted slide in a real browser: each tile in its colour at its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from cnsapp.imaging.tiling import TileSettings
from cnsapp.jobs.running import run_here
from cnsapp.services import predicting
from cnsapp.services.predicting import Results, read_results
from cnsapp.services.projects import create_project, list_classes
from db.models import LabelClass
from tests import slides
from tests.browser.conftest import LiveApp
from tests.browser.test_labelling import DEEP
from tests.browser.visitor import PICTURES
from tests.integration.test_slide_predictions import Judge
from tests.integration.worlds import World, add_model

pytestmark = pytest.mark.browser

WIDTH, HEIGHT, SIDE = 1600, 1200, 100
# columns of tissue (left, right) with a stain each: what the judge says of it follows from green
STAINS = {
    (200, 500): (150, 64, 130),  # dark 0.75
    (700, 900): (190, 128, 170),  # bright 0.502, below the threshold: unsure
    (1100, 1400): (190, 155, 60),  # bright 0.61
}
TOP, BOTTOM = 300, 900
COLORS = {"dark": (0x11, 0x55, 0xBB), "bright": (0xEE, 0x99, 0x22)}
NEAR = 4  # of 255: JPEG and blending round


def draw() -> np.ndarray[Any, Any]:
    """Return glass with three stains on it."""
    pixels = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
    for (left, right), color in STAINS.items():
        pixels[TOP:BOTTOM, left:right] = color
    return pixels


@dataclass
class Map:
    """A predicted slide on the Predict page."""

    live: LiveApp
    page: Any
    results: Results
    project_id: int

    def open(self, scheme: str = "light") -> None:
        """Open the page and wait for the map."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.goto(f"{self.live.url}/predict?project={self.project_id}&who=maria")
        self.page.locator(".stage canvas").wait_for()
        self.page.wait_for_function(
            f"() => {{ {DEEP}; const i = deep('.stage img'); return i && i.complete && "
            "i.naturalWidth > 0 }"
        )
        self.page.wait_for_load_state("networkidle")
        self.page.locator(".stage").scroll_into_view_if_needed()

    def box(self) -> dict[str, float]:
        """Return where the map is in the window."""
        found: dict[str, float] = self.page.locator(".stage").bounding_box()
        return found

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a pixel of the slide is in the window."""
        box = self.box()
        return box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT

    def painted(self, x: float, y: float) -> tuple[list[int], float]:
        """Return colour and opacity that the map itself has at a pixel of the slide."""
        script = f"""([x, y]) => {{ {DEEP}; const c = deep('.stage canvas');
            const [px, py] = [Math.floor(x * c.width), Math.floor(y * c.height)];
            return [...c.getContext('2d').getImageData(px, py, 1, 1).data]; }}"""
        *color, alpha = self.page.evaluate(script, [x / WIDTH, y / HEIGHT])
        return color, alpha / 255

    def seen(self) -> Callable[[float, float], np.ndarray[Any, Any]]:
        """Take a picture of the window; return what it shows at a pixel of the slide."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / "heat-map-check.png"
        self.page.screenshot(path=path)
        pixels = np.asarray(Picture.open(path).convert("RGB")).astype(int)

        def color(x: float, y: float) -> np.ndarray[Any, Any]:
            left, top = self.at(x, y)
            return np.asarray(pixels[int(top), int(left)])

        return color

    def fade_to(self, percent: int) -> None:
        """Move the slider of the map's opacity."""
        slider = self.page.get_by_label("Opacity of the map")
        slider.fill(str(percent))
        self.page.locator(".controls output", has_text=f"{percent} %").wait_for()

    def tip(self) -> str:
        """Return what is said of a tile."""
        return str(self.page.locator(".tip").inner_text())

    def tile(self, name: str, *, unsure: bool = False) -> Any:
        """Return a tile that was predicted so, in the middle of its stain."""
        rows = self.results.rows
        rows = rows[(rows["predicted"] == name) & ((rows["decision"] == "unsure") == unsure)]
        return rows.iloc[len(rows) // 2]


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveApp, Results, int]]:
    """Return an app with a slide that was predicted by a judge who looks at green alone."""
    folder = tmp_path_factory.mktemp("heat")
    live = LiveApp(folder / "home", start_worker=False)
    app = live.app
    project = create_project(app.store, name="Slides", classes=list(COLORS)).id
    classes = list_classes(app.store, project_id=project)
    with app.store.writing() as session:
        for one in classes:
            color = "#{:02X}{:02X}{:02X}".format(*COLORS[one.name])
            session.get_one(LabelClass, one.id).color = color
    model = add_model(World(app, project, [c.id for c in classes], []), [])
    job = predicting.start_prediction(
        app, project_id=project, path=slides.write_generic(folder / "biopsy.tif", draw()),
        model_id=model, tiles=TileSettings(tile_px=SIDE, min_tissue=0.9),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnsapp.tasks.predict.predictor_of", lambda *_: Judge())
        run_here(app, job)
    yield live, read_results(app, job_id=job), project
    live.stop()


@pytest.fixture
def shown(predicted: tuple[LiveApp, Results, int], page: Any) -> Map:
    """Return the map for somebody who comes to it anew."""
    live, results, project = predicted
    return Map(live, page, results, project)


def test_tiles_lie_at_their_places_in_the_colours_of_their_classes(shown: Map) -> None:
    shown.open()
    rows = shown.results.rows
    assert {(r.x, r.y) for r in rows.itertuples()} == {
        (x, y)
        for left, right in STAINS
        for x in range(left, right, SIDE)
        for y in range(TOP, BOTTOM, SIDE)
    }
    for row in rows.itertuples():
        faint = 0.35 if row.decision == "unsure" else 1.0
        for dx, dy in ((6, 6), (50, 50), (94, 94)):  # all of the tile, not its middle alone
            color, alpha = shown.painted(row.x + dx, row.y + dy)
            assert alpha == pytest.approx(faint, abs=0.01)
            np.testing.assert_allclose(color, COLORS[row.predicted], atol=NEAR)
    for x, y in ((100, 600), (600, 600), (1000, 600), (1500, 600), (300, 200), (300, 1000)):
        assert shown.painted(x, y)[1] == 0.0  # nothing was predicted there


def test_the_slide_shines_through_as_far_as_the_slider_says(shown: Map) -> None:
    shown.open()
    sure, unsure = shown.tile("bright"), shown.tile("bright", unsure=True)
    drawn = draw().astype(int)
    for percent in (0, 50, 100):
        shown.fade_to(percent)
        seen = shown.seen()
        for row, faint in ((sure, 1.0), (unsure, 0.35)):
            x, y = int(row.x) + 50, int(row.y) + 50
            share = percent / 100 * faint
            due = (1 - share) * drawn[y, x] + share * np.array(COLORS[row.predicted])
            np.testing.assert_allclose(seen(x, y), due, atol=NEAR + 2)
        np.testing.assert_allclose(seen(1000, 100), (240, 240, 240), atol=NEAR)


def test_a_class_of_its_own_is_shown_by_its_probability(shown: Map) -> None:
    shown.open()
    shown.page.locator(".controls select").select_option("bright")
    low, middle, high = (
        shown.tile("dark"),
        shown.tile("bright", unsure=True),
        shown.tile("bright"),
    )
    shades = [shown.painted(int(r.x) + 50, int(r.y) + 50)[0] for r in (low, middle, high)]
    # p 0.251, 0.502, 0.608 on the eight stops of the scale, worked out by hand
    due = [(124, 30, 107), (207, 72, 68), (233, 102, 41)]
    for shade, expected in zip(shades, due, strict=True):
        np.testing.assert_allclose(shade, expected, atol=3)
    assert "probability of bright" in shown.page.locator(".legend").inner_text()
    shown.page.mouse.move(*shown.at(int(low.x) + 50, int(low.y) + 50))
    assert shown.tip().splitlines()[:2] == ["dark 0.75", "bright 0.25"]


def test_the_pointer_and_the_arrow_keys_say_what_a_tile_is(shown: Map) -> None:
    shown.open()
    shown.page.mouse.move(*shown.at(250, 450))
    assert shown.tip().splitlines() == ["dark 0.75", "x 200, y 400"]
    frame, corner = shown.page.locator(".stage .frame").bounding_box(), shown.at(200, 400)
    assert (frame["x"], frame["y"]) == pytest.approx(corner, abs=1.5)
    assert frame["width"] == pytest.approx(shown.box()["width"] * SIDE / WIDTH, abs=1.5)
    shown.page.mouse.move(*shown.at(600, 450))  # bare glass
    shown.page.locator(".stage .tip").wait_for(state="hidden")

    shown.page.get_by_role("button", name="Download PNG").focus()
    shown.page.keyboard.press("Tab")
    said = []
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        shown.page.keyboard.press(key)
        said.append(shown.tip().splitlines())
    assert said == [
        ["dark 0.75", "x 200, y 300"],  # the first one
        ["dark 0.75", "x 300, y 300"],
        ["dark 0.75", "x 400, y 300"],
        ["bright 0.50, unsure", "x 700, y 300"],  # over the glass to the next stain
        ["bright 0.50, unsure", "x 700, y 400"],
        ["dark 0.75", "x 400, y 400"],
    ]
    shown.page.keyboard.press("Escape")
    shown.page.locator(".stage .tip").wait_for(state="hidden")


def test_the_gallery_below_names_tiles_by_their_place(shown: Map) -> None:
    shown.open()
    names = shown.page.locator(".gallery .name").all_inner_texts()
    assert len(names) == len(shown.results.rows)
    assert len(set(names)) == len(names)
    assert "x 1,100, y 300 · biopsy.tif" in names


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_reads_well_in_both_looks(shown: Map, scheme: str) -> None:
    shown.open(scheme)
    shown.page.mouse.move(*shown.at(1250, 650))
    shown.page.wait_for_timeout(300)
    shown.page.screenshot(path=PICTURES / f"heat-map-{scheme}.png")
    style = "e => getComputedStyle(e).{}"
    legend = shown.page.locator(".legend span").first
    words = [int(v) for v in legend.evaluate(style.format("color"))[4:-1].split(",")[:3]]
    ground = shown.page.locator(".stApp").evaluate(style.format("backgroundColor"))
    back = [int(v) for v in ground[4:-1].split(",")[:3]]
    assert abs(sum(words) - sum(back)) > 3 * 110  # dark on light, light on dark
    assert (sum(back) < 3 * 90) == (scheme == "dark")
    assert "11 fainter" not in shown.page.locator(".legend").inner_text()
    assert "12 fainter: unsure" in shown.page.locator(".legend").inner_text()
