"""Pictures and downloads over HTTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.http import require_same_origin, routes
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.running import run_here
from cnsapp.services import images, projects, reading
from cnsapp.services.importing import import_folder
from cnsapp.ui import pictures


@pytest.fixture
def client(app: App, tmp_path: Path) -> TestClient:
    """Return a browser before an installation with a large image (1) and a small one (2)."""
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    for name, side in (("a_large.png", 700), ("b_small.png", 64)):
        PillowImage.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(source / name)
    made = projects.create_project(app.store, name="p")
    import_folder(app, project_id=made.id, path=source)

    def post(request: Request) -> Response:
        require_same_origin(request)
        return PlainTextResponse("stored")

    return TestClient(
        Starlette(
            routes=[*routes(app), *pictures.routes(app), Route("/api/test", post, methods=["POST"])]
        ),
        base_url="http://lab:8501",
    )


def size(response: object, tmp_path: Path) -> tuple[int, int]:
    file = tmp_path / "got.jpg"
    file.write_bytes(response.content)  # type: ignore[attr-defined]
    with PillowImage.open(file) as image:
        return image.size


def test_pictures_come_with_their_headers(client: TestClient, tmp_path: Path) -> None:
    for url, wanted in (
        ("/img/thumb/1?v=00000000", (256, 256)),
        ("/img/view/1", (700, 700)),
        ("/img/thumb/2", (64, 64)),
        ("/img/view/2", (64, 64)),
    ):
        response = client.get(url)
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/jpeg"
        assert "immutable" in response.headers["cache-control"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert size(response, tmp_path) == wanted


@pytest.mark.parametrize(
    "url",
    [
        "/img/thumb/99",
        "/img/view/99",
        "/img/thumb/x",
        "/img/thumb/..%2f..%2fcns.sqlite",
        "/img/thumb/99999999999999999999999999",
        "/img/map/no-such-map",
        "/img/map/..%2Fcns",
        "/img/map/A.png",
        "/files/export/none.csv",
        "/files/export/..%2Fcns.sqlite",
        "/files/export/.hidden",
        "/files/export/%00",
        "/files/export/" + "%E5%9B%BE" * 190,
        "/img/prediction/1/" + "9" * 400,
    ],
)
def test_what_is_not_there_is_not_found(client: TestClient, url: str) -> None:
    assert client.get(url).status_code == 404


def test_pictures_that_went_missing_are_made_again(client: TestClient, app: App) -> None:
    for file in app.store.path("thumbs").rglob("*.jpg"):
        file.unlink()
    assert client.get("/img/view/1").status_code == 200
    assert client.get("/img/thumb/2").status_code == 200
    images.image_path(app.store, image_id=1).unlink()
    for file in app.store.path("thumbs").rglob("*.jpg"):
        file.unlink()
    response = client.get("/img/thumb/1")
    assert response.status_code == 404
    assert "missing" in response.text


def test_the_same_deep_file_is_seen_through_each_projects_own_window(
    client: TestClient, app: App, tmp_path: Path
) -> None:
    shared = np.full((300, 300), 200, np.uint16)
    brightest = []
    for name, top in (("dim", 255), ("bright", 60_000)):
        folder = tmp_path / name
        folder.mkdir()
        tifffile.imwrite(folder / "shared.tif", shared)
        tifffile.imwrite(folder / "other.tif", np.full((16, 16), top, np.uint16))
        made = projects.create_project(app.store, name=name)
        import_folder(app, project_id=made.id, path=folder)
    for name in ("dim", "bright"):
        made = projects.get_project(app.store, project=name)
        page = images.list_images(app.store, project_id=made.id)
        image_id = next(item.id for item in page.items if item.name == "shared.tif")
        for kind in ("thumb", "view"):
            file = tmp_path / "got.jpg"
            file.write_bytes(client.get(f"/img/{kind}/{image_id}").content)
            with PillowImage.open(file) as image:
                brightest.append(image.convert("L").getextrema()[1])
    assert min(brightest[:2]) > 190 and max(brightest[2:]) < 10


def test_a_lost_picture_is_made_by_todays_rule_under_todays_sign(app: App, tmp_path: Path) -> None:
    source = tmp_path / "deep"
    source.mkdir()
    tifffile.imwrite(source / "a.tif", np.full((40, 40), 1000, np.uint16))
    project = projects.create_project(app.store, name="deep").id
    narrow = ReadingRule((("uint16", 0.0, 4000.0),))
    reading.apply_rule(app, project_id=project, rule=narrow)
    import_folder(app, project_id=project, path=source)
    client = TestClient(Starlette(routes=routes(app)))

    def seen() -> tuple[int, str]:
        """Return how bright the picture is, and how long its address may be kept."""
        response = client.get("/img/thumb/1")
        (tmp_path / "got.jpg").write_bytes(response.content)
        with PillowImage.open(tmp_path / "got.jpg") as picture:
            shade = round(float(np.asarray(picture).mean()))
        return shade, response.headers["cache-control"].split(",")[-1].strip()

    assert seen() == (64, "immutable")  # 1000 of 4000, of 255
    wide = ReadingRule((("uint16", 0.0, 2000.0),))
    job = reading.apply_rule(app, project_id=project, rule=wide).job_id
    assert seen() == (64, "immutable")  # nothing was read again yet: the picture as it was
    before = list(app.store.path("thumbs").glob("??/*.jpg"))
    for file in before:
        file.unlink()
    assert seen() == (128, "no-store")  # the old look cannot be made any more
    assert seen() == (128, "no-store")
    assert not any(file.exists() for file in before), "a new look under the sign of the old one"
    assert job is not None
    run_here(app, job)
    assert seen() == (128, "immutable")


def test_saliency_maps_and_exports_are_handed_out(client: TestClient, app: App) -> None:
    app.store.path("saliency", "abc-12.png").write_bytes(b"png")
    app.store.path("exports", "labels of p.csv").write_bytes(b"file,label")
    picture = client.get("/img/map/abc-12")
    assert (picture.content, picture.headers["content-type"]) == (b"png", "image/png")
    export = client.get("/files/export/labels of p.csv")
    assert export.content == b"file,label"
    assert "attachment" in export.headers["content-disposition"]
    assert export.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://lab:8501"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://lab:8501"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://lab:8501"}, 200),
        ({"origin": "https://cns.lab", "x-forwarded-host": "cns.lab"}, 200),
    ],
)
def test_only_our_own_pages_may_post(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    assert client.post("/api/test", headers=headers).status_code == status
