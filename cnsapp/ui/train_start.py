"""The start of a run: what stands in the way, what weakens it, how long it takes, one button."""

from __future__ import annotations

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import jobs, preflight, training
from cnsapp.services.preflight import Preflight
from cnsapp.services.projects import ProjectView
from cnsapp.services.training import Readiness
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.train_choice import Choice

SHOWN = 3  # warnings in sight; the rest is folded away
TITLES = {"quick": "Train a quick model", "full": "Train a full model", "best": "Train the best"}


def start(
    here: Here, project: ProjectView, ready: Readiness, choice: Choice | None, *, first: bool
) -> None:
    """Draw the button; without `choice` the labels do not suffice, and the way to them is shown.

    `first` says that this is the next thing to do on the page.
    """
    if choice is None:
        for problem in ready.problems:
            st.warning(frame.plain(problem))
        if st.button("Label images", type="primary", key="train_label"):
            frame.go_to("pages/label.py" if project.n_images else "pages/images.py")
        return
    try:
        found = preflight.preflight(
            here.app, project_id=project.id, preset=choice.preset, backbone=choice.backbone,
            options=choice.options,
        )  # fmt: skip
    except CnsError as error:
        frame.show_error(error)
        return
    st.markdown(_labels_line(ready))
    for problem in found.problems:
        st.warning(frame.plain(problem))
    if found.ok:
        _button(here, project, choice, found, first=first and found.same_as is None)
    _warnings(found.warnings)


def _labels_line(ready: Readiness) -> str:
    groups = f" from **{words.plural(ready.n_groups, 'group')}**" if ready.n_groups else ""
    apart = ", whole groups at a time" if ready.n_groups > 1 else ""
    return (
        f"**{words.plural(ready.n_labelled, 'labelled image')}**{groups}. Scored on images that "
        f"were left out{apart}."
    )


def _button(
    here: Here, project: ProjectView, choice: Choice, found: Preflight, *, first: bool
) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="train_start_row"):
        pressed = st.button(
            "Train it again" if found.same_as else TITLES[choice.preset],
            type="primary" if first else "secondary",
            key="train_start",
            icon=":material/model_training:",
        )
        st.caption(_where_and_how_long(here, found), width="stretch")
    if pressed:
        with frame.guard():
            training.start_training(
                here.app, project_id=project.id, preset=choice.preset, backbone=choice.backbone,
                options=choice.options, requested_by=here.annotator,
            )  # fmt: skip
            st.rerun()


def _where_and_how_long(here: Here, found: Preflight) -> str:
    worker = jobs.worker_view(here.app.store, settings=here.app.settings)
    if worker is None or not worker.alive:
        device = "Worker is starting…"
    else:
        device = f"{words.device(worker.device)}."
    return f"{device} {found.estimate.sentence if found.estimate else ''}"


def _warnings(lines: list[str]) -> None:
    """Draw what weakens the result: the first ones in sight, the rest folded away."""
    for line in lines[:SHOWN]:
        st.caption(f":material/info: {frame.plain(line)}")
    rest = lines[SHOWN:]
    if rest:
        with st.expander(f"{len(rest)} more to know", key="train_more_warnings"):
            for line in rest:
                st.caption(f":material/info: {frame.plain(line)}")
