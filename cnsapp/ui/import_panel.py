"""The import: from a folder of this computer or an upload, with a preview, then as a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.imaging.tiling import TileSettings
from cnsapp.services import importing, jobs
from cnsapp.services.importing import Preview
from cnsapp.services.projects import ProjectView
from cnsapp.ui import frame, slides_panel, words
from cnsapp.ui.folder_picker import pick_folder
from cnsapp.ui.frame import Here
from cnsapp.ui.import_report import show_skipped
from cnsapp.ui.tables import Column, table, text

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
    metadata: str | None = None


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
        pick_folder(here.app, path or "", into="import_path")
    wish = _choices(uploaded=False)
    place = st.container()  # of the slides, which a preview finds below it
    look, check, start = _buttons(bool(path))
    by_pattern = st.session_state.get("import_group") == FROM_NAME  # shown while it is being tuned
    with frame.guard():
        found = None
        if path and (look or check or start or by_pattern):
            found = _lately(here.app, path, wish)
            slides_panel.remember(path, found)
        with place:
            tiles = slides_panel.tile_choices(here, project, path or "")
        if found is not None and (start or check):
            _start(here, project, Path(path), wish, dry_run=check, tiles=tiles)
        if found is not None:
            show_preview(found, wish)


def _from_upload(here: Here, project: ProjectView) -> None:
    limit = int(st.get_option("server.maxUploadSize") or 200)
    files = st.file_uploader(
        f"Images, or one zip with folders (up to {limit} MB a file)",
        accept_multiple_files=True,
        key="import_files",
        help="For more, or for large scans, choose the folder on this computer instead.",
    )
    wish = _choices(uploaded=True)
    look, check, start = _buttons(bool(files))
    if not (look or check or start) or not files:
        return
    with frame.guard():
        path = importing.save_uploads(here.app, files=[(f.name, f) for f in files])
        if look:
            show_preview(preview(here.app, path, wish, own=[path]), wish)
        else:
            _start(here, project, path, wish, dry_run=check, own=[path])


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
        metadata = st.text_input(
            "Table of further columns (optional)",
            key="import_metadata",
            placeholder="metadata.csv",
            help="A CSV with the column file or sha256. Its other columns, such as stain, age or "
            "batch, become filters. Its name in the folder, or where it is on this computer.",
        )
        link = not uploaded and st.checkbox(
            "Leave the images where they are (no copy)",
            key="import_link",
            help="Saves disk space. If they are moved or deleted later, they cannot be shown.",
        )
    with right:
        groups = [NO_GROUP, FROM_FOLDER, FROM_NAME] + (
            [FROM_COLUMN] if kind == BY_TABLE or (metadata or "").strip() else []
        )
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
    return Wish(wanted.get(kind or NO_LABELS), group_from, link, (metadata or "").strip() or None)


def _buttons(ready: bool) -> tuple[bool, bool, bool]:
    """Draw the buttons; return whether to preview, to check, to import."""
    with st.container(horizontal=True, key="import_buttons"):
        start = st.button("Import", type="primary", key="import_start", disabled=not ready)
        check = st.button(
            "Check first",
            key="import_check",
            disabled=not ready,
            help="Read every file and list all problems, without importing anything",
        )
        look = st.button(
            "Preview",
            key="import_preview",
            disabled=not ready,
            help="Look at the names only: what would be found, in a moment",
        )
    return look, check, start


def preview(app: App, path: Path, wish: Wish, own: Sequence[Path] = ()) -> Preview:
    """Return what an import would find; errors are the ones that the import would meet.

    `own` is what this window uploaded: it may be read beside the import roots.
    """
    return importing.preview_folder(
        app,
        path=path,
        labels=wish.labels,
        group_from=wish.group_from,
        metadata=wish.metadata,
        allowed_roots=[*app.settings.import_roots, *own],
    )


@st.cache_data(ttl=30, show_spinner="Looking at the files…")
def _lately(_app: App, path: str, wish: Wish) -> Preview:
    return preview(_app, Path(path), wish)


def _start(
    here: Here,
    project: ProjectView,
    path: Path,
    wish: Wish,
    *,
    dry_run: bool,
    own: Sequence[Path] = (),
    tiles: TileSettings | None = None,
) -> None:
    st.session_state["import_job"] = jobs.submit_job(
        here.app.store,
        kind="import",
        project_id=project.id,
        payload={
            "path": str(path),
            "labels": wish.labels,
            "group_from": wish.group_from,
            "metadata": wish.metadata,
            "link": wish.link,
            "tiles": tiles.as_json() if tiles else None,
            "dry_run": dry_run,
            "annotator": here.annotator or "import",
            "allowed_roots": [str(r) for r in (*here.app.settings.import_roots, *own)],
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
        if found.slides:
            st.caption(
                f"{words.plural(len(found.slides), 'whole slide')} among them: an import cuts "
                "their tissue into tiles."
            )
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
        show_skipped([{"file": s.file, "reason": s.reason} for s in found.refused], "preview")
