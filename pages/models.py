"""Models: all of a project, their figures, names and files."""

from __future__ import annotations

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import model_standing, models, projects
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ProjectView
from cnsapp.ui import figures, frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.pickers import choose_model
from cnsapp.ui.reading_note import say_read_otherwise
from cnsapp.ui.tables import Column, table, text, when


def main() -> None:
    """Draw the page."""
    here = frame.current()
    frame.page_header("Models", "Every model of the project, with the figures it was born with.")
    project = frame.need_project(here, "Models belong to a project.")
    found = models.list_models(here.app.store, project_id=project.id)
    if not found:
        frame.empty_state(
            "No model was trained in this project yet.",
            "Trained models are listed here with their figures, classes and files.",
            "pages/train.py",
            "Go to Train",
        )
    overview(found)
    st.space("small")
    model = choose_model(found, key="models_model", label="Details of")
    details(here, project, model)


def overview(found: list[ModelView]) -> None:
    """Draw all models with their figures, the newest first."""
    table(
        [
            Column("Name"),
            Column("Balanced accuracy", number=True, help="Mean of the recalls of all classes"),
            Column("95 % interval", number=True),
            Column("n", number=True),
            Column("Groups", number=True),
            Column("Classes", number=True),
            Column("Backbone"),
            Column("Made", number=True),
        ],
        [
            [
                text(m.name),
                words.score(m.metrics.get("balanced_accuracy")),
                words.interval(m.metrics.get("balanced_accuracy_interval")) or words.NONE,
                words.number(m.metrics.get("n")),
                words.number(m.metrics.get("n_groups")),
                words.number(len(m.class_ids)),
                text(m.backbone),
                when(m.created_at),
            ]
            for m in found
        ],
    )


def details(here: Here, project: ProjectView, model: ModelView) -> None:
    """Draw one model: its file, name, settings, classes and warnings."""
    with st.container(border=True, key="model_details"):
        left, right = st.columns([2, 3], gap="large")
        with left:
            figures.headline(model.metrics)
            st.caption(figures.how_scored(model.metrics))
            rename(here, model)
            file_of(here, model)
        with right:
            figures.controls(model.metrics)
            say_read_otherwise(here, model)
            for warning in figures.warnings_of(model):
                st.caption(f":material/info: {frame.plain(warning)}")
            colors = {
                c.id: c.color for c in projects.list_classes(here.app.store, project_id=project.id)
            }
            today = dict(zip(model.class_ids, model.class_names, strict=True))
            rows = [
                {**row, "name": today.get(int(row.get("class_id", 0)), row.get("name", ""))}
                for row in model.metrics.get("per_class") or []
            ]
            if rows:
                figures.per_class(rows, colors)
            else:
                st.caption("Classes: " + frame.plain(", ".join(model.class_names)))
        with st.expander("Settings it was trained with", key="model_settings"):
            table(
                [Column("Setting"), Column("Value")],
                [
                    [text(name.replace("_", " ")), text(value)]
                    for name, value in sorted(facts(model).items())
                ],
            )


def facts(model: ModelView) -> dict[str, object]:
    """Return what is worth knowing about how a model was made."""
    return {
        "preset": model.preset,
        "backbone": model.backbone,
        "images": model.n_images,
        "run": model.job_id if model.job_id is not None else words.NONE,
        "sha256": model.sha256,
        **{
            name: value
            for name, value in model.settings.items()
            if isinstance(value, str | int | float | bool)
        },
    }


def rename(here: Here, model: ModelView) -> None:
    """Offer another name."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="rename_row"):
        name = st.text_input("Name", value=model.name, key=f"model_name_{model.id}")
        if st.button("Rename", key="model_rename", disabled=(name or "") == model.name):
            with frame.guard():
                model_standing.rename_model(here.app.store, model_id=model.id, name=name or "")
                st.rerun()


def file_of(here: Here, model: ModelView) -> None:
    """Compare the file with its checksum, and offer it for download."""
    with st.container(horizontal=True, vertical_alignment="center", key="model_file"):
        try:
            path = models.check_model_file(here.app, model_id=model.id)
        except CnsError as error:
            frame.show_error(error)
            return
        st.download_button(
            f"Download model file ({words.size(path.stat().st_size)})",
            path.read_bytes,
            file_name=f"{model.name}.safetensors",
            mime="application/octet-stream",
            key="model_download",
            icon=":material/download:",
            on_click="ignore",
        )
        st.caption(":material/verified: The file is as it was made.", width="content")


main()
