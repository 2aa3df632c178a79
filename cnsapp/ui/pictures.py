"""The small pictures of a prediction, over HTTP; named by job and row, never by a path."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.http import exists
from cnsapp.services.predicting import thumb_path

HEADERS = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}


def routes(app: App) -> list[Route]:
    """Return the route that shows what was predicted."""

    def picture(request: Request) -> Response:
        parts = request.path_params
        path = thumb_path(app, int(parts["job_id"]), int(parts["row"]))
        if not exists(path):
            raise HTTPException(404)
        return FileResponse(path, media_type="image/jpeg", headers=HEADERS)

    return [Route("/img/prediction/{job_id:int}/{row:int}", picture, methods=["GET"])]


def url(job_id: int, row: int) -> str:
    """Return the address of the picture of a row."""
    return f"/img/prediction/{job_id}/{row}"
