"""What the view by looks asks for: names of images, and labels for the clear ones of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.http import SAFE, require_same_origin
from cnsapp.services import labels, looks
from cnsapp.services.images import get_image
from cnsapp.ui.json_routes import in_words, read_message

MOST_LETTERS = 200


def routes(app: App) -> list[Route]:
    """Return the routes; names are few bytes, a hundred thousand of them are not."""

    def name(request: Request) -> Response:
        try:
            image = get_image(app.store, image_id=request.path_params["image_id"])
        except CnsError as error:
            raise HTTPException(404, str(error)) from error
        facts = {"name": image.name, "version": image.version, "group": image.group}
        return JSONResponse(facts, headers={"Cache-Control": "no-store", **SAFE})

    async def clear(request: Request) -> Response:
        require_same_origin(request)
        asked = _Asked(await read_message(request))
        receipt = await run_in_threadpool(
            looks.label_clear,
            app.store,
            project_id=asked.number("project_id"),
            annotator=asked.text("annotator"),
            version=asked.text("version"),
            cluster_id=asked.number("cluster_id"),
            class_id=asked.number("class_id"),
            also_labelled=asked.message.get("also_labelled") is True,
            action=asked.text("action"),
        )
        as_of = await run_in_threadpool(labels.high_water, app.store)
        return JSONResponse({"stored": receipt.stored, "action": receipt.action, "as_of": as_of})

    async def undo(request: Request) -> Response:
        require_same_origin(request)
        asked = _Asked(await read_message(request))
        n = await run_in_threadpool(
            looks.take_back,
            app.store,
            project_id=asked.number("project_id"),
            annotator=asked.text("annotator"),
            action=asked.text("action"),
            name=asked.text("name"),
        )
        return JSONResponse({"taken_back": n})

    return [
        Route("/img/name/{image_id:int}.json", name, methods=["GET"]),
        Route("/api/looks/clear", in_words(clear), methods=["POST"]),
        Route("/api/looks/undo", in_words(undo), methods=["POST"]),
    ]


@dataclass(frozen=True)
class _Asked:
    """A message whose parts are checked as they are read."""

    message: dict[str, Any]

    def number(self, name: str) -> int:
        value = self.message.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
            raise HTTPException(400, f"The message does not say a number as “{name}”.")
        return value

    def text(self, name: str) -> str:
        value = self.message.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= MOST_LETTERS:
            raise HTTPException(400, f"The message does not say a short text as “{name}”.")
        return value
