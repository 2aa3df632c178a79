"""The import: from a folder of this computer or an upload, with a preview, then as a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.services import folders, importing, jobs
from cnsapp.services.importing import Preview
from cnsapp.services.jobs import JobView
from cnsapp.services.projects import ProjectView
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.tables import Column, table, text, when

FOLDER, UPLOAD = "Folder on this computer", "Upload files or a zip"
NO_LABELS, BY_FOLDER, BY_TABLE = "None", "Folder names", "A table (CSV)"
NO_GROUP, FROM_FOLDER, FROM_COLUMN, FROM_NAME = (
    "Unknown",
    "Folder",
    "Column of the table",
    "Part of the file name",
)
GROUP_HELP = (
    "What must not be torn apart when a model is scored: the patient, slide or animal an image "
    "comes from. Scores without groups are often too good."
)
PATTERN_HELP = (
    "A regular expression; the part in parentheses is the group. (case_\\d+) takes “case_005” out "
    "of “case_005_pt_1.png”."
)


@dataclass(frozen=True)
class Wish:
    """How labels, groups and copies are wanted, in the words of the import service."""

    labels: str | None
    group_from: str | None
    link: bool


def import_panel(here: Here, project: ProjectView) -> None:
    """Draw the choices, a preview, and the button that starts the import."""
    source = st.segmented_control(
        "Where are the images?", [FOLDER, UPLOAD], key="import_from", default=FOLDER, required=True
    )
    if source == UPLOAD:
        _from_upload(here, project)
    else:
        _from_folder(here, project)


def _from_folder(here: Here, project: ProjectView) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="import_where"):
        path = st.text_input(
            "Folder, zip or image file",
            key="import_path",
            placeholder=str(Path(here.app.settings.import_roots[0]) / "images"),
            help="As the computer sees it on which this app runs. Large sets are read from there, "
            "without a copy through the browser.",
        )
        _browse(here.app, path or "")
    wish = _choices(uploaded=False)
    look, start = _buttons(bool(path))
    by_pattern = st.session_state.get("import_group") == FROM_NAME  # shown while it is being tuned
    if not path or not (look or start or by_pattern):
        return
    with frame.guard():
        found = _lately(here.app, path, wish)
        if start:
            _start(here, project, Path(path), wish)
        show_preview(found, wish)


def _browse(app: App, path: str) -> None:
    with st.popover("Browse folders", icon=":material/folder_open:"), frame.guard():
        roots = app.settings.import_roots
        start = path or str(roots[0])
        try:
            at = folders.list_folder(app, path=Path(start))
        except InvalidInputError:
            at = folders.list_folder(app, path=Path(roots[0]))
        st.caption(frame.plain(str(at.path)))
        if at.parent is not None:
            _go("One up", at.parent, ":material/arrow_upward:")
        if len(roots) > 1:
            with st.container(horizontal=True):
                for root in roots:
                    _go(str(root), Path(root), ":material/hard_drive:")
        with st.container(height=260, border=False, gap=None):
            for name in at.subfolders:
                _go(name, at.path / name, ":material/folder:")
            if not at.subfolders:
                st.caption("No folders in here.")
        files = words.plural(at.n_files, "file")
        st.caption(f"{files} directly in this folder" + (", more folders" if at.n_hidden else ""))
        _go("Use this folder", at.path, ":material/check:")


def _go(label: str, path: Path, icon: str) -> None:
    st.button(
        words.plain(label),
        icon=icon,
        key=f"browse_{icon}_{path}",
        type="tertiary",
        on_click=_set_path,
        args=(str(path),),
    )


def _set_path(path: str) -> None:
    st.session_state["import_path"] = path


def _from_upload(here: Here, project: ProjectView) -> None:
    limit = int(st.get_option("server.maxUploadSize") or 200)
    files = st.file_uploader(
        f"Images, or one zip with folders (up to {limit} MB a file)",
        accept_multiple_files=True,
        key="import_files",
        help="For more, or for large scans, choose the folder on this computer instead.",
    )
    wish = _choices(uploaded=True)
    look, start = _buttons(bool(files))
    if not (look or start) or not files:
        return
    with frame.guard():
        path = importing.save_uploads(here.app, files=[(f.name, f) for f in files])
        if look:
            show_preview(preview(here.app, path, wish), wish)
        else:
            _start(here, project, path, wish)


def _choices(*, uploaded: bool) -> Wish:
    left, right = st.columns(2, gap="large")
    with left:
        kind = st.radio(
            "Labels",
            [NO_LABELS, BY_FOLDER, BY_TABLE],
            key="import_labels",
            horizontal=True,
            help="Folder names: liver/a.png is a liver. A table has the columns file and label.",
        )
        labels: str | None = None
        if kind == BY_TABLE:
            labels = st.text_input(
                "Table with the columns file and label",
                value="labels.csv",
                key="import_table",
                help="Its name in the folder or zip, or where it is on this computer.",
            )
        link = not uploaded and st.checkbox(
            "Leave the images where they are (no copy)",
            key="import_link",
            help="Saves disk space. If they are moved or deleted later, they cannot be shown.",
        )
    with right:
        groups = [NO_GROUP, FROM_FOLDER, FROM_NAME] + ([FROM_COLUMN] if kind == BY_TABLE else [])
        group = st.radio(
            "Group (patient, slide, animal)",
            groups,
            key="import_group",
            horizontal=True,
            help=GROUP_HELP,
        )
        group_from: str | None = None
        if group == FROM_NAME:
            group_from = st.text_input(
                "Pattern", value="([^/_]+)_[^/]*$", key="import_pattern", help=PATTERN_HELP
            )
        elif group == FROM_COLUMN:
            group_from = st.text_input("Column", value="group", key="import_column")
        elif group == FROM_FOLDER:
            group_from = "folder"
    wanted = {BY_FOLDER: "folders", BY_TABLE: (labels or "labels.csv").strip()}
    return Wish(wanted.get(kind or NO_LABELS), group_from, link)


def _buttons(ready: bool) -> tuple[bool, bool]:
    with st.container(horizontal=True, key="import_buttons"):
        start = st.button("Import", type="primary", key="import_start", disabled=not ready)
        look = st.button(
            "Preview",
            key="import_preview",
            disabled=not ready,
            help="Look at what would be found, without importing anything",
        )
    return look, start


def preview(app: App, path: Path, wish: Wish) -> Preview:
    """Return what an import would find; errors are the ones that the import would meet."""
    return importing.preview_folder(
        app,
        path=path,
        labels=wish.labels,
        group_from=wish.group_from,
        allowed_roots=app.settings.import_roots,
    )


@st.cache_data(ttl=30, show_spinner="Looking at the files…")
def _lately(_app: App, path: str, wish: Wish) -> Preview:
    return preview(_app, Path(path), wish)


def _start(here: Here, project: ProjectView, path: Path, wish: Wish) -> None:
    st.session_state["import_job"] = jobs.submit_job(
        here.app.store,
        kind="import",
        project_id=project.id,
        payload={
            "path": str(path),
            "labels": wish.labels,
            "group_from": wish.group_from,
            "link": wish.link,
            "annotator": here.annotator or "import",
            "allowed_roots": [str(root) for root in here.app.settings.import_roots],
        },
        requested_by=here.annotator,
    )
    st.rerun()


def show_preview(found: Preview, wish: Wish) -> None:
    """Draw what an import would find."""
    with st.container(border=True, key="import_found"):
        parts = [words.plural(found.n_files, "file")]
        if wish.labels == "folders":
            parts.append(words.plural(len(found.folders), "folder"))
        if wish.group_from:
            parts.append(words.plural(found.n_groups, "group"))
        st.markdown(f"**Found {', '.join(parts)}.** Nothing was imported yet.")
        if found.n_files == 0:
            st.caption("Hidden files, tables and texts are not taken for images.")
        if wish.group_from and found.n_without_group:
            st.warning(
                f"{words.plural(found.n_without_group, 'file')} would get no group. Change the "
                "pattern if they should."
            )
        folders_too, groups_too = wish.labels == "folders", bool(wish.group_from)
        places = st.columns(2, gap="large") if folders_too and groups_too else [st.container()] * 2
        if folders_too:
            with places[0]:
                table(
                    [Column("Folder (label)"), Column("Files", number=True)],
                    [
                        [text(name or "no folder"), words.number(n)]
                        for name, n in found.folders[:30]
                    ],
                )
        if groups_too:
            with places[1]:
                table(
                    [Column("File"), Column("Group")],
                    [[text(name), text(group or words.NONE)] for name, group in found.groups],
                )
        _show_skipped([{"file": s.file, "reason": s.reason} for s in found.refused], "preview")


def show_report(job: JobView) -> None:
    """Draw what came of an import: counts, and every file that was skipped, with the reason."""
    result = job.result
    skipped = list(result.get("skipped", []))
    table(
        [
            Column("Imported"),
            Column("Found", number=True),
            Column("New", number=True),
            Column("Duplicates", number=True, help="The same bytes were there already"),
            Column("Skipped", number=True),
            Column("Labelled", number=True),
        ],
        [
            [
                when(job.finished_at),
                *(
                    words.number(value)
                    for value in (
                        result.get("found", 0),
                        result.get("imported", 0),
                        result.get("duplicates", 0),
                        len(skipped),
                        result.get("labelled", 0),
                    )
                ),
            ]
        ],
    )
    for note in result.get("notes", []):
        st.caption(frame.plain(str(note)))
    if result.get("new_classes"):
        st.caption(f"New classes: {frame.plain(', '.join(map(str, result['new_classes'])))}.")
    _show_skipped(skipped, str(job.id))


def _show_skipped(skipped: Sequence[dict[str, Any]], key: str) -> None:
    if not skipped:
        return
    import pandas as pd

    rows = pd.DataFrame([{"file": s.get("file"), "reason": s.get("reason")} for s in skipped])
    st.warning(f"{words.plural(len(skipped), 'file')} skipped; the rest is not affected.")
    st.dataframe(
        rows, hide_index=True, key=f"skipped_{key}", height="content" if len(rows) < 8 else 300
    )
    st.download_button(
        "Download this list (CSV)",
        rows.to_csv(index=False).encode("utf-8-sig"),
        file_name="skipped-files.csv",
        mime="text/csv",
        key=f"skipped_csv_{key}",
        on_click="ignore",
    )
