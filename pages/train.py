"""Train: are there labels enough, what is to be made, one button, and how the runs go."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import models, training
from cnsapp.services.projects import ProjectView
from cnsapp.services.training import Readiness
from cnsapp.ui import figures, frame, split_panel, train_choice, train_live
from cnsapp.ui.frame import Here
from cnsapp.ui.train_results import newest_result, past_runs
from cnsapp.ui.train_start import start

HELP = "A model learns from the labels, in the background: close the tab, and it goes on."


def main() -> None:
    """Draw the page."""
    here = frame.current()
    frame.page_header("Train", HELP)
    project = frame.need_project(here, "A model is trained on the labels of a project.")
    train_view(here, project)


def train_view(here: Here, project: ProjectView) -> None:
    """Draw the start of a run, the runs that go, and what came of the newest one."""
    ready = training.readiness(here.app.store, project_id=project.id)
    runs = train_live.active_runs(here, project)
    left, right = st.columns([3, 2], gap="large")
    with left:
        choice = train_choice.choose(here, project) if ready.ok else None
        start(here, project, ready, choice, first=_has_news(here, project) and not runs)
    with right:
        labels_and_split(ready)
    train_live.watch(here, runs)
    if choice is not None:
        train_choice.advanced(here, project, choice)
    split_panel.panel(here, project)
    newest_result(here, project, is_running=bool(runs))
    past_runs(here, project)


def _has_news(here: Here, project: ProjectView) -> bool:
    """Return whether there are labels that the newest model has not learnt."""
    newest = models.list_models(here.app.store, project_id=project.id)[:1]
    if not newest:
        return True
    return models.labels_changed_since(here.app.store, model_id=newest[0].id).total > 0


def labels_and_split(ready: Readiness) -> None:
    """Draw the labels of each class."""
    st.subheader("Labels", anchor=False)
    figures.labels_of_classes(ready.per_class)


main()
