"""The view "Files" of the Images page: are they there, where did they move, what is watched."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from cnsapp.services import file_check, jobs, relinking, watching
from cnsapp.services.file_check import FileProblem
from cnsapp.services.jobs import JobView
from cnsapp.services.projects import ProjectView
from cnsapp.services.watching import WatchedView
from cnsapp.ui import frame, words
from cnsapp.ui.folder_picker import pick_folder
from cnsapp.ui.frame import Here
from cnsapp.ui.tables import Column, table, text, when

SHOWN = 200
NO_LABELS, BY_FOLDER = "None", "Folder names"
NO_GROUP, FROM_FOLDER, FROM_NAME = "Unknown", "Folder", "Part of the file name"


def files_panel(here: Here, project: ProjectView) -> None:
    """Draw the state of the files, the search for moved ones, and the watched folders."""
    with frame.guard():
        _state(here, project)
    with frame.guard():
        _watched(here, project)


def _state(here: Here, project: ProjectView) -> None:
    store = here.app.store
    found = jobs.list_jobs(store, project_id=project.id, kinds=["check_files", "relink"], limit=10)
    running = next((job for job in found if job.is_active), None)
    problems = file_check.list_problems(store, project_id=project.id, limit=SHOWN)
    counts = file_check.count_by_status(store, project_id=project.id)
    n_lost = counts.get("missing", 0) + counts.get("changed", 0)
    st.subheader("Files of the images", anchor=False)
    with st.container(horizontal=True, vertical_alignment="center", key="files_check_row"):
        start = st.button(
            "Check files", type="primary", key="files_check", disabled=running is not None
        )
        full = st.checkbox(
            "Read every file wholly",
            key="files_full",
            help="Without it, a file of the same size and time counts as unchanged. With it every "
            "byte is read, which finds damage on the disk and takes as long as a copy.",
        )
    if start:
        file_check.start_check(
            here.app, project_id=project.id, full=full, requested_by=here.annotator
        )
        st.rerun()
    if running is not None:
        frame.job_progress(running.id)
        return
    _last(here, found)
    if not n_lost:
        return
    st.warning(
        f"**{_how_many(counts)}.** They are left out of training and of the lists; their labels "
        "are kept. When a file is back, the next check takes it in again."
    )
    _problems(problems, n_lost)
    if any(problem.linked for problem in problems):
        _moved(here, project)


def _how_many(counts: dict[str, int]) -> str:
    parts = [
        f"{words.plural(counts[status], 'file')} {status}"
        for status in ("missing", "changed")
        if counts.get(status)
    ]
    return ", ".join(parts)


def _last(here: Here, found: list[JobView]) -> None:
    """Say what the newest check or search came to."""
    if not found:
        st.caption(
            "Not checked yet. A check looks whether the copies in the data folder and the linked "
            "originals are all there and unchanged; it changes no file."
        )
        return
    job = jobs.get_job(here.app.store, job_id=found[0].id)
    if job.state != "done":
        frame.job_progress(job.id)
        return
    got = job.result
    if job.kind == "relink":
        line = (
            f"Looked for moved files {words.ago(job.finished_at)}: "
            f"{got.get('found', 0):,} of {words.plural(got.get('lost', 0), 'lost image')} found "
            f"among {words.plural(got.get('looked_at', 0), 'file')}"
        )
        if got.get("still_lost"):
            line += f"; {got['still_lost']:,} still lost. Try the folder above it"
    else:
        line = (
            f"Checked {words.ago(job.finished_at)}: {got.get('ok', 0):,} of "
            f"{words.plural(got.get('checked', 0), 'file')} are there and unchanged"
        )
        if got.get("found"):
            line += f"; {got['found']:,} came back"
    st.caption(f"{frame.plain(line)}.")


def _problems(problems: list[FileProblem], n: int) -> None:
    table(
        [Column("Image"), Column("What"), Column("Where it should be"), Column("What to do")],
        [
            [
                text(p.name) + (" <span class='cns-muted'>(labelled)</span>" if p.labelled else ""),
                text(p.reason),
                f"<span class='cns-muted'>{text(p.path)}</span>",
                text(p.remedy),
            ]
            for p in problems[:20]
        ],
    )
    if n > 20:
        import pandas as pd

        with st.expander(f"The first {min(n, SHOWN):,} of {n:,}"):
            rows = [
                {"image": p.name, "status": p.status, "file": p.path, "what to do": p.remedy}
                for p in problems
            ]
            st.dataframe(pd.DataFrame(rows), hide_index=True, key="files_problems", height=300)


def _moved(here: Here, project: ProjectView) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="files_moved"):
        folder = st.text_input(
            "Where do the linked files lie now?",
            key="files_moved_to",
            placeholder=str(Path(here.app.settings.import_roots[0]) / "images"),
            help="This folder and all below it are searched. Files are told by their content, so "
            "that renamed ones are found too.",
        )
        pick_folder(here.app, folder or "", into="files_moved_to")
        if st.button("Find moved files", key="files_find", disabled=not (folder or "").strip()):
            relinking.start_relink(
                here.app,
                project_id=project.id,
                folder=Path(folder or ""),
                requested_by=here.annotator,
            )
            st.rerun()


def _watched(here: Here, project: ProjectView) -> None:
    st.subheader("Watched folders", anchor=False)
    folders = watching.list_watched(here.app.store, project_id=project.id)
    if not folders:
        st.caption(
            "A folder that a microscope or scanner writes into can be watched: new images are "
            "imported as they appear, half-written ones wait until they are complete."
        )
    for view in folders:
        _one(here, view)
    with st.expander("Watch a folder", icon=":material/add:", expanded=False):
        _add(here, project)


@st.fragment(run_every=5.0)
def _one(here: Here, view: WatchedView) -> None:
    """Draw one watched folder; it looks again by itself."""
    found = watching.list_watched(here.app.store, project_id=view.project_id)
    view = next((other for other in found if other.id == view.id), view)
    with st.container(border=True, key=f"watched_{view.id}"):
        with st.container(
            horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
        ):
            st.markdown(f"**{frame.plain(view.path)}**")
            if st.button("Stop watching", key=f"unwatch_{view.id}", type="tertiary"):
                watching.stop_watching(here.app.store, project_id=view.project_id, folder=view.path)
                st.rerun(scope="app")
        looked = when(view.looked_at) if view.looked_at else "not yet"
        st.html(
            f"<div class='cns-muted'>{text(watching.in_words(view).capitalize())} · last look "
            f"{looked} · {text(words.plural(view.imported, 'image'))} imported · "
            f"{text(words.plural(view.n_waiting, 'file'))} waiting</div>"
        )
        if view.problem:
            st.error(f"{frame.plain(view.problem)} It is looked for again at every look.")
        elif view.waiting:
            table(
                [Column("Waiting"), Column("Why")],
                [
                    [
                        text(w.file),
                        text(w.reason)
                        + (" Given up until the file changes." if w.given_up else ""),
                    ]
                    for w in view.waiting[:10]
                ],
            )


def _add(here: Here, project: ProjectView) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        folder = st.text_input(
            "Folder",
            key="watch_path",
            placeholder=str(Path(here.app.settings.import_roots[0]) / "microscope"),
        )
        pick_folder(here.app, folder or "", into="watch_path")
    left, right = st.columns(2, gap="large")
    labels = left.radio("Labels", [NO_LABELS, BY_FOLDER], key="watch_labels", horizontal=True)
    group = right.radio(
        "Group (patient, slide, animal)",
        [NO_GROUP, FROM_FOLDER, FROM_NAME],
        key="watch_group",
        horizontal=True,
    )
    pattern = (
        right.text_input("Pattern", value="([^/_]+)_[^/]*$", key="watch_pattern")
        if group == FROM_NAME
        else None
    )
    link = left.checkbox("Leave the images where they are (no copy)", key="watch_link")
    if st.button("Watch this folder", key="watch_start", disabled=not (folder or "").strip()):
        watching.watch_folder(
            here.app,
            project_id=project.id,
            folder=Path(folder or ""),
            labels="folders" if labels == BY_FOLDER else None,
            group_from="folder" if group == FROM_FOLDER else pattern,
            link=link,
            annotator=here.annotator,
            allowed_roots=here.app.settings.import_roots,
        )
        st.rerun()
