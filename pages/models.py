"""Models: all of a project, one in detail, several compared, and the search for the best."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import models
from cnsapp.services.models import ModelView
from cnsapp.ui import controls_view, evaluation_view, figures, frame, models_compare, search_panel
from cnsapp.ui.frame import Here
from cnsapp.ui.models_actions import actions
from cnsapp.ui.models_overview import overview
from cnsapp.ui.models_record import file_of, how_made
from cnsapp.ui.pickers import MODEL, choose_model, number_in_address
from cnsapp.ui.reading_note import say_read_otherwise

VIEWS = ("Models", "Compare", "Find the best")
TABS = ("Figures", "Controls", "How it was made", "File")


def main() -> None:
    """Draw the page."""
    here = frame.current()
    frame.page_header("Models", "Every model of the project, how it was made and how good it is.")
    project = frame.need_project(here, "Models belong to a project.")
    found = models.list_models(here.app.store, project_id=project.id, archived=True)
    view = st.segmented_control(
        "View", VIEWS, key="models_view", default="Models", required=True, bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    if view == "Find the best":
        search_panel.draw(here, project)
    elif not found:
        frame.empty_state(
            "No model was trained in this project yet.",
            "Trained models are listed here with their figures, classes and files.",
            "pages/train.py",
            "Go to Train",
        )
    elif view == "Compare":
        models_compare.draw(here, project)
    else:
        all_models(here, found)


def all_models(here: Here, found: list[ModelView]) -> None:
    """Draw the table of the models and one of them in detail."""
    overview(found)
    st.space("small")
    asked = number_in_address(MODEL)
    shown_too = st.session_state.get("models_archived", False)
    offered = [m for m in found if shown_too or not m.archived or m.id == asked]
    model = choose_model(offered or found, key="models_model", label="Details of")
    with st.container(border=True, key="model_details"):
        actions(here, model)
        if model.note:
            st.caption(f":material/sticky_note_2: {frame.plain(model.note)}")
        head(here, model)
        tab = st.segmented_control(
            "Show", TABS, key="model_tab", default="Figures", required=True,
            label_visibility="collapsed",
        )  # fmt: skip
        if tab == "Controls":
            controls_view.draw(here, model)
        elif tab == "How it was made":
            how_made(here, model)
        elif tab == "File":
            file_of(here, model)
        else:
            evaluation_view.draw(here, model)


def head(here: Here, model: ModelView) -> None:
    """Draw what a model is worth in short, and what weakens that."""
    left, right = st.columns([2, 3], gap="large")
    with left:
        figures.headline(model.metrics)
        st.caption(figures.how_scored(model.metrics))
    with right:
        figures.controls(model.metrics)
    with frame.guard():
        models.find_model_file(here.app, model=model)
    say_read_otherwise(here, model)
    for warning in figures.warnings_of(model):
        st.caption(f":material/info: {frame.plain(warning)}")


main()
