"""Review, what changed: from one model to another, and in the labels since the model."""

from __future__ import annotations

import streamlit as st

from cnsapp.services.label_settings import is_blind
from cnsapp.ui import frame
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_changes_labels import draw_labels
from cnsapp.ui.review_changes_models import draw_models

WHAT = "changed"  # in the address
MODELS, LABELS = "From another model", "Labels since this model"


def draw(asked: Reviewed) -> None:
    """Draw the choice between models and labels, and what changed there."""
    if is_blind(asked.here.app.store, project_id=asked.project.id):
        st.info(
            "What changed is not shown in a project that is labelled blindly: it tells what others "
            "called the images. When all have labelled, switch blind labelling off on the Label "
            "page."
        )
        return
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row:
        chosen = st.segmented_control(
            "What changed", [MODELS, LABELS], key=WHAT, default=MODELS, required=True,
            bind="query-params", label_visibility="collapsed",
        )  # fmt: skip
    with frame.guard():
        if chosen == LABELS:
            draw_labels(asked)
        else:
            draw_models(asked, row)
