"""A word at a model that was trained when the project read its images otherwise."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import reading
from cnsapp.services.models import ModelView
from cnsapp.ui.frame import Here
from cnsapp.ui.words import plain


def say_read_otherwise(here: Here, model: ModelView) -> None:
    """Say what differs and what to do; nothing where the project reads as the model learnt."""
    found = reading.read_otherwise(here.app.store, model=model)
    if found:
        st.caption(
            ":material/info: This model was trained when images were read otherwise. Now the "
            f"project shows {plain('; '.join(found))}. The model goes on reading them as it "
            "learnt them; train again to use the new look."
        )
