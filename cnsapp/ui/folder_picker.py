"""Walk through the folders of the computer and put the chosen one into a field."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.services import folders
from cnsapp.ui import frame, words


def pick_folder(app: App, path: str, *, into: str) -> None:
    """Draw the button and what it opens.

    Parameters
    ----------
    path
        Where to begin; the first import root when empty or not there.
    into
        Key of the text field that takes the choice.
    """
    with st.popover("Browse folders", icon=":material/folder_open:"), frame.guard():
        roots = app.settings.import_roots
        start = path or str(roots[0])
        try:
            at = folders.list_folder(app, path=Path(start))
        except InvalidInputError:
            at = folders.list_folder(app, path=Path(roots[0]))
        st.caption(frame.plain(str(at.path)))
        if at.parent is not None:
            _go("One up", at.parent, ":material/arrow_upward:", into)
        if len(roots) > 1:
            with st.container(horizontal=True):
                for root in roots:
                    _go(str(root), Path(root), ":material/hard_drive:", into)
        with st.container(height=260, border=False, gap=None):
            for name in at.subfolders:
                _go(name, at.path / name, ":material/folder:", into)
            if not at.subfolders:
                st.caption("No folders in here.")
        files = words.plural(at.n_files, "file")
        st.caption(f"{files} directly in this folder" + (", more folders" if at.n_hidden else ""))
        _go("Use this folder", at.path, ":material/check:", into)


def _go(label: str, path: Path, icon: str, into: str) -> None:
    st.button(
        words.plain(label),
        icon=icon,
        key=f"browse_{into}_{icon}_{path}",
        type="tertiary",
        on_click=_set_path,
        args=(into, str(path)),
    )


def _set_path(into: str, path: str) -> None:
    st.session_state[into] = path
