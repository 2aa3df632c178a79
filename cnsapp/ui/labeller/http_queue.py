"""The routes of the queue: what to label next, asked by the browser itself, and giving it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.http import require_same_origin
from cnsapp.services import queueing
from cnsapp.services.images import ImageFilter
from cnsapp.services.label_settings import is_blind
from cnsapp.services.own_labels import labels_of
from cnsapp.services.queueing import Handed, QueuedImage, Wish
from cnsapp.ui.json_routes import in_words, read_message
from cnsapp.ui.labeller import row_of

MOST = 100  # images handed out in one answer
MOST_NAMED = 50_000  # images that a message may name
_FILTER = TypeAdapter(ImageFilter)
_queue_words = partial(in_words, what="wish for the next images")
FRESH = {"Cache-Control": "no-store"}


def routes(app: App) -> list[Route]:
    """Return the routes of the queue."""

    async def look(request: Request) -> Response:
        wish = _wish(request.query_params)
        n = _whole(request.query_params.get("n", "20"), 1, MOST)
        return await run_in_threadpool(_look_ahead, app, wish, n)

    async def take(request: Request) -> Response:
        require_same_origin(request)
        return await run_in_threadpool(_hand_out, app, await read_message(request))

    async def leave(request: Request) -> Response:
        require_same_origin(request)
        message = await read_message(request)
        named = message.get("images")
        n = await run_in_threadpool(
            queueing.release,
            app.store,
            project_id=_whole(message.get("project_id"), 1, 2**31),
            holder=_holder(message.get("holder")),
            image_ids=None if named is None else _ids(message, "images"),
        )
        return JSONResponse({"released": n}, headers=FRESH)

    return [
        Route("/api/queue/next", _queue_words(look), methods=["GET"]),
        Route("/api/queue/next", _queue_words(take), methods=["POST"]),
        Route("/api/queue/release", _queue_words(leave), methods=["POST"]),
    ]


def _look_ahead(app: App, wish: Wish, n: int) -> Response:
    handed = queueing.look_ahead(app.store, wish, n=n)
    again = wish.strategy in (queueing.SECOND, queueing.SELF)
    if not again and is_blind(app.store, project_id=wish.project_id):
        handed = replace(handed, images=labels_of(app.store, handed.images, wish.annotator))
    return JSONResponse(_answer(handed), headers=FRESH)


def _hand_out(app: App, message: Mapping[str, Any]) -> Response:
    wish = _wish(message)
    handed = queueing.hand_out(
        app.store,
        wish,
        holder=_holder(message.get("holder")),
        n=_whole(message.get("n", 20), 0, MOST),
        exclude=_ids(message, "seen"),
        keep=_ids(message, "keep"),
        give_back=_ids(message, "give_back"),
        holder_before=str(message.get("holder_before") or "")[:200],
        share_fairly=True,
        lease_seconds=app.settings.lease_seconds,
    )
    # what a page that was loaded again had in hand, or behind it
    shown = queueing.shown_again(app.store, wish, _ids(message, "show"))
    again = wish.strategy in (queueing.SECOND, queueing.SELF)  # not even what they said themselves
    mine = message.get("whose") == "mine" or is_blind(app.store, project_id=wish.project_id)
    if mine and not again:  # nothing that others said leaves the server
        handed = replace(handed, images=labels_of(app.store, handed.images, wish.annotator))
        shown = labels_of(app.store, shown, wish.annotator)
    return JSONResponse(_answer(handed, shown), headers=FRESH)


def _answer(handed: Handed, shown: Sequence[QueuedImage] = ()) -> dict[str, Any]:
    return {
        "images": [row_of(image) for image in handed.images],
        "shown": [row_of(image) for image in shown],
        "gone": handed.gone,
        "version": handed.version,
        "is_old": handed.is_old,
        "note": handed.note,
        "with_others": handed.with_others,
        "skipped": handed.skipped,
        "unsure": handed.unsure,
        "as_of": handed.as_of,
        "more": handed.more,
    }


def _wish(message: Mapping[str, Any]) -> Wish:
    """Return what a message or an address asks for."""
    class_id, given = message.get("class_id"), message.get("filter")
    try:
        if isinstance(given, str):
            wanted = _FILTER.validate_json(given)
        else:
            wanted = _FILTER.validate_python(given) if given else queueing.UNLABELLED
    except ValidationError as error:
        raise HTTPException(400, "The filter of the queue cannot be read.") from error
    return Wish(
        project_id=_whole(message.get("project_id", message.get("project")), 1, 2**31),
        annotator=str(message.get("annotator") or "")[:200],
        strategy=str(message.get("strategy") or "smart")[:40],
        class_id=None if class_id is None else _whole(class_id, 1, 2**31),
        seed=_whole(message.get("seed", 0), 0, 2**31),
        filter=wanted,
    )


def _holder(value: Any) -> str:
    if not isinstance(value, str) or not 8 <= len(value) <= 200:
        raise HTTPException(400, "The message does not say whose queue it is.")
    return value


def _ids(message: Mapping[str, Any], name: str) -> list[int]:
    values = message.get(name) or []
    if not isinstance(values, list) or len(values) > MOST_NAMED:
        raise HTTPException(400, f"“{name}” is no list of at most {MOST_NAMED:,} images.")
    return [_whole(value, 1, 2**31) for value in values]


def _whole(value: Any, least: int, most: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < most + 1:
        raise HTTPException(400, f"“{str(value)[:40]}” is no number from {least} to {most:,}.")
    return value
