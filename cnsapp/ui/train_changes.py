"""The changes to the images, seen on the user's own before a run is started."""

from __future__ import annotations

from typing import Any

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import jobs
from cnsapp.services.augment_preview import DRAWS, Sheet, request_sheet
from cnsapp.services.projects import ProjectView
from cnsapp.ui import words
from cnsapp.ui.frame import Here, show_error

LOOK_SECONDS = 0.4
SEED, LAST = "train_changes_seed", "train_changes_last"


def changes_preview(here: Here, project: ProjectView, options: dict[str, Any]) -> None:
    """Draw images of the project beside how training would see them."""
    with st.container(horizontal=True, vertical_alignment="center", key="train_changes_head"):
        st.caption(
            f"Left: images of this project. Right: {DRAWS} times as training may see each.",
            width="content",
        )
        if st.button("Draw again", key="train_changes_again", icon=":material/casino:",
                     type="tertiary"):  # fmt: skip
            st.session_state[SEED] = int(st.session_state.get(SEED, 0)) + 1
    try:
        sheet = _sheet(here, project, options)
    except CnsError as error:
        show_error(error)
        return
    if sheet.error:
        st.warning(words.plain(sheet.error))
        return
    if sheet.path is not None:
        st.session_state[LAST] = (project.id, str(sheet.path))
        st.image(str(sheet.path), width="stretch")
        return
    of, path = st.session_state.get(LAST, (None, ""))
    if of == project.id:  # the last one stays until the new one is there: nothing jumps
        st.image(path, width="stretch")
    if sheet.job_id is not None:
        st.fragment(_wait, run_every=LOOK_SECONDS, key="train_changes_wait")(here, sheet.job_id)


def _sheet(here: Here, project: ProjectView, options: dict[str, Any]) -> Sheet:
    return request_sheet(
        here.app, project_id=project.id, options=options,
        seed=int(st.session_state.get(SEED, 0)), requested_by=here.annotator,
    )  # fmt: skip


def _wait(here: Here, job_id: int) -> None:
    try:
        active = jobs.get_job(here.app.store, job_id=job_id).is_active
        worker = jobs.worker_view(here.app.store, settings=here.app.settings)
    except CnsError as error:
        st.caption(words.plain(error.what))
        return
    if not active:
        st.rerun()
    alive = worker is not None and worker.alive
    st.caption(
        ":material/hourglass_top: " + ("Drawing…" if alive else "Waits for the worker to start…")
    )
