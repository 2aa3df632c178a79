"""The small pictures of a prediction, over HTTP; named by job and row, never by a path."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.http import exists
from cnsapp.services import slides
from cnsapp.services.predicting import slide_picture, thumb_path

HEADERS = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}


def routes(app: App) -> list[Route]:
    """Return the route that shows what was predicted."""

    def picture(request: Request) -> Response:
        parts = request.path_params
        return _jpeg(thumb_path(app, int(parts["job_id"]), int(parts["row"])))

    def predicted_slide(request: Request) -> Response:
        parts = request.path_params
        return _jpeg(slide_picture(app, int(parts["job_id"]), int(parts["number"])))

    def slide(request: Request) -> Response:
        try:
            sha256 = slides.slide_sha256(app.store, slide_id=int(request.path_params["slide_id"]))
        except CnsError as error:
            raise HTTPException(404, str(error)) from error
        return _jpeg(slides.thumb_path(app.store.root, sha256))

    return [
        Route("/img/prediction/{job_id:int}/{row:int}", picture, methods=["GET"]),
        Route("/img/prediction/{job_id:int}/slide/{number:int}", predicted_slide, methods=["GET"]),
        Route("/img/slide/{slide_id:int}", slide, methods=["GET"]),
    ]


def _jpeg(path: Path) -> Response:
    if not exists(path):
        raise HTTPException(404)
    return FileResponse(path, media_type="image/jpeg", headers=HEADERS)


def url(job_id: int, row: int) -> str:
    """Return the address of the picture of a row."""
    return f"/img/prediction/{job_id}/{row}"


def slide_url(job_id: int, number: int) -> str:
    """Return the address of the picture of a predicted slide."""
    return f"/img/prediction/{job_id}/slide/{number}"
