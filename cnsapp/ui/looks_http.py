"""What the map asks for when the mouse rests on a point: the name of an image."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.http import SAFE
from cnsapp.services.images import get_image


def routes(app: App) -> list[Route]:
    """Return the route; names are few bytes, a hundred thousand of them are not."""

    def name(request: Request) -> Response:
        try:
            image = get_image(app.store, image_id=request.path_params["image_id"])
        except CnsError as error:
            raise HTTPException(404, str(error)) from error
        facts = {"name": image.name, "version": image.version, "group": image.group}
        return JSONResponse(facts, headers={"Cache-Control": "no-store", **SAFE})

    return [Route("/img/name/{image_id:int}.json", name, methods=["GET"])]
