"""Maps on the screen: asked for once, watched while they are made, a sentence when they fail."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.services import explaining, jobs
from cnsapp.services.explaining import MapRequest
from cnsapp.ui import words

ASKED = "explain_asked"  # of the session: what was asked for -> the job that makes or checks it
LOOK_SECONDS = 0.5
STOPPED = "It was stopped before it was ready."


@dataclass(frozen=True)
class MapWish:
    """Which map: of which image, by which model and method, for which class (None: predicted)."""

    model_id: int
    image_id: int
    method: str
    target_class: int | None
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class MapState:
    """A map that is there, on its way (`job_id`), or failed (`error`).

    Of one that is there, `job_id` measures the checks, and `check_error` says why they failed.
    """

    key: str = ""
    facts: dict[str, Any] | None = None
    job_id: int | None = None
    error: str = ""
    check_error: str = ""


def get_map(app: App, wish: MapWish, *, checks: bool = False, requested_by: str = "") -> MapState:
    """Return how a map is doing; ask for it the first time, but never again after a failure."""
    asked: dict[MapWish, int] = st.session_state.setdefault(ASKED, {})
    check_error = ""
    if wish in asked:
        job = jobs.get_job(app.store, job_id=asked[wish])
        if job.state in ("failed", "cancelled"):
            said = job.error or STOPPED
            if not job.payload.get("checks"):
                return MapState(error=said)
            check_error = said
    try:
        found = _ask(app, wish, checks and not check_error, requested_by)
    except CnsError as error:
        return MapState(error=str(error))
    if found.job_id is not None:
        asked[wish] = found.job_id
    elif not check_error:
        asked.pop(wish, None)
    facts = found.facts if found.ready else None
    return MapState(found.key, facts, found.job_id, check_error=check_error)


def _ask(app: App, wish: MapWish, checks: bool, requested_by: str) -> MapRequest:
    return explaining.request_map(
        app,
        model_id=wish.model_id,
        image_id=wish.image_id,
        method=wish.method,
        target_class=wish.target_class,
        settings=dict(wish.settings),
        checks=checks,
        requested_by=requested_by,
    )


def try_again(wishes: Collection[MapWish]) -> None:
    """Forget that maps failed, so that they are asked for anew."""
    for wish in wishes:
        st.session_state.get(ASKED, {}).pop(wish, None)


def leave(app: App, shown: Collection[MapWish], *, requested_by: str) -> None:
    """Stop checks of maps that this visitor does not look at any more: others wait behind them."""
    asked: dict[MapWish, int] = st.session_state.setdefault(ASKED, {})
    for wish in [wish for wish in asked if wish not in shown]:
        job = jobs.get_job(app.store, job_id=asked[wish])
        if not job.is_active:
            asked.pop(wish)
        elif job.payload.get("checks") and job.requested_by == requested_by:
            jobs.cancel_job(app.store, job_id=job.id, dead_after=app.settings.dead_after_seconds)
            asked.pop(wish)


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
    n_checks = sum(bool(job.payload.get("checks")) for job in found)
    n_maps = len(found) - n_checks
    doing = []
    if n_maps:
        doing.append("Making the map" if n_maps == 1 else f"Making {n_maps} maps")
    if n_checks:
        doing.append(f"Checking {'the map' if n_checks == 1 else f'{n_checks} maps'}")
    alive = worker is not None and worker.alive
    running = next((job for job in found if job.state == "running"), None)
    if running is not None and running.message:
        stage = "" if running.message.startswith("Checking") else running.message
    elif alive:
        stage = "Waiting for its turn"
    elif app.settings.start_worker:
        stage = "The worker is starting"
    else:
        stage = "No worker is running: it waits until somebody starts one (`cnsapp worker`)"
    text = ", ".join(doing) + (f". {words.plain(stage)}" if stage else "") + "…"
    st.caption(f":material/hourglass_top: {text}")
    st.progress(0.0 if running is None else min(max(running.progress, 0.0), 1.0))
