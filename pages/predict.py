"""Predict: apply a model to new images; a table, a gallery and a CSV of what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import importing, jobs, models, predicting, projects, slides
from cnsapp.services.jobs import JobView
from cnsapp.services.models import ModelView
from cnsapp.services.predicting import Results
from cnsapp.services.projects import ProjectView
from cnsapp.ui import frame, pictures, words
from cnsapp.ui.components import Tile, gallery
from cnsapp.ui.frame import Here
from cnsapp.ui.pickers import MODEL, choose_model, number_in_address
from cnsapp.ui.reading_note import say_read_otherwise
from cnsapp.ui.slide_map import show_maps
from cnsapp.ui.slides_panel import stated_um
from cnsapp.ui.tables import Bar, bars, swatch, text

UPLOAD, FOLDER = "Upload files or a zip", "Folder on this computer"
SLIDE = "A slide of this project"
SHOWN = 120  # pictures of the gallery
ANY_CLASS, ANY_DECISION = "Any class", "Any decision"
SURE, UNSURE = "Decided", "Unsure"


def main() -> None:
    """Draw the page."""
    here = frame.current()
    frame.page_header(
        "Predict", "Apply a model to new images. They do not become part of the project."
    )
    project = frame.need_project(here, "Predict applies a project's model to new images.")
    found = models.list_models(here.app.store, project_id=project.id, also=number_in_address(MODEL))
    if not found:
        frame.empty_state(
            "Predict applies a trained model to new images.",
            "No model was trained in this project yet.",
            "pages/train.py",
            "Go to Train",
        )
    runs = predictions(here, project)
    running = next((job for job in runs if job.is_active), None)
    with st.container(border=True, key="predict_start_card"):
        if running is not None:
            frame.job_progress(running.id)
        else:
            new_prediction(here, project, found)
    ended = [job for job in runs if not job.is_active]
    if not ended:
        st.caption(
            "The results come here: how many images of each class, a gallery, and a table to "
            "download as CSV."
        )
        return
    job = choose_run(ended)
    if job.state != "done":
        frame.job_progress(job.id)
        return
    with frame.guard():
        show_results(here, project, predicting.read_results(here.app, job_id=job.id))


def predictions(here: Here, project: ProjectView) -> list[JobView]:
    """Return the predictions of a project, the newest first."""
    return jobs.list_jobs(here.app.store, project_id=project.id, kinds=["predict"], limit=200)


def new_prediction(here: Here, project: ProjectView, found: list[ModelView]) -> None:
    """Draw the choice of model and images, and the button that starts."""
    own = slides.list_slides(here.app.store, project_id=project.id)
    asked = number_in_address("slide")
    if asked in {slide.id for slide in own} and st.session_state.get("predict_asked") != asked:
        st.session_state.update(predict_asked=asked, predict_from=SLIDE, predict_own=asked)
    left, right = st.columns([3, 2] if own else [2, 3], gap="large")
    with left:
        model = choose_model(found, key="predict_model")
        say_read_otherwise(here, model)
        source = st.segmented_control(
            "Where are the images?",
            [UPLOAD, FOLDER, *([SLIDE] if own else [])],
            key="predict_from",
            default=UPLOAD,
            required=True,
            persist_state="session",
        )
    files: list[Any] = []
    path, slide_id, slide_um = "", None, None
    with right:
        if source == SLIDE:
            names = {slide.id: f"{slide.name} · {slide.n_tiles:,} tiles" for slide in own}
            slide_id = st.selectbox(
                "Slide",
                list(names),
                format_func=lambda number: names[number],
                key="predict_own",
                help="Its tiles are predicted again and drawn over the slide as a heat map. "
                "Labelled ones are judged by the fold that left them out.",
            )
        elif source == UPLOAD:
            files = list(
                st.file_uploader(
                    "Images, or one zip", accept_multiple_files=True, key="predict_files"
                )
                or []
            )
        else:
            path = (
                st.text_input(
                    "Folder, zip, image or whole slide",
                    key="predict_path",
                    persist_state="session",
                    placeholder=str(Path(here.app.settings.import_roots[0]) / "new-images"),
                    help="As the computer sees it on which this app runs.",
                )
                or ""
            )
        if source != SLIDE:
            with st.popover("Whole slides", icon=":material/grid_on:"):
                st.caption("They are cut as the project's own slides are.")
                slide_um = stated_um("predict_slide_um")
    if not st.button(
        "Predict",
        type="primary",
        key="predict_start",
        disabled=not (files or path.strip() or slide_id),
        icon=":material/batch_prediction:",
    ):
        return
    with frame.guard():
        if slide_id:
            st.session_state["predict_run"] = predicting.start_slide_prediction(
                here.app,
                project_id=project.id,
                slide_id=slide_id,
                model_id=model.id,
                requested_by=here.annotator,
            )
            st.rerun()
        if files:
            where = importing.save_uploads(here.app, files=[(f.name, f) for f in files])
        else:
            where = Path(path.strip())
        job_id = predicting.start_prediction(
            here.app,
            project_id=project.id,
            path=where,
            model_id=model.id,
            requested_by=here.annotator,
            allowed_roots=[*here.app.settings.import_roots, *([where] if files else [])],
            tiles=None
            if slide_um is None
            else replace(
                slides.latest_settings(here.app.store, project_id=project.id),
                slide_um_per_px=slide_um,
            ),
        )
        st.session_state["predict_run"] = job_id
        st.rerun()


def choose_run(ended: list[JobView]) -> JobView:
    """Draw the picker of predictions and return the chosen one."""
    by_id = {job.id: job for job in ended}
    if st.session_state.get("predict_run") not in by_id:
        st.session_state["predict_run"] = ended[0].id
    st.selectbox(
        "Results of",
        list(by_id),
        format_func=lambda job_id: title_of(by_id[job_id]),
        key="predict_run",
        width=520,
    )
    return by_id[st.session_state["predict_run"]]


def title_of(job: JobView) -> str:
    """Return what a prediction was made of, and when."""
    name = Path(str(job.payload.get("path", ""))).name
    if name.startswith("upload-"):
        name = "uploaded files"
    state = "" if job.state == "done" else f" · {job.state}"
    return f"{name or 'images'} · {words.ago(job.finished_at)}{state}"


def show_results(here: Here, project: ProjectView, results: Results) -> None:
    """Draw how many of each class, the table and the gallery, and what could not be read."""
    rows = results.rows
    colors = {c.name: c.color for c in projects.list_classes(here.app.store, project_id=project.id)}
    left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
    with left:
        st.subheader(words.plural(len(rows), what_was_read(results)), anchor=False)
        st.caption(f"Predicted by {frame.plain(model_name(here, results.model_id))}.")
        st.download_button(
            "Download table (CSV)",
            results.csv_path.read_bytes,
            file_name=results.csv_path.name,
            mime="text/csv",
            key="predict_csv",
            icon=":material/download:",
            on_click="ignore",
        )
    with right:
        by_class(results, colors)
    failed(results)
    show_maps(here, results, colors, model_name(here, results.model_id))
    if rows.empty:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="predict_filters"):
        view = st.segmented_control(
            "View",
            ["Gallery", "Table"],
            key="predict_view",
            default="Gallery",
            required=True,
            label_visibility="collapsed",
        )
        chosen = choose_rows(rows)
    if view == "Table":
        draw_table(chosen)
    else:
        draw_gallery(results, chosen, colors)


def what_was_read(results: Results) -> str:
    """Return what a row of the table is about."""
    if not results.slides:
        return "image"
    return "tile" if sum(slide.n for slide in results.slides) >= len(results.rows) else "picture"


def model_name(here: Here, model_id: int) -> str:
    """Return the name of the model that predicted."""
    try:
        return models.get_model(here.app.store, model_id=model_id).name
    except CnsError:
        return f"model {model_id}"


def by_class(results: Results, colors: dict[str, str]) -> None:
    """Draw how many images were predicted as each class."""
    total = max(1, len(results.rows))
    bars(
        [
            Bar(
                swatch(colors.get(str(row["class"]), "#888")) + text(row["class"]),
                row["n"] / total,
                words.number(row["n"]),
                colors.get(str(row["class"]), "#1E8CA5"),
            )
            for row in predicting.summary(results)[:15]
        ]
    )


def choose_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Draw the filters and return the rows they let through, the most confident first."""
    name = st.selectbox(
        "Class",
        [ANY_CLASS, *sorted(rows["predicted"].unique())],
        key="predict_class",
        label_visibility="collapsed",
        width=190,
    )
    decision = st.selectbox(
        "Decision",
        [ANY_DECISION, SURE, UNSURE],
        key="predict_decision",
        label_visibility="collapsed",
        width=190,
        help="Unsure: the confidence is below the model's threshold.",
    )
    unsure_first = st.checkbox("Least confident first", key="predict_unsure")
    if name != ANY_CLASS:
        rows = rows[rows["predicted"] == name]
    if decision != ANY_DECISION:
        sure = rows["decision"] == rows["predicted"]
        rows = rows[sure if decision == SURE else ~sure]
    return rows.sort_values("confidence", ascending=unsure_first, kind="stable")


def draw_table(rows: pd.DataFrame) -> None:
    """Draw the rows as in the CSV."""
    shares = {
        name: st.column_config.NumberColumn(format="%.3f")
        for name in rows.columns
        if name.startswith("p_")
    }
    st.dataframe(
        rows,
        hide_index=True,
        key="predict_table",
        column_order=[c for c in rows.columns if c not in ("sha256", "model_id")],
        column_config={
            "confidence": st.column_config.ProgressColumn(
                format="%.2f", min_value=0.0, max_value=1.0
            ),
            **shares,
        },
        alt="Predictions, one image a row",
    )


def draw_gallery(results: Results, rows: pd.DataFrame, colors: dict[str, str]) -> None:
    """Draw the first pictures with their class and confidence."""
    shown = rows.head(SHOWN)
    tiles = []
    for at, row in zip(shown.index, shown.itertuples(index=False), strict=True):
        said = str(row.predicted)
        label = said if str(row.decision) == said else f"{said} ({row.decision})"
        tiles.append(
            Tile(
                int(at),
                pictures.url(results.job_id, int(at)),
                predicting.name_of_row(row),
                label,
                colors.get(said, ""),
                f"{float(row.confidence):.2f}",
            )
        )
    gallery(tiles, key="predict_gallery")
    if len(rows) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(rows):,} images; the table has them all.")
    elif not tiles:
        st.caption("No image matches these filters.")


def failed(results: Results) -> None:
    """List the files that could not be read, with the reasons."""
    if not results.failed:
        return
    st.warning(
        f"{words.plural(results.n_failed, 'file')} could not be read; the others are not affected."
    )
    st.dataframe(
        pd.DataFrame(results.failed, columns=["file", "reason"]),
        hide_index=True,
        key="predict_failed",
        height="content" if len(results.failed) < 8 else 300,
    )


main()
