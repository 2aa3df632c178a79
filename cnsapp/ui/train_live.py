"""Runs while they go: how far, how good so far, how long still, and what was said on the way."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import streamlit as st

from cnsapp.domain.recipe import BACKBONES
from cnsapp.services import jobs
from cnsapp.services.jobs import JobPointView, JobView
from cnsapp.services.projects import ProjectView
from cnsapp.ui import train_dials, words
from cnsapp.ui.charts import curve_points, score_curve
from cnsapp.ui.frame import Here, guard
from cnsapp.ui.job_view import job_bar
from cnsapp.ui.train_charts import curves_of, draw_curves

RUNS = ("train", "search")  # kinds of job that make models
LOG_LINES = 60


def active_runs(here: Here, project: ProjectView) -> list[JobView]:
    """Return the runs of a project that go or wait, the first one first."""
    found = jobs.list_jobs(here.app.store, project_id=project.id, kinds=RUNS, active_only=True)
    return sorted(found, key=lambda job: (job.state != "running", job.id))


def watch(here: Here, runs: Sequence[JobView]) -> None:
    """Draw the runs; each looks again every second, and the page runs again when one ends."""
    for number, job in enumerate(runs):
        with st.container(border=True, key=f"train_run_{job.id}"):
            st.fragment(_live, run_every=1.0, key=f"train_live_{job.id}")(
                here, job.id, number == 0 and job.state == "running"
            )


def _live(here: Here, job_id: int, was_running: bool) -> None:
    with guard():
        job = jobs.get_job(here.app.store, job_id=job_id)
        if not job.is_active or (job.state == "running") != was_running:
            st.rerun()
        st.markdown(f"**{words.plain(title_of(job))}**")
        job_bar(here.app, job, key=f"train_job_{job.id}")
        points = jobs.job_points(here.app.store, job_id=job_id)
        st.caption(words.plain(pace(job, points)))
        if job.state == "running":
            draw_points(points, key=f"train_curve_{job.id}")
            with st.expander("Log", key=f"train_log_{job.id}", icon=":material/notes:"):
                draw_log(points)


def title_of(job: JobView) -> str:
    """Return what a run is, from what was asked for: `Full model · ResNet-18 · Epochs 20`."""
    if job.kind != "train":
        return job.title
    preset = str(job.payload.get("preset", "quick"))
    backbone = str(job.payload.get("backbone", ""))
    parts = [f"{preset.capitalize()} model", BACKBONES.get(backbone, backbone)]
    parts.append(train_dials.in_words(job.payload.get("options", {})))
    return " · ".join(part for part in parts if part)


def pace(job: JobView, points: Sequence[JobPointView]) -> str:
    """Return how fast a run goes and how long it may still take, as far as that is known."""
    if job.is_paused:
        return "Paused. It keeps its finished epochs and goes on when you resume it."
    if job.state == "queued":
        return "Runs of one device go one after the other."
    values = _latest(points, "images_per_second", "seconds_left")
    parts = []
    if _is_number(values.get("images_per_second")):
        parts.append(f"{values['images_per_second']:,.0f} images/s")
    if _is_number(values.get("seconds_left")):
        parts.append(f"about {words.duration(float(values['seconds_left']))} left")
    if job.started_at is not None:
        parts.append(f"started {words.ago(job.started_at)}")
    if job.requested_by:
        parts.append(f"by {job.requested_by}")
    return " · ".join(parts) or " "


def draw_points(points: Sequence[JobPointView], *, key: str) -> None:
    """Draw the curves of a run: epochs of the newest network, or the score over the folds."""
    networks = curves_of(points)
    if networks and networks[-1].n_epochs:
        if len(networks) > 1:
            st.caption(f"Network {len(networks)} of this run")
        draw_curves(networks[-1], key=key)
        return
    scores = curve_points(points)
    if scores:
        score_curve(scores, key=key, x_title="Folds done")


def draw_log(points: Sequence[JobPointView]) -> None:
    """Draw what a run said, the newest line first; the same line twice in a row stands once."""
    lines: list[tuple[str, str]] = []
    for point in points:
        if point.message and (not lines or lines[-1][1] != point.message):
            lines.append((f"{point.at:%H:%M:%S}", point.message))
    shown = "\n".join(f"{at}  {html.escape(said)}" for at, said in lines[: -LOG_LINES - 1 : -1])
    st.html(f'<pre class="cns-log">{shown}</pre>')


def _latest(points: Sequence[JobPointView], *names: str) -> dict[str, Any]:
    """Return the newest value of each name that any point carries."""
    found: dict[str, Any] = {}
    for point in reversed(points):
        for name in names:
            if name in point.values and name not in found:
                found[name] = point.values[name]
        if len(found) == len(names):
            break
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
