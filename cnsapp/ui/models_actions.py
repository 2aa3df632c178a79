"""What one does with a model: make it current, name it, note, archive, train it again."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import model_standing
from cnsapp.services.models import ModelView
from cnsapp.ui import frame
from cnsapp.ui.frame import Here


def actions(here: Here, model: ModelView) -> None:
    """Draw the buttons of one model."""
    with st.container(horizontal=True, vertical_alignment="center", key="model_actions"):
        if (
            not model.is_current
            and not model.archived
            and st.button(
                "Make current",
                key="model_promote",
                icon=":material/star:",
                help="Predict, Review and Explain begin with the current model; commands use it.",
            )
        ):
            with frame.guard():
                model_standing.promote_model(here.app.store, model_id=model.id)
                st.rerun()
        with st.popover("Rename", icon=":material/edit:", key="model_rename_box"):
            _rename(here, model)
        with st.popover(
            "Note" if not model.note else "Change the note",
            icon=":material/sticky_note_2:",
            key="model_note_box",
        ):
            _note(here, model)
        with st.popover("Train again", icon=":material/replay:", key="model_rerun_box"):
            _rerun(here, model)
        _archive(here, model)


def _rename(here: Here, model: ModelView) -> None:
    name = st.text_input("Name", value=model.name, key=f"model_name_{model.id}")
    if st.button("Rename", key="model_rename", disabled=(name or "") == model.name):
        with frame.guard():
            model_standing.rename_model(here.app.store, model_id=model.id, name=name or "")
            st.rerun()


def _note(here: Here, model: ModelView) -> None:
    note = st.text_area(
        "Note",
        value=model.note,
        key=f"model_note_{model.id}",
        placeholder="What it is for, what was tried",
        width=420,
    )
    if st.button("Save", key="model_note_save", disabled=(note or "").strip() == model.note):
        with frame.guard():
            model_standing.note_model(here.app.store, model_id=model.id, note=note or "")
            st.rerun()


def _rerun(here: Here, model: ModelView) -> None:
    st.write("The same recipe, backbone and seed, on the labels of today.")
    with frame.guard():
        said = model_standing.differs_today(here.app, model_id=model.id)
        for line in said:
            st.caption(f":material/info: {frame.plain(line)}")
        if not said:
            st.caption(
                ":material/check: Labels, reading and versions are those of the record: on a "
                "processor the result will be the same."
            )
        if st.button("Train again", key="model_rerun"):
            model_standing.rerun_model(here.app, model_id=model.id, requested_by=here.annotator)
            frame.go_to("pages/train.py")


def _archive(here: Here, model: ModelView) -> None:
    if model.archived:
        if st.button("Restore", key="model_restore", icon=":material/unarchive:"):
            with frame.guard():
                model_standing.restore_model(here.app.store, model_id=model.id)
                st.rerun()
        return
    pressed = st.button(
        "Archive",
        key="model_archive",
        icon=":material/archive:",
        disabled=model.is_current,
        help="The current model cannot be archived: promote another one first."
        if model.is_current
        else "It is no longer offered; its file, figures and number stay.",
    )
    if pressed:
        with frame.guard():
            model_standing.archive_model(here.app.store, model_id=model.id)
            st.rerun()
