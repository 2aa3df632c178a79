"""Maps on the screen: asked for once, watched while they are made, a sentence when they fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.services import explaining, jobs
from cnsapp.services.explaining import MapRequest
from cnsapp.ui import words

ASKED = "explain_asked"  # of the session: what was asked for -> the job that makes it
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class MapWish:
    """Which map: of which image, by which model and method, for which class (None: predicted)."""

    model_id: int
    image_id: int
    method: str
    target_class: int | None


@dataclass(frozen=True)
class MapState:
    """A map that is there, on its way (`job_id`), or failed (`error`)."""

    key: str = ""
    facts: dict[str, Any] | None = None
    job_id: int | None = None
    error: str = ""

    @property
    def url(self) -> str | None:
        """The address of its picture, when it is there."""
        return f"/img/map/{self.key}" if self.facts is not None else None


def get_map(app: App, wish: MapWish, *, requested_by: str = "") -> MapState:
    """Return how a map is doing; ask for it the first time, but never again after a failure."""
    asked: dict[MapWish, int] = st.session_state.setdefault(ASKED, {})
    if wish in asked:
        job = jobs.get_job(app.store, job_id=asked[wish])
        if job.state in ("failed", "cancelled"):
            return MapState(error=job.error or "The map was stopped before it was ready.")
    try:
        found: MapRequest = explaining.request_map(
            app,
            model_id=wish.model_id,
            image_id=wish.image_id,
            method=wish.method,
            target_class=wish.target_class,
            requested_by=requested_by,
        )
    except CnsError as error:
        return MapState(error=str(error))
    if found.ready:
        asked.pop(wish, None)
        return MapState(key=found.key, facts=found.facts)
    if found.job_id is not None:
        asked[wish] = found.job_id
    return MapState(key=found.key, job_id=found.job_id)


def try_again(wish: MapWish) -> None:
    """Forget that a map failed, so that it is asked for anew."""
    st.session_state.get(ASKED, {}).pop(wish, None)


def watch(app: App, job_ids: list[int]) -> None:
    """Show that maps are being made, and run the page again when one of them is ready."""
    st.fragment(_look, run_every=LOOK_SECONDS, key="explain_watch")(app, job_ids)


def _look(app: App, job_ids: list[int]) -> None:
    try:
        found = [jobs.get_job(app.store, job_id=job_id) for job_id in job_ids]
        worker = jobs.worker_view(app.store, settings=app.settings)
    except CnsError as error:
        st.caption(words.plain(error.what))
        return
    if any(not job.is_active for job in found):
        st.rerun()
    alive = worker is not None and worker.alive
    running = next((job.message for job in found if job.state == "running" and job.message), "")
    stage = running or ("Waiting for its turn" if alive else "The worker is starting")
    st.caption(f":material/hourglass_top: Making the map. {words.plain(stage)}…")
