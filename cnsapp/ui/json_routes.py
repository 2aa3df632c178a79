"""What the routes of the labelling screen share: messages in JSON, and failures in words."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from cnsapp.errors import CnsError, InvalidInputError, NotFoundError

MOST_BYTES = 1_000_000  # of a message; 2,000 events are half of it

log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


def in_words(handler: Handler, what: str = "label", done: str = "stored") -> Handler:
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
            log.exception("a %s could not be %s", what, done)
            return _sentence(500, f"The {what} could not be {done}; the log says why.")

    return answer


def _sentence(status: int, sentence: str, *, permanent: bool = False) -> JSONResponse:
    return JSONResponse({"error": sentence, "permanent": permanent}, status_code=status)


async def read_message(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request carries; refuse what is none, or too large."""
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


def parts_of(message: dict[str, Any]) -> tuple[int, str, list[Any]]:
    """Return project, annotator and events of a message; refuse one that lacks a part."""
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


def number_in(text: str | None) -> int | None:
    """Return the number in an address, None where there is none; refuse what is no number."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(400, f"“{text[:40]}” is not a number.")
    return int(text)
