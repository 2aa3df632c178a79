"""A messy folder in a real browser: checked, imported, freed of copies, and shown right."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import messy
from tests.browser.conftest import LiveApp
from tests.browser.messy import BEST, CMYK, COPY, GOOD, LARGE, RAMP, REFUSED, SMALL, STACK, TURNED
from tests.browser.visitor import Visitor, wait_for
from tests.places import data_folder

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PROBLEM_FILES = data_folder() / "problem-files"
PROBLEMS, PROBLEMS_REFUSED = 57, 13  # what its table in tests/unit says
BLUE, GREEN, RED = np.array([(0x2F, 0x6B, 0xFF), (0x00, 0xC8, 0x53), (0xFF, 0x4B, 0x3E)])
WINDOWS = ((0, 4000), (0, 4000), (0, 2000))  # of the three channels, set on the screen
PAIRS = 5  # on a page of the list
JPEG = 6  # gray levels that a thumbnail may be off, well inside of areas of one colour
PICTURE_AT = """([image, at]) => {
    const all = (root) => [...root.querySelectorAll('*')].flatMap(
        (e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
    const shown = all(document).find((e) => e.matches('.alone .frame img')
        && e.src.includes(`/img/view/${image}?`) && e.complete && e.naturalWidth);
    if (!shown) return null;
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [shown.naturalWidth, shown.naturalHeight];
    const drawn = canvas.getContext('2d');
    drawn.drawImage(shown, 0, 0);
    return {size: [canvas.width, canvas.height],
        colors: at.map(([x, y]) => [...drawn.getImageData(x, y, 1, 1).data].slice(0, 3))};
}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a messy folder, with the real problem files in it where they are at hand."""
    drawn = messy.draw_messy_folder(tmp_path / "Fotos für #4")
    if PROBLEM_FILES.is_dir():
        shutil.copytree(PROBLEM_FILES, drawn / "odd")
    return drawn


def test_a_messy_folder_is_made_usable(
    live_app_with_worker: LiveApp, page: Any, folder: Path
) -> None:
    visitor = Visitor(live_app_with_worker, page)
    page.goto(live_app_with_worker.url)
    visitor.type_into("new_name", "Messy")
    visitor.press_button("new_create")
    wait_for(lambda: visitor.count("SELECT count(*) FROM project") == 1, 60, "a project")
    page.goto(f"{live_app_with_worker.url}/images?who=Ada")
    check(visitor, folder)
    import_it(visitor, folder)
    resolve_duplicates(visitor)
    set_how_images_are_read(visitor)
    look_at_pictures(visitor)
    assert visitor.elsewhere == []  # nothing was asked of any other machine


def real(number: int) -> int:
    return number if PROBLEM_FILES.is_dir() else 0


def found() -> int:
    return len(GOOD) + len(REFUSED) + real(PROBLEMS)


def refused() -> int:
    return len(REFUSED) + real(PROBLEMS_REFUSED)


def check(visitor: Visitor, folder: Path) -> None:
    """Every problem is listed before anything is imported."""
    visitor.type_into("import_path", str(folder))
    visitor.press_button("import_check")
    visitor.page.get_by_text("Nothing was imported.").first.wait_for(timeout=180_000)
    assert figures(visitor, "Checked") == {
        "Found": found(), "Would be new": found() - refused(), "Duplicates": 0,
        "Unreadable": refused(), "Would get a label": 0, "Groups": 0,
        "Without group": found() - refused(),
    }  # fmt: skip
    assert visitor.count("SELECT count(*) FROM image") == 0
    read_reasons(visitor, "would be skipped")


def import_it(visitor: Visitor, folder: Path) -> None:
    """The good files are in, under their names; each of the others has its reason."""
    assert visitor.widget("import_path").locator("input").input_value() == str(folder)
    visitor.press_button("import_start")
    good = found() - refused()
    visitor.page.get_by_text(f"{good} images imported").first.wait_for(timeout=180_000)
    visitor.choose("images_tab", "Import")
    visitor.page.locator("th", has_text="Imported").first.wait_for()
    assert figures(visitor, "Imported") == {
        "Found": found(), "New": good, "Duplicates": 0, "Skipped": refused(), "Labelled": 0,
    }  # fmt: skip
    visitor.picture("messy-import")
    read_reasons(visitor, "skipped")
    assert visitor.count("SELECT count(*) FROM image WHERE status = 'ok'") == good
    assert all(id_of(visitor, name) for name in GOOD)
    visitor.no_traceback()


def figures(visitor: Visitor, first: str) -> dict[str, int]:
    """Return the numbers of the report whose first column is called so."""
    table = visitor.page.locator("table.cns", has=visitor.page.locator("th", has_text=first)).first
    titles = [title.strip() for title in table.locator("th").all_inner_texts()]
    values = table.locator("tbody td").all_inner_texts()
    shown = list(zip(titles, values, strict=True))[1:]  # the first says when
    return {title: int(value.replace(",", "")) for title, value in shown}


def read_reasons(visitor: Visitor, done: str) -> None:
    """Read the list of refused files to its end: each has a sentence that fits."""
    page = visitor.page
    page.get_by_text(f"{refused()} files {done}; the rest is not affected.").first.wait_for()
    listed = page.locator('[data-testid="stDataFrame"]').first
    listed.scroll_into_view_if_needed()
    listed.locator("table tbody tr").first.wait_for(state="attached")
    reasons: dict[str, str] = {}

    def all_read() -> bool:
        for row in listed.locator("table tbody tr").all():
            cells = row.locator("td").all_text_contents()
            if len(cells) == 2:
                reasons[cells[0]] = cells[1]
        if len(reasons) < refused():
            listed.hover()
            page.mouse.wheel(0, 120)
            page.wait_for_timeout(100)  # lets the list draw what it was turned to
        return len(reasons) >= refused()

    wait_for(all_read, 60, f"reasons of {refused()} files: {sorted(reasons)}")
    assert len(reasons) == refused()
    for name, words in REFUSED.items():
        assert words in reasons[name].lower(), (name, reasons[name])
    assert all(re.search(r"\w.*\.$", reason) for reason in reasons.values()), reasons


def resolve_duplicates(visitor: Visitor) -> None:
    """Of two exact copies one is kept; a resaved one goes into a group with its original."""
    page = visitor.page
    visitor.choose("images_tab", "Quality")
    best, copy, large, small = (id_of(visitor, name) for name in (BEST, COPY, LARGE, SMALL))
    measured = "SELECT count(*) FROM image_quality"
    wait_for(
        lambda: visitor.count(measured) >= found() - refused(), 240, "the quality of all images"
    )
    pair = f"image_a = {min(large, small)} AND image_b = {max(large, small)}"
    near = f"SELECT count(*) FROM near_pair WHERE {pair}"
    wait_for(lambda: visitor.count(near) == 1, 120, "the resaved copy to be found")
    wait_for(
        lambda: visitor.count("SELECT count(*) FROM job WHERE state IN ('queued','running')") == 0,
        240, "the worker to be done",
    )  # fmt: skip
    page.reload()
    visitor.choose("images_tab", "Quality")
    visitor.press_button("quality_look_exact")
    card = turn_to(visitor, "Exact duplicates", best, copy)
    card.get_by_text("The same bytes").wait_for()
    keep = f"keep_{best}_of_{min(best, copy)}_{max(best, copy)}"
    visitor.press_button(keep)
    page.get_by_text("Leber #1 (copy).png is excluded.").wait_for()
    card.wait_for(state="detached")
    assert status_of(visitor, copy) == "excluded" and status_of(visitor, best) == "ok"
    visitor.press_button("quality_back")
    visitor.press_button("quality_look_near")
    card = turn_to(visitor, "Near duplicates", large, small)
    card.get_by_text(re.compile(r"\d % alike|\d% alike")).wait_for()
    assert drawn(card) == 2
    visitor.picture("messy-quality")
    visitor.press_button(f"group_{min(large, small)}_{max(large, small)}")
    page.get_by_text("Both are in one group.").wait_for()
    groups = f"SELECT count(DISTINCT group_key) FROM image WHERE id IN ({large}, {small})"
    assert visitor.count(groups) == 1
    visitor.no_traceback()


def turn_to(visitor: Visitor, title: str, one: int, other: int) -> Any:
    """Turn the pages of a list of pairs until a pair is shown, and return its card."""
    page = visitor.page
    card = visitor.widget(f"pair_{min(one, other)}_{max(one, other)}")
    heading = page.get_by_text(re.compile(rf"{title} · \d+ pairs?")).first
    n = int(re.findall(r"\d+", heading.inner_text())[-1])
    for first in range(1, n + 1, PAIRS):
        if n > PAIRS:  # the line below the pairs: when it is there, they are
            page.get_by_text(f"{first} to {min(first + PAIRS - 1, n)} of {n}").wait_for()
            if not card.count():
                visitor.press_button("quality_Next")
                continue
        card.wait_for()
        return card
    raise AssertionError("the pair is on none of the pages")


def drawn(card: Any) -> int:
    """Return how many pictures of a pair have come."""
    pictures = card.locator("img.cns-pair")
    ready = "(all) => all.filter((one) => one.complete && one.naturalWidth).length"
    wait_for(lambda: pictures.evaluate_all(ready) == 2, 60, "both pictures of the pair")
    return int(pictures.evaluate_all(ready))


def set_how_images_are_read(visitor: Visitor) -> None:
    """Give the 12-bit samples their window and the channels colours, and apply it."""
    page = visitor.page
    visitor.go("Settings")
    section = page.get_by_text("How images are read", exact=True).first
    section.wait_for()
    section.scroll_into_view_if_needed()
    page.get_by_text("Several, in colours", exact=True).first.click()
    page.get_by_label("Full colour of channel 3").wait_for()
    visitor.settled()
    for number, ends in enumerate(WINDOWS, 1):
        for name, value in zip(("Black", "Full colour"), ends, strict=True):
            fill(visitor, page.get_by_label(f"{name} of channel {number}"), value)
    window = visitor.widget("reading_window_uint16")
    for name, value in (("Black", 0), ("White", 4095)):
        fill(visitor, window.get_by_label(name, exact=True), value)
    page.get_by_text(re.compile(r"\d+ images? looks? different")).first.wait_for()
    visitor.picture("messy-reading")
    visitor.press_button("reading_apply")
    visitor.press_button("reading_confirm")
    waiting = "SELECT count(*) FROM job WHERE kind = 'reread' AND state = 'done'"
    wait_for(lambda: visitor.count(waiting) == 1, 180, "the images to be read again")
    visitor.no_traceback()


def fill(visitor: Visitor, field: Any, value: int) -> None:
    """Type a number, and wait until the page has taken it in."""

    def taken() -> bool:
        if field.input_value() != str(value):
            field.fill(str(value))
            field.press("Tab")
            visitor.page.wait_for_timeout(150)  # lets the page begin to run
        visitor.settled()
        return str(field.input_value()) == str(value)

    wait_for(taken, 60, f"the number {value} to stay")


def look_at_pictures(visitor: Visitor) -> None:
    """What the browser shows is what a calculation by hand gives."""
    columns = (0, 40, 120, 200, 239)
    size, colors = look(visitor, RAMP, [(x, 90) for x in columns])
    assert size == (messy.WIDTH, messy.HEIGHT)
    gray = np.array([17 * x / 4095 * 255 for x in columns])  # column x holds 17 x
    assert np.abs(colors - gray[:, None]).max() <= JPEG
    size, colors = look(visitor, STACK, [(40, 90), (120, 90), (200, 90)])
    assert size == (messy.WIDTH, messy.HEIGHT)
    light = np.array([BLUE * 4000 / 4000, GREEN * 2000 / 4000, BLUE * 2000 / 4000 + RED / 2])
    assert np.abs(colors - light).max() <= JPEG, colors
    _, (yellow, white) = look(visitor, CMYK, [(60, 90), (180, 90)])
    assert white.min() > 248 and yellow[:2].min() > 200 and yellow[2] < 60, (yellow, white)
    size, colors = look(visitor, TURNED, [(45, 60), (135, 60), (45, 180), (135, 180)])
    assert size == (messy.HEIGHT, messy.WIDTH)  # upright: turned clockwise by a quarter
    upright = [(0, 0, 255), (255, 0, 0), (255, 255, 255), (0, 255, 0)]
    assert np.abs(colors - upright).max() <= JPEG, colors


def look(
    visitor: Visitor, name: str, at: list[tuple[int, int]]
) -> tuple[tuple[int, int], np.ndarray[Any, Any]]:
    """Open an image from the Images page; return its size and its colours at places (x, y)."""
    page, image = visitor.page, id_of(visitor, name)
    page.goto(f"{visitor.live.url}/images?who=Ada")
    field = page.get_by_placeholder("File name…")
    field.fill(name)
    field.press("Enter")
    page.locator(".tile").nth(1).wait_for(state="detached")
    page.locator(".tile", has_text=name).click()
    seen: dict[str, Any] = {}

    def shown() -> bool:
        seen.update(page.evaluate(PICTURE_AT, [image, [list(place) for place in at]]) or {})
        return bool(seen)

    wait_for(shown, 60, f"the picture of {name}")
    visitor.no_traceback()
    width, height = seen["size"]
    return (width, height), np.array(seen["colors"], float)


def id_of(visitor: Visitor, name: str) -> int:
    """Return the id of the image that came from the file of this name."""
    return visitor.count(f"SELECT id FROM image WHERE file_name = '{name}'")


def status_of(visitor: Visitor, image: int) -> str:
    """Return whether an image is in use."""
    for status in ("ok", "excluded"):
        asked = f"SELECT count(*) FROM image WHERE id = {image} AND status = '{status}'"
        if visitor.count(asked):
            return status
    return ""
