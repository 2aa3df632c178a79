"""The route that takes labels from the browser, and those that say what can be undone or redone."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError
from cnsapp.http import require_same_origin
from cnsapp.services import label_settings, labels, suggestion_runs

MOST_BYTES = 1_000_000  # of a message; 2,000 events are half of it
UNDO_STEPS = 50  # in one answer; the browser asks again when they are used up

log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


def routes(app: App) -> list[Route]:
    """Return the routes of the labelling component."""

    async def post_labels(request: Request) -> Response:
        require_same_origin(request)
        message = await _read_message(request)
        project_id, annotator, events = _parts(message)
        receipt = await run_in_threadpool(
            labels.record_events,
            app.store,
            project_id=project_id,
            annotator=annotator,
            events=events,
            own=message.get("whose") == "mine"
            or await run_in_threadpool(_is_blind, app, project_id),
        )
        # behind the answer: who labels does not wait for it
        after = BackgroundTask(suggestion_runs.refresh_if_due, app.store, project_id=project_id)
        return JSONResponse(receipt.as_json(), background=after)

    async def get_undo(request: Request) -> Response:
        query = request.query_params
        steps = await run_in_threadpool(
            labels.undo_stack,
            app.store,
            project_id=_number(query.get("project")) or 0,
            annotator=query.get("annotator", ""),
            limit=UNDO_STEPS,
            before=_number(query.get("before")),
        )
        return _steps(steps)

    async def get_redo(request: Request) -> Response:
        steps = await run_in_threadpool(
            labels.redo_stack,
            app.store,
            project_id=_number(request.query_params.get("project")) or 0,
            annotator=request.query_params.get("annotator", ""),
            limit=UNDO_STEPS,
        )
        return _steps(steps)

    return [
        Route("/api/labels", _in_words(post_labels), methods=["POST"]),
        Route("/api/labels/undo", _in_words(get_undo), methods=["GET"]),
        Route("/api/labels/redo", _in_words(get_redo), methods=["GET"]),
    ]


def _is_blind(app: App, project_id: int) -> bool:
    """Return whether nobody is told what others say: also a page from before that was decided."""
    return label_settings.read_settings(app.store, project_id=project_id).blind


def _in_words(handler: Handler, what: str = "label") -> Handler:
    """Answer failures with a sentence as JSON; `permanent` means that trying again is no use."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException as refused:
            return _sentence(refused.status_code, refused.detail)
        except NotFoundError as error:
            return _sentence(404, str(error), permanent=True)
        except InvalidInputError as error:
            return _sentence(422, str(error), permanent=True)
        except CnsError as error:
            log.warning("a %s was not taken", what, exc_info=True)
            return _sentence(503, str(error))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("a %s could not be stored", what)
            return _sentence(500, f"The {what} could not be stored; the log says why.")

    return answer


def _steps(steps: Sequence[labels.UndoStep]) -> Response:
    return JSONResponse(
        {"steps": [step.as_json() for step in steps]}, headers={"Cache-Control": "no-store"}
    )


def _sentence(status: int, sentence: str, *, permanent: bool = False) -> JSONResponse:
    return JSONResponse({"error": sentence, "permanent": permanent}, status_code=status)


async def _read_message(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise HTTPException(415, "Labels come as application/json.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"A message of labels holds at most {MOST_BYTES:,} bytes.")
    try:
        message = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "The message is not JSON.") from error
    if not isinstance(message, dict):
        raise HTTPException(400, "The message is not a JSON object.")
    return message


def _parts(message: dict[str, Any]) -> tuple[int, str, list[Any]]:
    project_id, annotator = message.get("project_id"), message.get("annotator")
    events = message.get("events")
    if isinstance(project_id, bool) or not isinstance(project_id, int):
        raise HTTPException(400, "The message does not say which project it is for.")
    if not isinstance(annotator, str):
        raise HTTPException(400, "The message does not say who labelled.")
    if not isinstance(events, list) or not events:
        raise HTTPException(400, "The message holds no list of labels.")
    if not 0 < project_id < 2**53:
        raise NotFoundError(f"There is no project number {project_id}.")
    return project_id, annotator, events


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(400, f"“{text[:40]}” is not a number.")
    return int(text)
