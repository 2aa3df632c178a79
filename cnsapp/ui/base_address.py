"""Tells the browser where the server is, so that it need not try.

Streamlit's page, opened at `/label`, first asks for a server below `/label/` and gets two errors,
which then stand in the browser's console. A line in the page names the folder instead: the
address without the name of a page, so that it is right behind a proxy's prefix too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD = b"<head>"
_LINE = (
    "<script>(()=>{const names=%s;const parts=location.pathname.split('/');"
    "if(names.includes(parts[parts.length-1]))"
    "window.__streamlit={BACKEND_BASE_URL:location.origin+parts.slice(0,-1).join('/')+'/'};"
    "})()</script>"
)


def page_names() -> list[str]:
    """Return the last parts of the addresses of pages."""
    return sorted(path.stem for path in (Path(__file__).parents[2] / "pages").glob("*.py"))


class BaseAddress:
    """Adds a line to the page that Streamlit serves; everything else passes as it is."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self.app = app
        self.line = (_LINE % json.dumps(list(names))).encode()
        self.paths = tuple(f"/{name}" for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        asked = scope["type"] == "http" and scope["path"].endswith(self.paths)
        if not asked or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        kept = [item for item in scope["headers"] if item[0] != b"accept-encoding"]  # read below
        start: Message = {}
        body = b""

        async def take(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            if Headers(raw=start["headers"]).get("content-type", "").startswith("text/html"):
                body = body.replace(HEAD, HEAD + self.line, 1)
                MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self.app({**scope, "headers": kept}, receive, take)
