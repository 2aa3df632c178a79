"""Settings: the classes of the project, how it reads images, and what runs on this computer."""

from __future__ import annotations

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import about, health, images, jobs, projects, viewing
from cnsapp.services import classes as class_edits
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import frame, words
from cnsapp.ui.export_panel import export_section
from cnsapp.ui.frame import Here
from cnsapp.ui.labelling_section import labelling_section
from cnsapp.ui.reading_panel import reading_section
from cnsapp.ui.tables import Column, class_name, facts, table, text

STATE_DOTS = {"ok": "on", "warning": "wait", "problem": "bad"}


def main() -> None:
    """Draw the page."""
    here = frame.current()
    frame.page_header(
        "Settings",
        "The classes of the project, how its images are read, and what runs on this computer.",
    )
    if here.project is not None:
        left, right = st.columns([3, 2], gap="large")
        with left:
            show_classes(here, here.project)
        with right:
            change_classes(here, here.project)
        st.divider()
        with frame.guard():
            labelling_section(here, here.project)
        st.divider()
        pixel_size(here, here.project)
        st.divider()
        with frame.guard():
            reading_section(here, here.project)
        st.divider()
        with frame.guard():
            export_section(here, here.project)
        st.divider()
    installation(here)


def show_classes(here: Here, project: ProjectView) -> None:
    """Draw the classes with their keys and how many images have them."""
    st.subheader(f"Classes of {frame.plain(project.name)}", anchor=False)
    classes = projects.list_classes(here.app.store, project_id=project.id)
    if not classes:
        st.caption("No classes yet. Add one here, or let an import take them from folder names.")
        return
    n = images.counts(here.app.store, project_id=project.id).per_class
    table(
        [
            Column("Class"),
            Column("Group of classes"),
            Column("Key", help="Labels the selected images on the Label page"),
            Column("Labelled", number=True),
        ],
        [
            [
                class_name(c),
                text(c.parent or words.NONE),
                f'<span class="cns-key">{text(c.hotkey)}</span>' if c.hotkey else words.NONE,
                words.number(n.get(c.id, 0)),
            ]
            for c in classes
        ],
    )


def change_classes(here: Here, project: ProjectView) -> None:
    """Offer to add and to rename classes."""
    st.subheader("Add a class", anchor=False)
    with st.form("add_class_form", clear_on_submit=False, border=False):
        name = st.text_input("Name", key="class_add_name")
        parent = st.text_input("Group of classes (optional)", key="class_add_parent")
        if st.form_submit_button("Add class", key="class_add"):
            saved(
                lambda: class_edits.add_class(
                    here.app.store,
                    project_id=project.id,
                    who=here.annotator or "unnamed",
                    name=name or "",
                    parent=(parent or "").strip() or None,
                )
            )
    classes = projects.list_classes(here.app.store, project_id=project.id)
    if not classes:
        return
    st.subheader("Rename a class", anchor=False)
    st.caption("Its labels and models stay with it.")
    by_id = {c.id: c for c in classes}
    chosen = st.selectbox(
        "Class", list(by_id), format_func=lambda i: by_id[i].name, key="class_rename_which"
    )
    current: ClassView = by_id[chosen or classes[0].id]
    with st.container(horizontal=True, vertical_alignment="bottom", key="class_rename_row"):
        new = st.text_input("New name", value=current.name, key=f"class_rename_{current.id}")
        if st.button("Rename", key="class_rename", disabled=(new or "") == current.name):
            saved(
                lambda: class_edits.rename_class(
                    here.app.store,
                    class_id=current.id,
                    name=new or "",
                    who=here.annotator or "unnamed",
                )
            )


def pixel_size(here: Here, project: ProjectView) -> None:
    """Offer to say how large a pixel is, for files that do not say it themselves."""
    st.subheader("Pixel size", anchor=False)
    st.caption("For scale bars on images whose files do not state it. It changes no image.")
    current = viewing.um_per_px(here.app.store, project_id=project.id)
    with st.container(horizontal=True, vertical_alignment="bottom", key="pixel_size_row"):
        value = st.number_input(
            "Micrometres a pixel",
            min_value=0.0,
            value=current,
            step=None,
            format="%.4f",
            placeholder="not known",
            key=f"um_per_px_{project.id}",
            width=220,
        )
        if st.button("Set", key="um_per_px_set", disabled=(value or None) == current):
            saved(
                lambda: viewing.set_um_per_px(
                    here.app.store, project_id=project.id, value=value or None
                )
            )


def saved(change: object) -> None:
    """Make a change and draw the page again; say in words when it is refused."""
    assert callable(change)
    try:
        change()
    except CnsError as error:
        frame.show_error(error)
    else:
        st.rerun()


def installation(here: Here) -> None:
    """Draw versions, folders, and a check on demand."""
    st.subheader("This installation", anchor=False)
    found_here = about.about(here.app)
    worker = jobs.worker_view(here.app.store, settings=here.app.settings)
    alive = worker is not None and worker.alive
    if found_here.database_warning:
        st.warning(found_here.database_warning)
    rows = [
        ("Version", found_here.app_version),
        ("Python, Streamlit", f"{found_here.python}, {found_here.streamlit}"),
        ("Database", found_here.database),
        ("Device", words.device(worker.device) if worker and alive else "worker is starting…"),
        ("Data folder", str(found_here.data_folder)),
        ("Free space there", words.size(found_here.free_bytes)),
        ("Images may be read from", ", ".join(map(str, found_here.import_roots))),
    ]
    facts([(name, text(value)) for name, value in rows])
    st.caption(
        "Import folders, device and data folder are set when the app is started: CNS_IMPORT_ROOTS, "
        "CNS_DEVICE, CNS_HOME."
    )
    if st.button(
        "Check this installation", key="settings_check", icon=":material/health_and_safety:"
    ):
        with st.spinner("Looking at database, files and disk…"):
            found = health.examine(here.app)
        table(
            [Column("What"), Column("How it is"), Column("What to do")],
            [
                [
                    f'<span class="cns-dot {STATE_DOTS[check.state]}"></span>{text(check.name)}',
                    text(check.detail),
                    text(check.remedy),
                ]
                for check in found
            ],
        )


main()
