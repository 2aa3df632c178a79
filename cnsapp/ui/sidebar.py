"""The sidebar: which project, who labels, what runs."""

from __future__ import annotations

import html

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.services import jobs, people, projects
from cnsapp.services.jobs import JobView, WorkerView
from cnsapp.services.projects import ProjectView
from cnsapp.ui import memory, words
from cnsapp.ui.job_view import job_bar

PROJECT, WHO = "project", "who"  # names in the address, and of what the session remembers
POLL_SECONDS = 1.0
HIDDEN_KINDS = ("explain", "preview")  # over in a moment and shown where they were asked for


def choose_project(app: App) -> ProjectView | None:
    """Draw the picker; return the project of the address, else the session's or the newest."""
    found = {project.id: project for project in projects.list_projects(app.store)}
    if not found:
        return None
    chosen = _asked_project(found)
    st.session_state[PROJECT] = chosen
    if st.query_params.get(PROJECT) != str(chosen):
        st.query_params[PROJECT] = str(chosen)
    st.session_state["frame_project"] = chosen
    st.selectbox(
        "Project",
        list(found),
        format_func=lambda project_id: found[project_id].name,
        key="frame_project",
        on_change=_project_picked,
    )
    return found[chosen]


def pick_project(project_id: int) -> None:
    """Make a project the current one from here on."""
    st.session_state[PROJECT] = project_id
    st.query_params[PROJECT] = str(project_id)


def _asked_project(found: dict[int, ProjectView]) -> int:
    for asked in (st.query_params.get(PROJECT), st.session_state.get(PROJECT)):
        text = str(asked or "")
        if text.isascii() and text.isdigit() and len(text) < 16 and int(text) in found:
            return int(text)
    return next(iter(found))


def _project_picked() -> None:
    chosen, who = st.session_state["frame_project"], st.query_params.get(WHO)
    st.session_state[PROJECT] = chosen
    kept = {PROJECT: str(chosen)} | ({WHO: who} if who else {})
    st.query_params.from_dict(kept)  # filters and images of the other project mean nothing here


def choose_annotator(app: App, project: ProjectView | None) -> str:
    """Draw the name of who labels and return it; empty when nobody said."""
    said = st.query_params.get(WHO) or st.session_state.get(WHO) or memory.recall("annotator")
    who = " ".join(str(said).split())[:200]
    st.session_state[WHO] = who
    if who and st.query_params.get(WHO) != who:
        st.query_params[WHO] = who
    if project is None:
        return who
    known = people.list_annotators(app.store, project_id=project.id)
    options = known if who in known or not who else [who, *known]
    st.session_state["frame_who"] = who or None
    st.selectbox(
        "Labelling as",
        options,
        index=None,
        key="frame_who",
        placeholder="Your name",
        accept_new_options=True,
        on_change=_who_picked,
        help="Every label is stored with the name of who gave it.",
    )
    return who


def _who_picked() -> None:
    who = " ".join(str(st.session_state["frame_who"] or "").split())[:200]
    st.session_state[WHO] = who
    if who:
        st.query_params[WHO] = who
    else:
        st.query_params.pop(WHO, None)
        memory.forget("annotator")


def show_jobs(app: App) -> None:
    """Draw the running jobs and the state of the worker; look again only while that can change."""
    active = _active(app)
    worker = jobs.worker_view(app.store, settings=app.settings)
    waits = worker is None or not worker.alive
    pause = POLL_SECONDS if active else 3.0 if waits else None
    st.fragment(_jobs, run_every=pause, key="frame_jobs")(app, [job.id for job in active])


def _active(app: App) -> list[JobView]:
    return jobs.list_jobs(app.store, active_only=True, but=HIDDEN_KINDS, limit=8)


def _jobs(app: App, seen: list[int]) -> None:
    try:
        active, worker = _active(app), jobs.worker_view(app.store, settings=app.settings)
    except CnsError as error:
        st.caption(words.plain(error.what))
        return
    if set(seen) - {job.id for job in active}:
        st.rerun()  # one has ended: what the page shows may have changed
    alive = worker is not None and worker.alive
    if active:
        going = [job for job in active if not job.is_paused]
        st.caption(("Running" if alive else "Waiting") if going else "Paused")
    for job in reversed(active):
        job_bar(app, job, key=f"frame_job_{job.id}", narrow=True)
    st.html(_worker_line(worker, n_waiting=sum(not job.is_paused for job in active)))


def _worker_line(worker: WorkerView | None, n_waiting: int) -> str:
    if worker is not None and worker.alive:
        text = html.escape(words.device(worker.device))
        hint = f"The worker runs on {text}, since {words.ago(worker.since)}."
        return (
            f'<div class="cns-small cns-muted" title="{hint}"><span class="cns-dot on"></span>'
            f"{text}</div>"
        )
    more = "; jobs wait for it" if n_waiting else ""
    return (
        '<div class="cns-small cns-muted"><span class="cns-dot wait"></span>'
        f"Worker is starting{more}…</div>"
    )


def footer(who: str) -> None:
    """Say what the app is not for, and let the browser remember who labels on it."""
    memory.keep("annotator", who)
    st.html('<div class="cns-foot">Research use only; not for diagnosis.</div>')
