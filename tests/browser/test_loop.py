"""The main job in a real browser: Images, Label, Train, Review, Explain, Predict."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cnsapp.imaging.synthetic import ORGANS, make_tissue
from tests.browser.conftest import LiveApp
from tests.browser.visitor import Visitor, wait_for
from tests.places import data_folder

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CLASSES = ("AC", "H", "S", "T", "V")
LABELLED, TO_LABEL, NEW = 24, 4, 3  # images a class


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out real colorectal tiles, or drawn ones: some labelled, some not, some new."""
    folder = tmp_path_factory.mktemp("tissue")
    for place, name in enumerate(CLASSES):
        real = data_folder() / "crc5-he" / name
        files = sorted(real.iterdir()) if real.is_dir() else draw(folder / "drawn", name, place)
        for at, file in enumerate(files[: LABELLED + TO_LABEL + NEW]):
            if at < LABELLED:
                target = folder / "labelled" / name / file.name
            elif at < LABELLED + TO_LABEL:
                target = folder / "unlabelled" / f"{name}_{file.name}"
            else:
                target = folder / "new" / f"{name}_{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return folder


def draw(folder: Path, name: str, place: int) -> list[Path]:
    """Draw tissue for where there are no real tiles."""
    organ = list(ORGANS)[place]
    folder.mkdir(exist_ok=True)
    files = []
    for at in range(LABELLED + TO_LABEL + NEW):
        files.append(folder / f"{name}_{at:02}.jpg")
        Image.fromarray(make_tissue(organ, at % 6, at)).save(files[-1], quality=90)
    return files


def test_a_biologist_goes_round_the_whole_loop(
    live_app_with_worker: LiveApp, page: Any, tissue: Path, tmp_path: Path
) -> None:
    visitor = Visitor(live_app_with_worker, page)
    page.goto(live_app_with_worker.url)
    page.get_by_text("Try the demo").first.wait_for()
    visitor.picture("home-empty")
    make_project(visitor)
    import_labelled(visitor, tissue)
    import_unlabelled(visitor, tissue)
    label_by_keys(visitor)
    train(visitor)
    review_and_relabel(visitor)
    explain(visitor)
    predict(visitor, tissue, tmp_path)
    page.get_by_role("link", name="Home", exact=True).first.click()
    visitor.widget("next_step").wait_for()
    visitor.picture("home")
    assert visitor.elsewhere == []  # nothing was asked of any other machine


def make_project(visitor: Visitor) -> None:
    visitor.type_into("new_name", "Colon biopsies")
    visitor.choose("new_kind", "My own")
    visitor.type_into("new_classes", "\n".join(CLASSES))
    visitor.press_button("new_create")
    wait_for(lambda: visitor.count("SELECT count(*) FROM label_class") == 5, 20, "five classes")


def import_labelled(visitor: Visitor, tissue: Path) -> None:
    visitor.go("Images")
    visitor.type_into("import_path", str(tissue / "labelled"))
    visitor.choose("import_labels", "Folder names")
    visitor.press_button("import_start")
    total = LABELLED * len(CLASSES)
    wait_for(lambda: visitor.count("SELECT count(*) FROM current_label") == total, 60, "labels")
    visitor.page.get_by_text(f"{total} images imported").first.wait_for(timeout=120_000)
    visitor.no_traceback()


def import_unlabelled(visitor: Visitor, tissue: Path) -> None:
    broken = tissue / "unlabelled" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    visitor.choose("images_tab", "Import")
    visitor.type_into("import_path", str(tissue / "unlabelled"))
    visitor.choose("import_labels", "None")
    visitor.press_button("import_start")
    total = (LABELLED + TO_LABEL) * len(CLASSES)
    wait_for(lambda: visitor.count("SELECT count(*) FROM image") == total, 60, "images")
    visitor.choose("images_tab", "Import")
    visitor.page.get_by_text("broken.jpg").first.wait_for(state="attached", timeout=120_000)
    visitor.picture("images-import")
    visitor.choose("images_tab", "Browse")
    visitor.page.locator("img").nth(20).wait_for()
    visitor.picture("images")
    visitor.no_traceback()


def label_next(page: Any, at: int) -> None:
    """Label the image that is shown, and wait until another one is, or none."""
    shown = page.locator(".one .frame img").get_attribute("src")
    page.keyboard.press(str(1 + at % 5))
    gone = "src => document.querySelector('.one .frame img')?.getAttribute('src') !== src"
    page.wait_for_function(gone, arg=shown)


def label_by_keys(visitor: Visitor) -> None:
    """One by one with a reload in the middle: nothing is lost, nothing comes twice."""
    page, n = visitor.page, TO_LABEL * len(CLASSES)
    visitor.page.goto(f"{visitor.live.url}/label?who=Ada&view=One by one")
    page.locator(".one .frame img").wait_for()
    for at in range(n // 2):
        label_next(page, at)
    visitor.picture("label-single")
    page.reload()
    page.locator(".one .frame img").wait_for()
    page.wait_for_load_state("networkidle")
    for at in range(n // 2, n):
        label_next(page, at)
    mine = "SELECT count(DISTINCT image_id) FROM label_event WHERE annotator = 'Ada'"
    wait_for(lambda: visitor.count(mine) == n, 20, f"{n} images labelled once each")
    assert visitor.count("SELECT count(*) FROM label_event WHERE annotator = 'Ada'") == n
    page.goto(f"{visitor.live.url}/label?who=Ada")
    page.locator(".cell img").nth(30).wait_for()
    page.locator(".cell").nth(3).click()
    page.locator(".cell").nth(9).click(modifiers=["Shift"])
    visitor.picture("label-grid")
    page.keyboard.press("Escape")


def train(visitor: Visitor) -> None:
    visitor.go("Train")
    visitor.press_button("train_start")
    visitor.page.locator("[class*=st-key-train_job_]").first.wait_for(timeout=120_000)
    visitor.picture("train-running")
    wait_for(lambda: visitor.count("SELECT count(*) FROM model") == 1, 240, "a model")
    visitor.page.locator(".st-key-train_result").wait_for(timeout=120_000)
    visitor.picture("train")
    visitor.no_traceback()
    n = (LABELLED + TO_LABEL) * len(CLASSES)
    assert visitor.count("SELECT count(*) FROM prediction WHERE fold IS NOT NULL") == n


def review_and_relabel(visitor: Visitor) -> None:
    """A click on the matrix opens its images; a key corrects one; the model is said to be old."""
    page = visitor.page
    visitor.press_button("train_review")
    cells = page.locator(".matrix td button")
    cells.first.wait_for(timeout=120_000)
    visitor.picture("review")
    wrong = page.locator(".matrix td button.wrong:not(.zero)")
    (wrong if wrong.count() else cells).first.click()
    page.get_by_text(re.compile("Labelled .*, predicted as")).first.wait_for()
    first = page.locator(".st-key-review_gallery .cell").first
    first.wait_for()
    first.click()
    before = visitor.count("SELECT count(*) FROM label_event WHERE source = 'review'")
    page.keyboard.press("2")
    page.keyboard.press("3")
    wait_for(
        lambda: visitor.count("SELECT count(*) FROM label_event WHERE source = 'review'") > before,
        20,
        "the correction is stored",
    )
    visitor.picture("review-cell")
    page.reload()
    page.get_by_text("Labels changed since this model").first.wait_for(timeout=120_000)
    visitor.no_traceback()


def explain(visitor: Visitor) -> None:
    """From the review to the map, made by the worker, over the original pixels."""
    page = visitor.page
    first = page.locator(".st-key-review_gallery .cell").first
    first.wait_for()
    first.click()
    page.get_by_role("button", name="Explain").first.click()
    page.locator("canvas.map.ready").first.wait_for(timeout=120_000)
    visitor.picture("explain")
    visitor.no_traceback()


def predict(visitor: Visitor, tissue: Path, tmp_path: Path) -> None:
    page = visitor.page
    visitor.go("Predict")
    visitor.choose("predict_from", "Folder on this computer")
    visitor.type_into("predict_path", str(tissue / "new"))
    visitor.press_button("predict_start")
    page.locator(".st-key-predict_csv button").wait_for(timeout=120_000)
    page.locator(".st-key-predict_gallery img").first.wait_for()
    visitor.picture("predict")
    with page.expect_download() as waiting:
        visitor.press_button("predict_csv")
    target = tmp_path / "predictions.csv"
    waiting.value.save_as(target)
    with target.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == NEW * len(CLASSES)
    assert {"file", "sha256", "predicted", "confidence", "decision", "model_id"} <= set(rows[0])
    for row in rows:
        assert abs(sum(float(row[f"p_{name}"]) for name in CLASSES) - 1) < 1e-3
        assert row["predicted"] in CLASSES
    visitor.no_traceback()
