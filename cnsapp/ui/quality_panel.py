"""The view "Quality" of the Images page: what to look at before anything is learnt."""

from __future__ import annotations

import streamlit as st

from cnsapp.services.projects import ProjectView
from cnsapp.ui.frame import Here


def quality_panel(here: Here, project: ProjectView) -> None:  # noqa: ARG001
    """Draw what was found, and the images behind it."""
    st.caption("The images are looked at in the background.")
