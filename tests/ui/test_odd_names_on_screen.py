"""Names of all kinds on the Images, Label and Quality screens: shown as text, never as marks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.services import images
from cnsapp.services.importing import import_folder
from cnsapp.services.projects import create_project
from tests.integration.test_odd_names import NAMES
from tests.ui.conftest import Screen

EVIL = "<img src=x onerror=alert(1)>.png"
FOLDER = "Leber #1 ä 50 % <b onclick=alert(2)>"


@pytest.fixture
def project(app: App, tmp_path: Path) -> int:
    for k, name in enumerate([*NAMES, EVIL]):
        (tmp_path / "odd" / FOLDER).mkdir(parents=True, exist_ok=True)
        pixels = np.full((16, 16, 3), 9 * k, np.uint8)
        Picture.fromarray(pixels).save(tmp_path / "odd" / FOLDER / name)
    made = create_project(app.store, name="<script>alert(3)</script> #1 %").id
    report = import_folder(
        app, project_id=made, path=tmp_path / "odd", labels="folders", group_from=r"(.)[^/]*$"
    )
    assert report.imported == len(NAMES) + 1
    return made


def html_of(screen: Screen) -> str:
    """Return what the page draws as marks, not as text."""
    return "\n".join(element.proto.body for element in screen.test.get("html"))


@pytest.mark.parametrize("page", ["images", "label", "home", "train"])
def test_odd_names_open_calmly_and_are_never_marks(screen: Screen, project: int, page: str) -> None:
    screen.open(page, project=project)
    assert screen.errors == []
    drawn = html_of(screen)
    assert "<img src=x" not in drawn
    assert "<script>alert" not in drawn
    assert "<b onclick" not in drawn


def test_every_odd_name_is_found_by_its_own_text(app: App, project: int) -> None:
    """As the search field of the Images page asks: letter by letter, % and _ are no wildcards."""
    for name in [*NAMES, EVIL]:
        wanted = images.ImageFilter(text=name.strip())
        found = images.list_images(app.store, project_id=project, filter=wanted).items
        assert f"{FOLDER}/{name}" in [item.name for item in found], json.dumps(name)
