"""What the viewer asks for: facts of an image, the shape of its tiles, and the tiles."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, NotFoundError
from cnsapp.http import FOREVER, SAFE
from cnsapp.imaging.pyramid import TILE
from cnsapp.services import viewing

log = logging.getLogger(__name__)
FRESH = {"Cache-Control": "no-store", **SAFE}


def routes(app: App) -> list[Route]:
    """Return the routes of the viewer; plain functions, so they run in threads."""

    def about(request: Request) -> Response:
        known = viewing.closeup(app.store, image_id=request.path_params["image_id"])
        return JSONResponse(known.as_json(), headers=FRESH)

    def shape(request: Request) -> Response:
        found = viewing.pyramid(
            app, image_id=request.path_params["image_id"], channel=_channel(request)
        )
        if found is None:
            return JSONResponse({"state": "making"}, status_code=202, headers=FRESH)
        return JSONResponse(
            {"state": "ready", "tile": TILE, "levels": found.levels, **asdict(found)},
            headers=FRESH,
        )

    def tile(request: Request) -> Response:
        place = {name: request.path_params[name] for name in ("image_id", "level", "x", "y")}
        found = viewing.tile(app, channel=_channel(request), **place)
        kept = FOREVER if found.lasting else "no-store"
        return FileResponse(
            found.path, media_type="image/jpeg", headers={"Cache-Control": kept, **SAFE}
        )

    at = "/img/tiles/{image_id:int}"
    return [
        Route("/img/about/{image_id:int}.json", _in_words(about), methods=["GET"]),
        Route(f"{at}.json", _in_words(shape), methods=["GET"]),
        Route(at + "/{level:int}/{x:int}_{y:int}.jpg", _in_words(tile), methods=["GET"]),
    ]


def _channel(request: Request) -> int | None:
    asked = request.query_params.get("channel")
    if asked is None:
        return None
    if not (asked.isascii() and asked.isdigit() and len(asked) < 4):
        raise NotFoundError(f"“{asked[:40]}” is no channel.")
    return int(asked)


def _in_words(handler: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """Answer a failure with its sentence."""

    def answer(request: Request) -> Response:
        try:
            return handler(request)
        except NotFoundError as error:
            return JSONResponse({"error": str(error)}, status_code=404, headers=FRESH)
        except CnsError as error:
            return JSONResponse({"error": str(error)}, status_code=422, headers=FRESH)
        except Exception:
            log.exception("the viewer was not answered")
            sentence = "The picture cannot be shown more closely; the log says why."
            return JSONResponse({"error": sentence}, status_code=500, headers=FRESH)

    return answer
