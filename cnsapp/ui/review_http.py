"""The routes of the large picture in Review: all facts of an image, its map, and excluding it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cnsapp.bootstrap import App
from cnsapp.domain.labels import clean_annotator
from cnsapp.domain.maps import DEFAULT_METHOD
from cnsapp.errors import NotFoundError
from cnsapp.http import require_same_origin
from cnsapp.services import exclusion, explaining, images, jobs, split_uses
from cnsapp.services.label_settings import is_blind
from cnsapp.services.projects import ClassView
from cnsapp.services.review import Truth
from cnsapp.services.review_image import Neighbour, ReviewImage, review_image
from cnsapp.ui.components import thumb_url, view_url
from cnsapp.ui.json_routes import in_words, read_message

ENTRIES = 4  # of the history: the whole of it is one key away
FRESH = {"Cache-Control": "no-store"}
LOCKED = (
    "This image is in the locked test set. What a model says of it is shown once your look at it "
    "was counted: load Review or Explain anew and press “Look at the test set”."
)
_words = partial(in_words, what="question about an image", done="answered")
_exclusion_words = partial(in_words, what="change of an image")


def routes(app: App) -> list[Route]:
    """Return the routes."""

    async def facts(request: Request) -> Response:
        asked = _Asked(request.query_params)
        found = await run_in_threadpool(_facts, app, asked)
        return JSONResponse(found, headers=FRESH)

    async def saliency(request: Request) -> Response:
        require_same_origin(request)
        asked = _Asked(await read_message(request))
        status, found = await run_in_threadpool(_map, app, asked)
        return JSONResponse(found, status_code=status, headers=FRESH)

    async def exclude(request: Request) -> Response:
        require_same_origin(request)
        asked = _Asked(await read_message(request))
        found = await run_in_threadpool(_exclude, app, asked)
        return JSONResponse(found, headers=FRESH)

    return [
        Route("/api/review/image", _words(facts), methods=["GET"]),
        Route("/api/review/map", _words(saliency), methods=["POST"]),
        Route("/api/review/exclude", _exclusion_words(exclude), methods=["POST"]),
    ]


class _Asked:
    """What a message or an address says, checked as it is read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def number(self, name: str) -> int:
        found = self.find(name)
        if found is None:
            raise HTTPException(400, f"The message does not say which {name}.")
        return found

    def find(self, name: str) -> int | None:
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
            raise HTTPException(400, f"“{str(value)[:40]}” is no number of a {name}.")
        return value

    @property
    def who(self) -> str:
        return str(self.values.get("annotator") or "")[:200]

    def flag(self, name: str) -> bool:
        return self.values.get(name) in (True, "1")


def _facts(app: App, asked: _Asked) -> dict[str, Any]:
    model_id, image_id = asked.number("model"), asked.number("image")
    image = images.get_image(app.store, image_id=image_id)
    _check_look(app, model_id, image_id, asked.who)
    # the server decides what a reader may see, whatever the page says
    hidden = asked.flag("own") or is_blind(app.store, project_id=image.project_id)
    truth: Truth = "current" if asked.values.get("truth") == "current" else "trained"
    found = review_image(
        app.store,
        model_id=model_id,
        image_id=image_id,
        truth=truth,
        only=clean_annotator(asked.who) if hidden else None,
    )
    return _as_json(app, found)


def _check_look(app: App, model_id: int, image_id: int, who: str) -> None:
    """Refuse what a model said of a locked test image, unless that person's look was counted."""
    if explaining.in_test_set(
        app.store, model_id=model_id, image_id=image_id
    ) and not split_uses.has_looked(app.store, model_id=model_id, who=who):
        raise HTTPException(403, LOCKED)


def _as_json(app: App, found: ReviewImage) -> dict[str, Any]:
    answer, image, history = found.answer, found.image, found.history.as_json()["entries"]
    by_id = {c.id: c for c, _ in found.probabilities}
    predicted = found.probabilities[0][0] if found.probabilities else None
    if answer is not None:
        predicted = by_id.get(answer.predicted_class_id, predicted)
    then = answer.label_then if answer else None
    return {
        "image": image.id,
        "status": image.status,
        "group": image.group,
        "part": found.part,
        "how": found.how,
        "predicted": _class(predicted),
        "probabilities": [_class(c) | {"p": round(p, 4)} for c, p in found.probabilities],
        "knows": [output.class_id for output in found.model.outputs],
        "right": answer.right if answer else None,
        "loss": round(answer.loss, 3) if answer and answer.loss is not None else None,
        "label": {"who": found.label.who, "at": found.label.at and found.label.at.isoformat()},
        "label_then": _class(by_id.get(then)) if then and answer and answer.changed else {},
        "history": history[:ENTRIES],
        "n_history": len(history),
        "metadata": found.metadata,
        "neighbours": [_neighbour(app, one) for one in found.neighbours],
        "neighbours_note": found.neighbours_note,
        "may": sorted(found.may),
    }


def _class(c: ClassView | None) -> dict[str, Any]:
    return {} if c is None else {"id": c.id, "name": c.name, "color": c.color}


def _neighbour(app: App, one: Neighbour) -> dict[str, Any]:
    version = images.get_image(app.store, image_id=one.image_id).version
    return {
        "id": one.image_id,
        "name": one.name,
        "class": {"id": one.class_id, "name": one.class_name, "color": one.color},
        "similarity": round(one.similarity, 3),
        "same_group": one.same_group,
        "learnt": one.learnt,
        "same_file": one.same_file,
        "thumb": thumb_url(one.image_id, version),
        "view": view_url(one.image_id, version),
    }


def _map(app: App, asked: _Asked) -> tuple[int, dict[str, Any]]:
    """Return 200 and the map, 202 and how far it is, or 409 and why it failed.

    A failed map is not made again unless it is asked for without the number of its job.
    """
    model_id, image_id = asked.number("model"), asked.number("image")
    _check_look(app, model_id, image_id, asked.who)
    job_id = asked.find("job")
    if job_id is not None:
        failed = _failure(app, job_id, image_id)
        if failed:
            return 409, {"error": failed, "permanent": True}
    wanted = explaining.request_map(
        app,
        model_id=model_id,
        image_id=image_id,
        method=DEFAULT_METHOD,
        target_class=asked.find("class"),
        requested_by=asked.who,
        checks=asked.flag("checks"),
    )
    if not wanted.ready:
        return 202, {"job": wanted.job_id, "doing": _doing(app, wanted.job_id)}
    facts = wanted.facts
    faithful, random = facts.get("faithfulness") or {}, facts.get("randomisation") or {}
    return 200, {
        "url": f"/img/map/{wanted.key}",
        "job": wanted.job_id,
        "class": facts["class"],
        "legend": facts["legend"],
        "empty": bool(facts.get("empty")),
        "notes": facts.get("notes", []),
        "checked": explaining.is_checked(facts),
        "no_better": faithful.get("beats_random") is False,
        "verdict": faithful.get("verdict", ""),
        "draws_image": random.get("depends_on_model") is False,
    }


def _failure(app: App, job_id: int, image_id: int) -> str:
    """Return why a map was not made, "" while nothing speaks against it."""
    try:
        job = jobs.get_job(app.store, job_id=job_id)
    except NotFoundError:
        return ""  # tidied away: it is asked for anew
    if job.kind != "explain" or job.payload.get("image_id") != image_id:
        return ""
    if job.state in ("failed", "cancelled"):
        return job.error or "The map was stopped before it was ready."
    return ""


def _doing(app: App, job_id: int | None) -> str:
    if job_id is not None:
        job = jobs.get_job(app.store, job_id=job_id)
        if job.state == "running":
            return job.message or "Making the map"
        if job.is_paused:
            return "Waiting: somebody paused it on the Jobs page"
    worker = jobs.worker_view(app.store, settings=app.settings)
    return "Waiting for its turn" if worker and worker.alive else "The worker is starting"


def _exclude(app: App, asked: _Asked) -> dict[str, Any]:
    """Take an image out of use, or with `back` into use again."""
    change = exclusion.restore if asked.flag("back") else exclusion.exclude
    done = change(
        app.store,
        project_id=asked.number("project_id"),
        image_ids=[asked.number("image")],
        who=asked.who,
        reason="" if asked.flag("back") else "in Review",
    )
    return {"changed": done.image_ids}
