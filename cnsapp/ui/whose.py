"""Whose labels are shown while labelling: everybody's, or only one's own."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import people
from cnsapp.services.projects import ProjectView
from cnsapp.ui.frame import Here

KEY, MINE = "whose", "mine"  # in the address: whose=mine
TITLES = {"all": "All labels", MINE: "Only mine"}
HELP = (
    "Only mine: images look as if nobody else had labelled, so that you are not swayed; filters "
    "look at your labels too. The counts stay those of the project."
)


def only_mine(here: Here, project: ProjectView, *, blind: bool) -> bool:
    """Draw the choice, which lives in the address; return whether only one's own labels show.

    It is offered where somebody else has labelled; in a blind project there is no choice.
    """
    if blind:  # who has not said their name yet sees nobody's labels
        return True
    if not here.annotator:
        return False
    asked = st.query_params.get(KEY) == MINE
    known = people.list_annotators(here.app.store, project_id=project.id)
    if not asked and not set(known) - {here.annotator}:
        return False
    st.session_state["whose_shown"] = MINE if asked else "all"
    st.selectbox(
        "Whose labels", list(TITLES), format_func=TITLES.__getitem__, key="whose_shown",
        on_change=_chosen, label_visibility="collapsed", width=112, help=HELP,
    )  # fmt: skip
    return asked


def _chosen() -> None:
    if st.session_state["whose_shown"] == MINE:
        st.query_params[KEY] = MINE
    else:
        st.query_params.pop(KEY, None)
