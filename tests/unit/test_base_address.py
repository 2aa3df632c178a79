"""The line that tells the browser where the server is."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from cnsapp.ui.base_address import BaseAddress, page_names

PAGE = "<html><head><title>a</title></head><body>ü</body></html>"


def client(folder: Path) -> TestClient:
    """Return a browser before a server of one page."""
    (folder / "index.html").write_text(PAGE, encoding="utf-8")

    def page(_request: Request) -> Response:
        return FileResponse(folder / "index.html")

    def words(_request: Request) -> Response:
        return PlainTextResponse("<head>")

    routes = [Route(path, page) for path in ("/label", "/", "/other")]
    routes.append(Route("/api/label", words))
    return TestClient(
        Starlette(routes=routes, middleware=[Middleware(BaseAddress, names=["label"])])
    )


def test_pages_alone_get_the_line(tmp_path: Path) -> None:
    browser = client(tmp_path)
    answer = browser.get("/label")
    begin, rest = answer.text.split("<script>")
    line, end = rest.split("</script>")
    assert begin + end == PAGE
    assert 'names=["label"]' in line
    assert int(answer.headers["content-length"]) == len(answer.content)
    for path in ("/", "/other"):
        assert browser.get(path).text == PAGE
    assert browser.get("/api/label").text == "<head>"
    assert browser.post("/label").status_code == 405
    assert browser.get("/label", headers={"If-None-Match": answer.headers["etag"]}).status_code in (
        200, 304,
    )  # fmt: skip


def test_every_page_is_known() -> None:
    assert {"label", "images", "train", "settings"} <= set(page_names())
