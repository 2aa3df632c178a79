"""Train: are there labels enough, one button, and how the run goes."""

from __future__ import annotations

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import jobs, models, training
from cnsapp.services.jobs import JobView
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ProjectView
from cnsapp.services.training import Readiness
from cnsapp.ui import figures, frame, words
from cnsapp.ui.charts import curve_points, score_curve
from cnsapp.ui.frame import Here
from cnsapp.ui.job_view import job_bar, show_outcome, state_mark
from cnsapp.ui.tables import Column, table, text, when

FEATURES_SECONDS = 0.1  # an image with its views on two CPU cores, once
HEAD_SECONDS = 5.0
SHOWN_PROBLEMS = 6


def main() -> None:
    """Draw the page."""
    here = frame.current()
    frame.page_header(
        "Train",
        "A quick model learns from the labels in seconds to minutes; it runs in the background.",
    )
    project = frame.need_project(here, "A model is trained on the labels of a project.")
    ready = training.readiness(here.app.store, project_id=project.id)
    running = training.active_training(here.app.store, project_id=project.id)
    found = models.list_models(here.app.store, project_id=project.id)
    stale = True
    if found:
        changes = models.labels_changed_since(here.app.store, model_id=found[0].id)
        stale = changes.total > 0
    left, right = st.columns([3, 2], gap="large")
    with left:
        if running is None:
            start(here, project, ready, first=stale)
        else:
            watch(here, running)
        newest_result(here, project, is_running=running is not None)
    with right:
        st.subheader("Labels", anchor=False)
        figures.labels_of_classes(ready.per_class)
    past_runs(here, project)


def start(here: Here, project: ProjectView, ready: Readiness, *, first: bool) -> None:
    """Draw the button, what it would cost, and what stands in the way or weakens the result."""
    for problem in ready.problems:
        st.warning(frame.plain(problem))
    if ready.ok:
        line = (
            f"**{words.plural(ready.n_labelled, 'labelled image')}**"
            + (f" from **{words.plural(ready.n_groups, 'group')}**" if ready.n_groups else "")
            + ". Scored by folds that leave images out"
            + (", whole groups at a time." if ready.n_groups > 1 else ".")
        )
        st.markdown(line)
    pressed = False
    with st.container(horizontal=True, vertical_alignment="center", key="train_start_row"):
        if ready.ok:
            pressed = st.button(
                "Train a quick model",
                type="primary" if first else "secondary",
                key="train_start",
                icon=":material/model_training:",
            )
        elif st.button("Label images", type="primary", key="train_label"):
            frame.go_to("pages/label.py" if project.n_images else "pages/images.py")
        if ready.ok:
            st.caption(where_and_how_long(here, ready), width="content")
    for warning in ready.warnings[:SHOWN_PROBLEMS]:
        st.caption(f":material/info: {frame.plain(warning)}")
    if pressed:
        with frame.guard():
            training.start_training(
                here.app, project_id=project.id, preset="quick", requested_by=here.annotator
            )
            st.rerun()


def where_and_how_long(here: Here, ready: Readiness) -> str:
    """Return the device and about how long a run takes."""
    worker = jobs.worker_view(here.app.store, settings=here.app.settings)
    if worker is None or not worker.alive:
        device = "Worker is starting…"
    else:
        device = f"{words.device(worker.device)}."
    first_time = HEAD_SECONDS + FEATURES_SECONDS * ready.n_labelled
    return (
        f"{device} About {words.duration(first_time)} the first time on two processor "
        "cores, then less: features of images are computed once."
    )


def watch(here: Here, job_id: int) -> None:
    """Draw a run while it goes, and look again every second."""
    with st.container(border=True, key="train_running"):
        st.fragment(live, run_every=1.0, key="train_live")(here, job_id)


def live(here: Here, job_id: int) -> None:
    """Draw a run as it is now: stage, speed, time left, and the score of the folds so far."""
    with frame.guard():
        job = jobs.get_job(here.app.store, job_id=job_id)
        if not job.is_active:
            st.rerun()
        job_bar(here.app, job, key="train_job")
        points = jobs.job_points(here.app.store, job_id=job_id)
        st.caption(pace(job, points[-1].values if points else {}))
        scores = curve_points(points)
        if scores:
            score_curve(scores, key="train_curve", x_title="Folds done")


def pace(job: JobView, values: dict[str, object]) -> str:
    """Return how fast a run goes and how long it may still take, as far as that is known."""
    if job.state == "queued":
        return "Waits for the worker; runs of one device go one after the other."
    parts = []
    speed = values.get("images_per_second")
    if isinstance(speed, int | float):
        parts.append(f"{speed:,.0f} images/s")
    left = values.get("seconds_left")
    if isinstance(left, int | float):
        parts.append(f"about {words.duration(float(left))} left")
    if job.started_at is not None:
        parts.append(f"started {words.ago(job.started_at)}")
    return " · ".join(parts) or " "


def newest_result(here: Here, project: ProjectView, *, is_running: bool) -> None:
    """Draw what came of the newest run: a model with its figures, or why there is none."""
    runs = [j for j in train_jobs(here, project) if not j.is_active]
    if runs and runs[0].state in ("failed", "cancelled"):
        show_outcome(runs[0])
    found = models.list_models(here.app.store, project_id=project.id)
    if not found:
        return
    model = found[0]
    changed = models.labels_changed_since(here.app.store, model_id=model.id)
    with st.container(border=True, key="train_result"):
        top, button = st.columns([3, 1], vertical_alignment="top")
        with top:
            st.markdown(f"**{frame.plain(model.name)}** · {words.ago(model.created_at)}")
        with button, st.container(horizontal_alignment="right"):
            primary = not changed.total and not is_running
            if st.button(
                "Review",
                key="train_review",
                icon=":material/fact_check:",
                type="primary" if primary else "secondary",
            ):
                frame.go_to("pages/review.py", model=model.id)
        score, beside = st.columns([2, 3], gap="large")
        with score:
            figures.headline(model.metrics)
        with beside:
            figures.controls(model.metrics)
        st.caption(figures.how_scored(model.metrics))
        for warning in figures.warnings_of(model)[:SHOWN_PROBLEMS]:
            st.caption(f":material/info: {frame.plain(warning)}")
        run_of(here, model)
        if changed.total:
            st.caption(
                f":material/sync: {words.plural(changed.total, 'label')} changed or added since: "
                "train again to use them."
            )


def run_of(here: Here, model: ModelView) -> None:
    """Draw how the score went in the run that made a model."""
    if model.job_id is None:
        return
    scores = curve_points(jobs.job_points(here.app.store, job_id=model.job_id))
    if len(scores) > 1:
        with st.expander("How the run went", key="train_run"):
            score_curve(scores, key="train_run_curve", x_title="Folds done")


def train_jobs(here: Here, project: ProjectView) -> list[JobView]:
    """Return the runs of a project, the newest first."""
    return jobs.list_jobs(here.app.store, project_id=project.id, kinds=["train"], limit=20)


def past_runs(here: Here, project: ProjectView) -> None:
    """Draw all runs with how they ended, in words."""
    runs = [job for job in train_jobs(here, project) if not job.is_active][:12]
    if not runs:
        return
    names: dict[object, str] = {}
    try:
        names = {
            m.job_id: f"{m.name}: {words.score(m.metrics.get('balanced_accuracy'))}"
            for m in models.list_models(here.app.store, project_id=project.id)
        }
    except CnsError as error:
        frame.show_error(error)
    st.subheader("Runs", anchor=False)
    table(
        [
            Column("State"),
            Column("What came of it"),
            Column("By"),
            Column("Took", number=True),
            Column("When", number=True),
        ],
        [
            [
                state_mark(job),
                text(job.error or names.get(job.id) or words.NONE),
                text(job.requested_by or words.NONE),
                words.duration(took(job)),
                when(job.finished_at),
            ]
            for job in runs
        ],
    )


def took(job: JobView) -> float | None:
    """Return how many seconds a job ran."""
    if job.started_at is None or job.finished_at is None:
        return None
    return (job.finished_at - job.started_at).total_seconds()


main()
