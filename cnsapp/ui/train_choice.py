"""What is to be trained: preset, network and dials; the page hands them to the service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from cnsapp.domain.backbones import DEFAULT_BACKBONE, FACTS
from cnsapp.domain.recipe import PRESETS
from cnsapp.errors import CnsError
from cnsapp.services import metadata
from cnsapp.services.projects import ProjectView
from cnsapp.ui import train_dials, words
from cnsapp.ui.frame import Here, go_to
from cnsapp.weights_files import own_ids, weights_state

PRESET, BACKBONE = "train_preset", "train_backbone"
TITLES = {"quick": "Quick", "full": "Full", "best": "Best"}


@dataclass(frozen=True)
class Choice:
    """A run as it stands on the screen; `options` are the dials set otherwise than the preset."""

    preset: str
    backbone: str = DEFAULT_BACKBONE
    options: dict[str, Any] = field(default_factory=dict)


def choose(here: Here, project: ProjectView) -> Choice:
    """Draw the choice of preset and network."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium",
                      key="train_choice"):  # fmt: skip
        preset = st.segmented_control(
            "Model", list(TITLES), format_func=TITLES.__getitem__, key=PRESET, default="quick",
            required=True,
        )  # fmt: skip
        backbone = _choose_backbone(here, str(preset))
    with st.container(horizontal=True, vertical_alignment="center", key="train_purpose"):
        st.caption(PRESETS[str(preset)], width="stretch")
        if st.button(
            "Find the best…",
            key="train_search",
            type="tertiary",
            icon=":material/search_insights:",
            help="Try several networks and presets within a time that you give.",
        ):
            go_to("pages/models.py", models_view="Find the best")
    return Choice(str(preset), backbone, train_dials.changed(project, str(preset)))


def _choose_backbone(here: Here, preset: str) -> str:
    """Draw the networks that this preset can use; those without weights here say so."""
    rows = offered(here, preset)
    if st.session_state.get(BACKBONE) not in rows:
        st.session_state[BACKBONE] = DEFAULT_BACKBONE
    chosen = st.selectbox(
        "Network", list(rows), format_func=rows.__getitem__, key=BACKBONE, width=380,
        help="Pretrained on everyday photographs; here it learns your images. Weights that are "
        "not on this machine are put into the folder weights of the data folder.",
    )  # fmt: skip
    return str(chosen)


def offered(here: Here, preset: str) -> dict[str, str]:
    """Return id and words of every network, those that can be loaded here first."""
    folder = here.app.store.path("weights")
    ready, lacking = {}, {}
    for backbone in [*FACTS, *own_ids(folder)]:
        try:
            state = weights_state(backbone, folder)
        except CnsError:  # a card beside a weights file that cannot be read: the command tells why
            continue
        if state.facts.weights == "none" and preset == "quick":
            continue
        if state.available:
            ready[backbone] = state.facts.title
        else:
            lacking[backbone] = f"{state.facts.title} · weights not here"
    return ready | lacking


def advanced(here: Here, project: ProjectView, choice: Choice) -> None:
    """Draw the dials, folded away; what is changed stands in the head line."""
    note = train_dials.in_words(choice.options)
    title = "All settings" + (f" · changed: {words.plain(note)}" if note else "")
    with st.expander(title, icon=":material/tune:", key="train_advanced", on_change="rerun") as box:
        if not box.open:
            return
        columns = metadata.list_names(here.app.store, project_id=project.id)
        train_dials.dials(here, project, choice.preset, columns)
        st.button(
            "Back to the preset", key="train_reset", icon=":material/restart_alt:",
            type="tertiary", disabled=not choice.options, on_click=train_dials.reset,
            args=(project, choice.preset),
        )  # fmt: skip
