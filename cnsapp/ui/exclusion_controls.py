"""In the dialog of one image: take it out of use or back in, and what happened to it."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import exclusion
from cnsapp.services.images import ImageDetail
from cnsapp.ui.frame import Here, guard
from cnsapp.ui.tables import Column, table, text, when

KINDS = {"apart": "looked at", "fine": "found right", "found": "found again"}


def exclusion_controls(here: Here, image: ImageDetail) -> None:
    """Draw the button that excludes an image in use, or restores an excluded one."""
    if image.status == "excluded":
        if st.button(
            "Restore this image",
            icon=":material/undo:",
            key="image_restore",
            help="Takes it back into lists, counts and training, with its labels.",
        ):
            with guard():
                exclusion.restore(
                    here.app.store,
                    project_id=image.project_id,
                    image_ids=[image.id],
                    who=here.annotator,
                )
                st.rerun()
    elif image.status == "ok":
        st.button(
            "Exclude this image",
            key="image_exclude",
            help="Takes it out of lists, counts and training. Its labels stay, models that learnt "
            "from it stay as they are, and it can be restored.",
            on_click=_exclude,
            args=(here, image),
        )


def _exclude(here: Here, image: ImageDetail) -> None:
    with guard():
        exclusion.exclude(
            here.app.store, project_id=image.project_id, image_ids=[image.id], who=here.annotator
        )


def show_notes(here: Here, image: ImageDetail) -> None:
    """Draw what happened to the image beside its labels."""
    notes = exclusion.image_notes(here.app.store, image_id=image.id)
    if not notes:
        return
    st.caption("What happened to it")
    table(
        [Column("What"), Column("By"), Column("Why"), Column("When", number=True)],
        [
            [text(KINDS.get(n.kind, n.kind)), text(n.who), text(_why(n.reason)), when(n.at)]
            for n in notes
        ],
    )


def _why(reason: str) -> str:
    return "undone" if reason.startswith("undone: ") else reason
