"""The route that takes labels from the browser, and those that say what can be undone or redone."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.http import require_same_origin
from cnsapp.services import labels, suggestion_runs
from cnsapp.services.label_settings import is_blind
from cnsapp.ui.json_routes import in_words, number_in, parts_of, read_message

UNDO_STEPS = 50  # in one answer; the browser asks again when they are used up


def routes(app: App) -> list[Route]:
    """Return the routes of the labelling component."""

    async def post_labels(request: Request) -> Response:
        require_same_origin(request)
        message = await read_message(request)
        project_id, annotator, events = parts_of(message)
        receipt = await run_in_threadpool(
            labels.record_events,
            app.store,
            project_id=project_id,
            annotator=annotator,
            events=events,
            own=message.get("whose") == "mine"
            or await run_in_threadpool(is_blind, app.store, project_id=project_id),
        )
        # behind the answer: who labels does not wait for it
        after = BackgroundTask(suggestion_runs.refresh_if_due, app.store, project_id=project_id)
        return JSONResponse(receipt.as_json(), background=after)

    async def get_undo(request: Request) -> Response:
        query = request.query_params
        steps = await run_in_threadpool(
            labels.undo_stack,
            app.store,
            project_id=number_in(query.get("project")) or 0,
            annotator=query.get("annotator", ""),
            limit=UNDO_STEPS,
            before=number_in(query.get("before")),
        )
        return _steps(steps)

    async def get_redo(request: Request) -> Response:
        steps = await run_in_threadpool(
            labels.redo_stack,
            app.store,
            project_id=number_in(request.query_params.get("project")) or 0,
            annotator=request.query_params.get("annotator", ""),
            limit=UNDO_STEPS,
        )
        return _steps(steps)

    return [
        Route("/api/labels", in_words(post_labels), methods=["POST"]),
        Route("/api/labels/undo", in_words(get_undo), methods=["GET"]),
        Route("/api/labels/redo", in_words(get_redo), methods=["GET"]),
    ]


def _steps(steps: Sequence[labels.UndoStep]) -> Response:
    return JSONResponse(
        {"steps": [step.as_json() for step in steps]}, headers={"Cache-Control": "no-store"}
    )
