"""The viewer's routes: facts of an image, tiles made on need, nothing outside of them."""

from __future__ import annotations

import io
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.imaging.reader import ReadingRule, read_image
from cnsapp.services import images, projects, viewing
from cnsapp.services.importing import import_folder
from cnsapp.ui import tiles_http
from db.models import Project

SIDE = 2100


@pytest.fixture
def project_id(app: App, tmp_path: Path) -> int:
    """Return a project with a large picture (1), a stack of channels (2) and a small one (3)."""
    source = tmp_path / "source"
    source.mkdir()
    y, x = np.mgrid[0:1700, 0:SIDE]
    large = np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)
    Picture.fromarray(large).resize((SIDE, 1700)).save(source / "a_large.png")
    stack = np.zeros((2, 50, 70), np.uint16)
    stack[0, :, :35], stack[1, :, 35:] = 4095, 4095
    micrometres = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm",
                   "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}  # fmt: skip
    tifffile.imwrite(source / "b_stack.ome.tif", stack, ome=True, metadata=micrometres)
    Picture.fromarray(large[:64, :64]).save(source / "c_small.png")
    made = projects.create_project(app.store, name="p")
    report = import_folder(app, project_id=made.id, path=source)
    assert report.imported == 3, report.skipped
    return made.id


@pytest.fixture
def client(app: App, project_id: int) -> TestClient:
    """Return a browser before that project."""
    assert project_id == 1
    return TestClient(Starlette(routes=tiles_http.routes(app)), base_url="http://lab:8501")


def ready(client: TestClient, url: str) -> dict[str, Any]:
    """Ask until the tiles are made."""
    deadline = time.monotonic() + 60
    while True:
        answer = client.get(url)
        assert answer.headers["cache-control"] == "no-store"
        if answer.status_code != 202:
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found
        assert answer.json() == {"state": "making"}
        assert time.monotonic() < deadline, "the tiles were never made"
        time.sleep(0.05)


def pixels(answer: Any) -> np.ndarray[Any, Any]:
    with Picture.open(io.BytesIO(answer.content)) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def folders(app: App) -> list[str]:
    return sorted(p.name.partition(".")[2] for p in app.store.path("thumbs").glob("*/*.tiles"))


def test_tiles_are_made_on_first_need_and_show_the_picture(client: TestClient, app: App) -> None:
    assert folders(app) == []
    assert client.get("/img/tiles/1/0/0_0.jpg").status_code == 404  # nobody asked for them yet
    found = ready(client, "/img/tiles/1.json")
    assert found == {"state": "ready", "tile": 512, "levels": 4, "width": SIDE, "height": 1700}
    whole = read_image(images.image_path(app.store, image_id=1), ReadingRule()).pixels.astype(int)
    answer = client.get("/img/tiles/1/0/4_3.jpg?v=12345678")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert np.abs(pixels(answer) - whole[3 * 512 :, 4 * 512 :]).mean() < 12
    assert pixels(client.get("/img/tiles/1/3/0_0.jpg")).shape == (213, 263, 3)
    assert folders(app) == ["tiles"]


NO_TILES = (
    "/img/tiles/99.json",
    "/img/tiles/0.json",
    "/img/tiles/99999999999999999999.json",
    "/img/tiles/x.json",
    "/img/tiles/1/0/5_0.jpg",
    "/img/tiles/1/0/0_4.jpg",
    "/img/tiles/1/4/0_0.jpg",
    "/img/tiles/1/99999999999999999999/0_0.jpg",
    "/img/tiles/1/-1/0_0.jpg",
    "/img/tiles/1/0/0_0.png",
    "/img/tiles/99/0/0_0.jpg",
    "/img/tiles/1/0/..%2f..%2fpyramid.json",
    "/img/tiles/1/..%2f..%2fcns.sqlite",
    "/img/tiles/1/%2e%2e/0_0.jpg",
    "/img/tiles/1.json?channel=0",
    "/img/tiles/2.json?channel=2",
    "/img/tiles/2.json?channel=-1",
    "/img/tiles/2.json?channel=../1",
    "/img/tiles/1/0/0_0.jpg?channel=0",
    "/img/about/99.json",
    "/img/about/..%2f1.json",
)


def test_what_is_no_tile_is_not_found(client: TestClient) -> None:
    ready(client, "/img/tiles/1.json")
    assert [url for url in NO_TILES if client.get(url).status_code != 404] == []


def test_deleted_tiles_are_made_again(client: TestClient, app: App) -> None:
    ready(client, "/img/tiles/1.json")
    folder = next(app.store.path("thumbs").glob("*/*.tiles"))
    shutil.rmtree(folder)
    assert client.get("/img/tiles/1/0/0_0.jpg").status_code == 404
    ready(client, "/img/tiles/1.json")
    assert client.get("/img/tiles/1/0/0_0.jpg").status_code == 200
    (folder / "0" / "0_0.jpg").unlink()  # a part of them only
    assert client.get("/img/tiles/1/0/0_0.jpg").status_code == 404
    ready(client, "/img/tiles/1.json")
    assert client.get("/img/tiles/1/0/0_0.jpg").status_code == 200


def test_many_who_ask_at_once_make_them_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, go = [], threading.Event()
    real = viewing.isolated.call

    def slow(operation: str, path: Path, **arguments: Any) -> Any:
        made.append(operation)
        go.wait(30)
        return real(operation, path, **arguments)

    monkeypatch.setattr(viewing.isolated, "call", slow)
    assert [client.get("/img/tiles/1.json").status_code for _ in range(5)] == [202] * 5
    go.set()
    ready(client, "/img/tiles/1.json")
    assert made == ["make_pyramid"]


def test_a_broken_original_is_a_sentence_and_is_tried_again(client: TestClient, app: App) -> None:
    original = images.image_path(app.store, image_id=1)
    whole = original.read_bytes()
    original.chmod(0o644)
    original.write_bytes(whole[:5000])
    deadline = time.monotonic() + 60
    while (answer := client.get("/img/tiles/1.json")).status_code == 202:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer.status_code == 422
    assert "cut off" in answer.json()["error"]
    assert folders(app) == []
    original.write_bytes(whole)
    assert ready(client, "/img/tiles/1.json")["levels"] == 4
    original.unlink()
    shutil.rmtree(next(app.store.path("thumbs").glob("*/*.tiles")))
    answer = client.get("/img/tiles/1.json")
    assert answer.status_code == 404
    assert "missing from the data folder" in answer.json()["error"]


def test_the_viewer_is_told_pixel_size_and_channels(
    client: TestClient, app: App, project_id: int
) -> None:
    about = client.get("/img/about/2.json").json()
    assert (about["width"], about["height"], about["um_per_px"]) == (70, 50, 0.25)
    channels = [(c["index"], c["name"], c["shown"]) for c in about["channels"]]
    assert channels == [(0, "Channel 1", True), (1, "Channel 2", False)]
    assert client.get("/img/about/1.json").json()["um_per_px"] is None
    viewing.set_um_per_px(app.store, project_id=project_id, value=0.5)
    assert client.get("/img/about/1.json").json()["um_per_px"] == 0.5
    assert client.get("/img/about/2.json").json()["um_per_px"] == 0.25  # the file knows better
    items = {i.id: i for i in images.list_images(app.store, project_id=project_id).items}
    assert [(items[i].um_per_px, items[i].channels) for i in (1, 2)] == [(None, 1), (0.25, 2)]


def test_channels_come_as_gray_tiles_through_the_projects_window(
    client: TestClient, app: App
) -> None:
    for channel, (left, right) in enumerate([(255, 0), (0, 255)]):
        ready(client, f"/img/tiles/2.json?channel={channel}")
        seen = pixels(client.get(f"/img/tiles/2/0/0_0.jpg?channel={channel}"))
        assert seen.shape == (50, 70, 3)
        assert abs(seen[25, 10] - left).max() <= 3
        assert abs(seen[25, 60] - right).max() <= 3
    assert folders(app) == ["c0.tiles", "c1.tiles"]


def test_another_rule_has_tiles_of_its_own_and_their_address_is_not_kept(
    client: TestClient, app: App, project_id: int
) -> None:
    ready(client, "/img/tiles/2.json?channel=0")
    with app.store.writing() as session:
        project = session.get(Project, project_id)
        assert project is not None
        channel = {"index": 0, "color": "#FF0000", "low": 0, "high": 8190}
        reading = {**project.settings["reading"], "channels": [channel]}
        project.settings = {**project.settings, "reading": reading}
    assert [c["color"] for c in client.get("/img/about/2.json").json()["channels"]] == ["#FF0000"]
    assert client.get("/img/tiles/2/0/0_0.jpg?channel=0").status_code == 404
    ready(client, "/img/tiles/2.json?channel=0")
    answer = client.get("/img/tiles/2/0/0_0.jpg?channel=0")
    assert answer.headers["cache-control"] == "no-store"  # the thumbnail is still the old one
    assert abs(pixels(answer)[25, 10] - 128).max() <= 3


def test_the_projects_pixel_size_is_checked_and_leaves_other_settings_alone(
    app: App, project_id: int
) -> None:
    with app.store.reading() as session:
        before = dict(session.get_one(Project, project_id).settings)
    for value in (0.0, -1.0, 1e9, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="cannot be meant"):
            viewing.set_um_per_px(app.store, project_id=project_id, value=value)
    viewing.set_um_per_px(app.store, project_id=project_id, value=0.325)
    assert viewing.um_per_px(app.store, project_id=project_id) == 0.325
    viewing.set_um_per_px(app.store, project_id=project_id, value=None)
    assert viewing.um_per_px(app.store, project_id=project_id) is None
    with app.store.reading() as session:
        assert session.get_one(Project, project_id).settings == before
    with pytest.raises(NotFoundError, match="no project number 99"):
        viewing.set_um_per_px(app.store, project_id=99, value=1.0)
