"""Pictures and downloads over HTTP. Paths come from the database, never from the request."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.imaging.isolated import look_at
from cnsapp.imaging.store import ImageFolder
from cnsapp.imaging.thumbs import THUMB_SIDE
from cnsapp.services.images import ImageDetail, get_image, image_path, reading_rule
from cnsapp.services.import_source import limits_of
from cnsapp.services.map_files import note_use

# the address carries the image's id, whose bytes never change
FOREVER = "private, max-age=31536000, immutable"
SAFE = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}
KEY = re.compile(r"[a-z0-9-]{1,120}")
EXPORT = re.compile(r"[\w][\w .()+-]{0,200}")
HOST_HEADERS = ("x-forwarded-host", "host")


def routes(app: App) -> list[Route]:
    """Return the routes that show and hand out files; plain functions, so they run in threads."""

    def thumb(request: Request) -> Response:
        return _picture(app, int(request.path_params["image_id"]), small=True)

    def view(request: Request) -> Response:
        return _picture(app, int(request.path_params["image_id"]), small=False)

    def saliency(request: Request) -> Response:
        key = request.path_params["key"]
        if not KEY.fullmatch(key):
            raise HTTPException(404)
        note_use(app.store, key.removesuffix("-levels"))
        return _file(app.store.path("saliency", f"{key}.png"), "image/png", FOREVER)

    def export(request: Request) -> Response:
        name = request.path_params["name"]
        path = app.store.path("exports", name)
        if not EXPORT.fullmatch(name) or path.parent != app.store.path("exports"):
            raise HTTPException(404)
        return _file(path, "application/octet-stream", "no-store", download=name)

    return [
        Route("/img/thumb/{image_id:int}", thumb, methods=["GET"]),
        Route("/img/view/{image_id:int}", view, methods=["GET"]),
        Route("/img/map/{key}", saliency, methods=["GET"]),
        Route("/files/export/{name}", export, methods=["GET"]),
    ]


def require_same_origin(request: Request) -> None:
    """Refuse a request that another site's page sent; call it first in every POST endpoint.

    Browsers name the sender in `Origin`, or its relation in `Sec-Fetch-Site`; programs that are
    no browsers send neither and carry nobody's session.

    Raises
    ------
    starlette.exceptions.HTTPException
        403, when the sender is another origin.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise HTTPException(403, "This request came from another site.")
    origin = request.headers.get("origin")
    if origin is None:
        return
    sender = urlsplit(origin).netloc.casefold()
    ours = {request.headers.get(name, "").casefold() for name in HOST_HEADERS} - {""}
    if not sender or sender not in ours:
        raise HTTPException(403, "This request came from another site.")


def _picture(app: App, image_id: int, *, small: bool) -> Response:
    try:
        image = get_image(app.store, image_id=image_id)
        path, lasting = _made(app, image, small=small)
        return _file(path, "image/jpeg", FOREVER if lasting else "no-store")
    except CnsError as error:
        raise HTTPException(404, str(error)) from error


def _made(app: App, image: ImageDetail, *, small: bool) -> tuple[Path, bool]:
    """Return the picture's file, made again from the original when it is missing.

    It can be made by today's rule alone. Where that looks otherwise than the picture that went
    missing, it is stored under the sign of today's rule, and its address must not be kept: until
    the image is read again, that stands for the picture before.
    """
    folder = ImageFolder(app.store.root)
    found = _kept(folder, image, image.seen, small)
    if found is not None:
        return found, True
    rule = reading_rule(app.store, project_id=image.project_id)
    sign = rule.seen(image.facts)
    found = _kept(folder, image, sign, small)
    if found is None:
        original = image_path(app.store, image_id=image.id)
        look_at(
            original, rule, limits_of(app), root=folder.root, sha256=image.sha256, seen=sign
        )  # fmt: skip
        thumb, view = _places(folder, image, sign)
        found = thumb if small or not view.is_file() else view
    return found, sign == image.seen


def _kept(folder: ImageFolder, image: ImageDetail, sign: str, small: bool) -> Path | None:
    thumb, view = _places(folder, image, sign)
    has_view = max(image.width, image.height) > THUMB_SIDE
    if not thumb.is_file() or (not small and has_view and not view.is_file()):
        return None
    return thumb if small or not view.is_file() else view


def _places(folder: ImageFolder, image: ImageDetail, sign: str) -> tuple[Path, Path]:
    return folder.thumb_path(image.sha256, sign), folder.view_path(image.sha256, sign)


def exists(path: Path) -> bool:
    """Return whether a file is there; a name too long for the disk is of none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _file(path: Path, media_type: str, cache: str, download: str | None = None) -> Response:
    if not exists(path):
        raise HTTPException(404)
    return FileResponse(
        path,
        media_type=media_type,
        filename=download,
        headers={"Cache-Control": cache, **SAFE},
    )
