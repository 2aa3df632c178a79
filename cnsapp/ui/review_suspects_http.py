"""The routes of the list of label errors: pages of it, and decisions about its images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.http import require_same_origin
from cnsapp.services import label_errors, models, projects, suggestion_runs
from cnsapp.services.label_error_answers import refuse_blind, take_decisions
from cnsapp.services.label_errors import Key
from cnsapp.ui.json_routes import in_words, number_in, parts_of, read_message
from cnsapp.ui.review_suspects_data import PAGE, page_data, summary_data

PATH = "/api/label-errors"
_list_words = partial(in_words, what="list of label errors", done="made")


def routes(app: App) -> list[Route]:
    """Return the routes; a decision needs no rerun of the page."""

    async def decide(request: Request) -> Response:
        require_same_origin(request)
        project_id, annotator, events = parts_of(await read_message(request))
        done = await run_in_threadpool(
            take_decisions, app.store, project_id=project_id, who=annotator, events=events
        )
        # behind the answer, as after any label: who decides does not wait for it
        after = BackgroundTask(suggestion_runs.refresh_if_due, app.store, project_id=project_id)
        return JSONResponse(done.as_json(), background=after)

    async def look(request: Request) -> Response:
        found = await run_in_threadpool(_look, app, request.query_params)
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    return [
        Route(PATH, in_words(decide), methods=["POST"]),
        Route(PATH, _list_words(look), methods=["GET"]),
    ]


def _look(app: App, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the figures of today, and the page that was asked for, if one was."""
    project_id, model_id = (number_in(asked.get(name)) or 0 for name in ("project", "model"))
    refuse_blind(app.store, project_id=project_id)
    models.get_model(app.store, model_id=model_id, project_id=project_id)
    total = summary_data(label_errors.summary(app.store, model_id=model_id))
    if asked.get("page") != "1":
        return {"summary": total}
    page = label_errors.list_suspects(
        app.store,
        model_id=model_id,
        label=number_in(asked.get("label")),
        suggested=number_in(asked.get("to")),
        after=_key(asked.get("after")),
        limit=PAGE,
    )
    classes = projects.list_classes(app.store, project_id=project_id)
    return {"summary": total, **page_data(app, page, classes)}


def _key(text: str | None) -> Key | None:
    if text is None:
        return None
    score, _, image_id = text.partition(",")
    number = number_in(image_id)
    try:
        return float(score), number or 0
    except ValueError:
        raise HTTPException(400, f"“{text[:40]}” is no place in the list.") from None
