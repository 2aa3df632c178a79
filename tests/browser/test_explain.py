"""Explain in a real browser: maps by a real worker, drawn, changed, zoomed, saved and checked."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image as Picture

from cnsapp.services import jobs, viewing
from cnsapp.services.images import get_image, image_path
from cnsapp.services.models import current_model
from cnsapp.services.training import start_training
from tests.browser.conftest import LiveApp
from tests.browser.visitor import PATIENCE, Visitor, wait_for
from tests.integration.worlds import World, make_world, relabel

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIDE = 96
PANEL = 576  # what a saved figure makes of it: six times as large
GAP = 42  # px of white around its panels
READ = """() => {
    const of = (selector) => [...document.querySelectorAll('*')]
        .flatMap((host) => [...(host.shadowRoot?.querySelectorAll(selector) ?? [])]);
    return of('canvas').map((c) => c.toDataURL('image/png').split(',')[1]);
}"""


@dataclass
class Explain(Visitor):
    """The page with an image whose label was changed after the training."""

    world: World
    image_id: int

    def __init__(self, live: LiveApp, page: Any, world: World, image_id: int) -> None:
        super().__init__(live, page)
        self.world, self.image_id = world, image_id

    def open(self) -> None:
        model = current_model(self.live.store, project_id=self.world.project_id)
        address = f"project={self.world.project_id}&model={model.id}&image={self.image_id}"
        self.page.goto(f"{self.live.url}/explain?{address}&who=Ann")
        self.ready(2)

    def ready(self, n: int) -> None:
        """Wait until so many maps are drawn."""
        self.page.locator("canvas.map.ready").nth(n - 1).wait_for(timeout=PATIENCE * 60_000)

    def drawn(self) -> list[np.ndarray[Any, Any]]:
        """Return the pixels of the original and of the maps, as they are on the screen."""
        self.page.evaluate("() => new Promise((f) => requestAnimationFrame(() => setTimeout(f)))")
        pictures = [Picture.open(BytesIO(b64decode(one))) for one in self.page.evaluate(READ)]
        return [np.asarray(one.convert("RGB")).astype(int) for one in pictures]

    def set(self, name: str, value: int) -> None:
        self.page.locator(f"input.{name}").fill(str(value))

    def covered(self, at: int = 1) -> float:
        """Return the share of the image that a map covers."""
        original, *maps = self.drawn()
        return float((np.abs(maps[at - 1] - original).max(2) > 0).mean())

    def save(self, kind: str, target: Path) -> Path:
        with self.page.expect_download() as waiting:
            self.page.get_by_role("button", name=f"Save the figure as {kind}").click()
        path: Path = target / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path


@pytest.fixture
def explain(live_app_with_worker: LiveApp, page: Any) -> Iterator[Explain]:
    """Return a project with a trained model, and the worker that runs."""
    live = live_app_with_worker
    world = make_world(live.app, {"liver": 8, "colon & <co>": 8}, side=SIDE)
    job_id = start_training(live.app, project_id=world.project_id)
    wait_for(lambda: not jobs.get_job(live.store, job_id=job_id).is_active, 60, "a model")
    image_id = world.image_ids[0][2]
    relabel(world, image_id, world.class_ids[1])
    viewing.set_um_per_px(live.store, project_id=world.project_id, value=0.5)
    visitor = Explain(live, page, world, image_id)
    visitor.open()
    yield visitor
    visitor.no_traceback()
    assert visitor.elsewhere == []


def test_maps_are_compared_changed_and_saved(explain: Explain, tmp_path: Path) -> None:
    page = explain.page
    titles = page.locator(".map-panel figcaption strong").all_inner_texts()
    assert titles == ["Evidence for liver (predicted)", "Evidence for colon & <co> (its label)"]
    change_the_look(explain)
    look_closely(explain)
    figure_as_png(explain, tmp_path)
    figure_as_svg(explain, tmp_path)
    checks_come(explain)
    second_method(explain)
    keys(explain)


def change_the_look(explain: Explain) -> None:
    """Threshold, colours, contours and opacity change the maps, and nothing is asked of anybody."""
    page, asked = explain.page, list[str]()
    page.on("request", lambda request: asked.append(request.url))
    strongest = explain.covered()
    explain.set("strongest", 20)
    assert 0 < explain.covered() <= 0.22 < strongest
    before = explain.drawn()[1]
    page.locator("select.rising").select_option("Viridis")
    after = explain.drawn()[1]
    assert (before != after).any() and 0 < explain.covered() <= 0.22
    page.locator("select.style").select_option("contours")
    assert (explain.drawn()[1] != after).any()
    page.locator("select.style").select_option("filled")
    explain.set("strongest", 100)
    explain.set("opacity", 0)
    assert explain.covered(1) == explain.covered(2) == 0
    assert [url for url in asked if "/img/" in url] == []


def look_closely(explain: Explain) -> None:
    """A click brings all panels closer at the same place; the key 0 shows the whole again."""
    page, whole = explain.page, explain.drawn()[0]
    page.locator("canvas.map").first.click(position={"x": 30, "y": 40})
    original, first, second = explain.drawn()
    assert (original != whole).any()
    assert (first == original).all() and (second == original).all()
    page.locator("canvas.map").first.press("0")
    assert (explain.drawn()[0] == whole).all()
    explain.set("opacity", 85)


def figure_as_png(explain: Explain, folder: Path) -> None:
    path = explain.save("PNG", folder)
    image = get_image(explain.live.store, image_id=explain.image_id)
    assert path.name == f"{Path(image.name).stem}-map.png"
    with (
        Picture.open(path) as figure,
        Picture.open(image_path(explain.live.store, image_id=image.id)) as source,
    ):
        assert figure.width == 3 * PANEL + 4 * GAP  # three panels, and the white between
        pixels = np.asarray(figure.convert("RGB")).astype(int)
        wanted = np.asarray(
            source.convert("RGB").resize((PANEL, PANEL), Picture.Resampling.NEAREST)
        )
    ink = np.abs(pixels - 255).max(2) > 60
    top = int(np.argmax(ink[:, GAP + 2 : GAP + PANEL - 2].mean(1) > 0.9))
    shown = pixels[top + 2 : top + PANEL - 100, GAP + 2 : GAP + PANEL - 2]
    source_part = wanted[2 : PANEL - 100, 2 : PANEL - 2]
    assert np.abs(shown - source_part).mean() < 12  # the picture itself, but for JPEG
    legend = pixels[top + PANEL + 4 :, 2 * GAP + PANEL : 2 * (GAP + PANEL)]
    colourful = (legend.max(2) - legend.min(2)) > 60
    assert colourful.sum() > 1000  # the scale in colour
    assert ((legend.max(2) < 100) & ~colourful).sum() > 300  # and words in ink


def figure_as_svg(explain: Explain, folder: Path) -> None:
    path = explain.save("SVG", folder)
    root = ElementTree.parse(path).getroot()
    name = "{http://www.w3.org/2000/svg}"
    texts = [text.text or "" for text in root.iter(f"{name}text")]
    assert len(list(root.iter(f"{name}image"))) == 5  # the picture three times, and two maps
    bars = [g for g in root.iter(f"{name}g") if g.get("class") == "scale-bar"]
    assert len(bars) == 3
    bar = bars[0].findtext(f"{name}text")
    length = float(re.search(r"h([\d.]+)$", bars[0].findall(f"{name}path")[1].get("d", ""))[1])  # type: ignore[index]
    assert bar == "10 µm" and length == pytest.approx(10 / 0.5 * PANEL / SIDE)
    words = " ".join(texts)
    for said in (
        "Evidence for colon & <co> (its label)", "HiResCAM", "no evidence",
        "most evidence for liver", "Model: Quick 1", "only what speaks for the class",
        "96 × 96 px, the original resolution; every pixel is drawn 6 × 6",
    ):  # fmt: skip
        assert said in words, said


def checks_come(explain: Explain) -> None:
    """The curves against chance and the comparison with random weights come by themselves."""
    page = explain.page
    page.locator(".chart svg").nth(1).wait_for(timeout=PATIENCE * 120_000)
    page.locator(".honest", has_text="Random weights.").nth(1).wait_for(timeout=PATIENCE * 60_000)
    said = page.locator(".honest").first.inner_text()
    assert re.search(r"insertion minus deletion|the map is empty", said)
    assert page.locator(".chart polyline.insertion").count() == 2


def second_method(explain: Explain) -> None:
    field = explain.widget("explain_methods").locator("input").first
    field.fill("Grad-CAM")
    field.press("Enter")
    field.press("Escape")
    explain.ready(4)
    notes = explain.page.locator(".map-panel figcaption > .note").all_inner_texts()
    assert [note.partition(" ")[0] for note in notes] == ["HiResCAM", "Grad-CAM"] * 2


def keys(explain: Explain) -> None:
    """Arrows on a slider move the slider; anywhere else they walk through the list."""
    page = explain.page
    page.locator("input.opacity").press("ArrowLeft")
    assert page.locator("input.opacity").input_value() == "84"
    assert f"image={explain.image_id}" in page.url
    page.locator(".st-key-explain_list").get_by_text("All images").click()
    page.locator(".st-key-explain_next button:not([disabled])").wait_for()
    page.get_by_role("heading", name="Explain").click()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(f"image={explain.image_id + 1}"))
