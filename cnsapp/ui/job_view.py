"""Jobs on the screen: a bar with a message and a way to stop it, that moves by itself."""

from __future__ import annotations

import html

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.services import jobs
from cnsapp.services.jobs import JobView
from cnsapp.ui import start, words


def job_bar(app: App, job: JobView, *, key: str, narrow: bool = False) -> None:
    """Draw one job: what it is, how far, what it does, and buttons that pause and stop it.

    `narrow` leaves the words of the buttons to their hints.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{key}_row"):
        st.progress(min(max(job.progress, 0.0), 1.0), text=_line(job))
        turn = _pause_button(job, key, narrow=narrow)
        pressed = st.button(
            "",
            icon=":material/close:",
            key=f"{key}_stop",
            type="tertiary",
            help=f"Stop: {job.title}",
            disabled=job.cancel_requested,
        )
    if turn:
        if job.paused:
            jobs.resume_job(app.store, job_id=job.id)
        else:
            jobs.pause_job(app.store, job_id=job.id, dead_after=app.settings.dead_after_seconds)
        st.rerun()
    if pressed:
        jobs.cancel_job(app.store, job_id=job.id, dead_after=app.settings.dead_after_seconds)
        st.rerun()


def _pause_button(job: JobView, key: str, *, narrow: bool) -> bool:
    """Draw the button that pauses a job, or lets it go on; say whether it was pressed."""
    if job.paused and not job.cancel_requested:
        return st.button(
            "" if narrow else "Resume",
            icon=":material/play_arrow:",
            key=f"{key}_resume",
            type="tertiary",
            help=f"Resume: {job.title}. It goes on from where it was.",
        )
    if not job.can_pause:
        return False
    return st.button(
        "",
        icon=":material/pause:",
        key=f"{key}_pause",
        type="tertiary",
        help=f"Pause: {job.title}. It keeps what it has finished.",
    )


def _line(job: JobView) -> str:
    if job.cancel_requested:
        return f"{job.title}: stopping…"
    if job.paused:
        where = f" at {job.progress:.0%}" if job.progress > 0 else ""
        return f"{job.title}: paused{where}" if job.is_paused else f"{job.title}: pausing…"
    if job.state == "queued":
        if job.n_ahead:
            return f"{job.title}: waits for {words.plural(job.n_ahead, 'job')} before it"
        return f"{job.title}: waiting for the worker"
    share = f" · {job.progress:.0%}" if job.progress > 0 else ""
    return f"{words.plain(job.message or job.title)}{share}"


def job_progress(job_id: int) -> JobView:
    """Draw a job in the page; it looks again every second while the job waits or runs.

    When the job ends the whole page runs again, so that it can show what came of it.
    """
    app = start.opened()
    job = jobs.get_job(app.store, job_id=job_id)
    if job.is_active:
        st.fragment(_watch, run_every=1.0, key=f"watch_{job_id}")(app, job_id)
    else:
        show_outcome(job)
    return job


def _watch(app: App, job_id: int) -> None:
    try:
        job = jobs.get_job(app.store, job_id=job_id)
    except CnsError as error:
        st.error(words.plain(error.what))
        return
    if not job.is_active:
        st.rerun()
    job_bar(app, job, key=f"job_{job_id}")


def show_outcome(job: JobView) -> None:
    """Say how a job ended: a failed one looks failed."""
    when = words.ago(job.finished_at)
    if job.state == "failed":
        why = words.plain(job.error or "The log says why.")
        st.error(f"**{job.title} failed** ({when}).\n\n{why}")
    elif job.state == "cancelled":
        st.info(f"{job.title}: stopped {when}.")


STATES = {
    "queued": ("wait", "waiting"),
    "running": ("wait", "running"),
    "paused": ("", "paused"),
    "done": ("on", "done"),
    "failed": ("bad", "failed"),
    "cancelled": ("", "stopped"),
}


def state_mark(job: JobView) -> str:
    """Return the state of a job as HTML: a dot and the word."""
    tone, word = STATES.get("paused" if job.is_paused else job.state, ("", job.state))
    return f'<span class="cns-dot {tone}"></span>{html.escape(word)}'
