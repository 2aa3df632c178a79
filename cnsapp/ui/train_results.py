"""What came of the runs: the newest model with its figures, and every run with how it ended."""

from __future__ import annotations

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import jobs, models
from cnsapp.services.jobs import JobView
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ProjectView
from cnsapp.ui import figures, frame, train_live, words
from cnsapp.ui.frame import Here
from cnsapp.ui.job_view import show_outcome, state_mark
from cnsapp.ui.tables import Column, table, text, when

SHOWN_PROBLEMS = 6
SHOWN_RUNS = 12


def newest_result(here: Here, project: ProjectView, *, is_running: bool) -> None:
    """Draw what came of the newest run: a model with its figures, or why there is none."""
    runs = [job for job in _runs(here, project) if not job.is_active]
    if runs and runs[0].state in ("failed", "cancelled"):
        show_outcome(runs[0])
    found = models.list_models(here.app.store, project_id=project.id)
    if not found:
        return
    model = found[0]
    changed = models.labels_changed_since(here.app.store, model_id=model.id)
    with st.container(border=True, key="train_result"):
        head_line(model, primary=not changed.total and not is_running)
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


def head_line(model: ModelView, *, primary: bool) -> None:
    """Draw the name of the newest model and where to go with it."""
    with st.container(horizontal=True, vertical_alignment="center", key="train_result_head"):
        st.markdown(
            f"**{frame.plain(model.name)}** · {words.ago(model.created_at)}", width="stretch"
        )
        if st.button("All figures", key="train_figures", icon=":material/leaderboard:",
                     type="tertiary"):  # fmt: skip
            frame.go_to("pages/models.py", model=model.id)
        if st.button("Review", key="train_review", icon=":material/fact_check:",
                     type="primary" if primary else "secondary"):  # fmt: skip
            frame.go_to("pages/review.py", model=model.id)


def run_of(here: Here, model: ModelView) -> None:
    """Draw how the run went that made a model."""
    if model.job_id is None:
        return
    with st.expander("How the run went", key="train_run", on_change="rerun") as box:
        if box.open:
            points = jobs.job_points(here.app.store, job_id=model.job_id)
            train_live.draw_points(points, key="train_run_curve")
            train_live.draw_log(points)


def past_runs(here: Here, project: ProjectView) -> None:
    """Draw all runs with how they ended, in words."""
    runs = [job for job in _runs(here, project) if not job.is_active][:SHOWN_RUNS]
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
            Column("Run"),
            Column("What came of it"),
            Column("By"),
            Column("Took", number=True),
            Column("When", number=True),
        ],
        [
            [
                state_mark(job),
                text(train_live.title_of(job)),
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


def _runs(here: Here, project: ProjectView) -> list[JobView]:
    """Return the runs of a project, the newest first."""
    return jobs.list_jobs(
        here.app.store, project_id=project.id, kinds=list(train_live.RUNS), limit=20
    )
