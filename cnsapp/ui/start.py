"""Opening the installation once for the web process, and the worker beside it."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from streamlit.runtime.pages_manager import PagesManager

from cnsapp.bootstrap import App, open_app
from cnsapp.errors import CnsError, StoreError
from cnsapp.jobs.supervisor import Supervisor
from cnsapp.settings import Settings, read_settings

log = logging.getLogger(__name__)

_lock = threading.Lock()
_opened: dict[str, App | CnsError] = {}


def opened() -> App:
    """Return the installation; open it at the first call.

    A failure is kept too: the routes that serve images are made once, at the start of the server,
    so it has to be started again when the reason is mended.

    Raises
    ------
    CnsError
        The settings, the data folder or the database cannot be used; in words.
    """
    settings = read_settings()
    key = settings.model_dump_json()
    with _lock:
        if key not in _opened:
            _opened[key] = _open(settings)
        found = _opened[key]
    if isinstance(found, CnsError):
        raise found
    return found


def _open(settings: Settings) -> App | CnsError:
    try:
        return open_app(settings)
    except CnsError as error:
        log.error("the installation cannot be opened: %s", error)
        return error
    except Exception:
        log.exception("the installation cannot be opened")
        return StoreError(
            f"The data folder {settings.root} cannot be opened.",
            "What went wrong is in the log of the server.",
            "Start the app again; if it happens again, report it with that log.",
        )


def routes() -> list[BaseRoute]:
    """Return the app's own routes; none when it cannot be opened (the page then says why)."""
    import cnsapp.ui.figures
    import cnsapp.ui.frame  # noqa: F401 - the first visitor would wait for it

    # Streamlit looks at the stack once, and Python then looks where each module came from: that
    # is remembered, and the first visitor need not wait for it either
    inspect.stack()
    from cnsapp.http import routes as http_routes
    from cnsapp.ui import looks_http, pictures, review_http, review_suspects_http, tiles_http
    from cnsapp.ui.labeller.http import routes as label_routes
    from cnsapp.ui.labeller.http_notes import routes as note_routes
    from cnsapp.ui.labeller.http_queue import routes as queue_routes

    try:
        app = opened()
    except CnsError:
        return []
    return [
        *http_routes(app), *label_routes(app), *note_routes(app), *queue_routes(app),
        *pictures.routes(app), *tiles_http.routes(app), *looks_http.routes(app),
        *review_suspects_http.routes(app), *review_http.routes(app),
    ]  # fmt: skip


def middleware() -> list[Middleware]:
    """Return what stands between the server and the browser."""
    from cnsapp.ui.base_address import BaseAddress, page_names

    return [Middleware(BaseAddress, names=page_names())]


@asynccontextmanager
async def lifespan(_app: Any) -> AsyncIterator[dict[str, Any]]:
    """Run a worker beside the web process for as long as that lives."""
    # The menu is made in app.py alone. Without this, a link straight to a page that is the first
    # to be opened would run that file by itself, without its frame, as Streamlit's older apps did.
    PagesManager.uses_pages_directory = False
    supervisor = _supervisor()
    if supervisor is not None:
        supervisor.start()
    try:
        yield {}
    finally:
        if supervisor is not None:
            supervisor.stop()


def _supervisor() -> Supervisor | None:
    try:
        app = opened()
    except CnsError:
        return None
    return Supervisor(app.settings) if app.settings.start_worker else None
