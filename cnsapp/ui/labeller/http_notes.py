"""The routes of notes, tags and the history of an image, and of what others label meanwhile."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.domain.labels import clean_annotator
from cnsapp.http import require_same_origin
from cnsapp.services import image_history, images, label_news, label_settings, notes
from cnsapp.ui.json_routes import in_words, number_in, parts_of, read_message

FRESH = {"Cache-Control": "no-store"}
_in_note_words = partial(in_words, what="note or tag")


def routes(app: App) -> list[Route]:
    """Return the routes beside those of the labels."""

    async def post(request: Request, kinds: tuple[str, ...]) -> Response:
        require_same_origin(request)
        project_id, who, acts = parts_of(await read_message(request))
        if not all(isinstance(act, dict) and act.get("kind") in kinds for act in acts):
            raise HTTPException(400, f"Only {' or '.join(kinds)} can be said here.")
        receipt = await run_in_threadpool(
            notes.record, app.store, project_id=project_id, who=who, acts=acts
        )
        return JSONResponse(receipt.as_json())

    async def post_tags(request: Request) -> Response:
        return await post(request, (notes.TAGGED, notes.UNTAGGED))

    async def post_notes(request: Request) -> Response:
        return await post(request, (notes.NOTE,))

    async def get_tags(request: Request) -> Response:
        project_id = _asked(request, "project")
        found = await run_in_threadpool(notes.list_tags, app.store, project_id=project_id)
        return JSONResponse({"tags": [asdict(one) for one in found]}, headers=FRESH)

    async def get_history(request: Request) -> Response:
        query = request.query_params
        found = await run_in_threadpool(
            _history,
            app,
            _asked(request, "image"),
            query.get("annotator", ""),
            bool(query.get("own")),
        )
        return JSONResponse(found, headers=FRESH)

    async def get_news(request: Request) -> Response:
        found = await run_in_threadpool(
            label_news.news,
            app.store,
            project_id=_asked(request, "project"),
            annotator=request.query_params.get("annotator", ""),
            since=_asked(request, "since"),
        )
        return JSONResponse(found.as_json(), headers=FRESH)

    return [
        Route("/api/tags", _in_note_words(post_tags), methods=["POST"]),
        Route("/api/tags", _in_note_words(get_tags), methods=["GET"]),
        Route("/api/notes", _in_note_words(post_notes), methods=["POST"]),
        Route("/api/history", _in_note_words(get_history), methods=["GET"]),
        Route("/api/labels/news", in_words(get_news), methods=["GET"]),
    ]


def _history(app: App, image_id: int, annotator: str, own: bool) -> dict[str, Any]:
    """Return the history that this reader may see: in blind projects only their own part."""
    image = images.get_image(app.store, image_id=image_id)
    blind = label_settings.read_settings(app.store, project_id=image.project_id).blind
    only = clean_annotator(annotator) if own or blind else None
    return image_history.image_history(app.store, image_id=image_id, only=only).as_json()


def _asked(request: Request, name: str) -> int:
    number = number_in(request.query_params.get(name))
    if number is None:
        raise HTTPException(400, f"The address does not say which {name}.")
    return number
