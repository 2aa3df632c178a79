"""Dialogs of the classes: merge, delete, split off. Each says first what it concerns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from cnsapp.services import class_use, classes
from cnsapp.services.class_use import ClassUse
from cnsapp.services.classes import ClassChange
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import classes_state, frame, words
from cnsapp.ui.components import Tile, gallery, thumb_url, ticked
from cnsapp.ui.frame import Here

NO_LABEL = 0  # in the choice of where labels go
SHOWN = 120  # images to choose from at once


def show_dialog(here: Here, project: ProjectView, found: Sequence[ClassView]) -> None:
    """Draw the dialog that was asked for."""
    asked = st.session_state.get(classes_state.ASK)
    one = next((c for c in found if asked and c.id == asked[1]), None)
    if asked is None or one is None:
        return
    others = [c for c in found if c.id != one.id]
    title, body = {
        "merge": ("Merge a class into another one", _merge),
        "delete": ("Delete a class", _delete),
        "split": ("Split a new class off", _split),
    }[asked[0]]
    st.dialog(
        title, width="large" if asked[0] == "split" else "small",
        on_dismiss=classes_state.stop_asking,
    )(body)(here, project, one, others)  # fmt: skip


def _merge(here: Here, project: ProjectView, one: ClassView, others: Sequence[ClassView]) -> None:
    names = {c.id: c.name for c in others}
    _concerned(one, class_use.class_use(here.app.store, class_id=one.id))
    into = st.selectbox(
        "They count from now on as", list(names), format_func=names.__getitem__, key="merge_into"
    )
    st.caption(
        "No label is changed: people's labels keep the old name, and count as the class you "
        "choose; so do predictions of models that know the old one. It can be undone."
    )
    _go("Merge", here, project, lambda: classes.merge_classes(
        here.app.store, class_id=one.id, into=into or 0, who=here.annotator,
    ), off=into is None)  # fmt: skip


def _delete(here: Here, project: ProjectView, one: ClassView, others: Sequence[ClassView]) -> None:
    names = {NO_LABEL: "no label"} | {c.id: c.name for c in others}
    use = class_use.class_use(here.app.store, class_id=one.id)
    _concerned(one, use)
    to = NO_LABEL
    if use.n_readings:
        to = st.radio(
            "They count from now on as", list(names), format_func=names.__getitem__,
            key="delete_to",
        ) or NO_LABEL  # fmt: skip
    st.caption(
        "No label is changed or thrown away: undo the deletion and all of them are back. Models "
        "that know the class say that it was deleted."
    )
    _go("Delete", here, project, lambda: classes.delete_class(
        here.app.store, class_id=one.id, reassign_to=to or None, who=here.annotator,
    ))  # fmt: skip


def _split(here: Here, project: ProjectView, one: ClassView, _others: Sequence[ClassView]) -> None:
    st.write(
        f"Tick images of “{frame.plain(one.name)}” and name their new class. They get labels of "
        "yours; one undo takes all back."
    )
    part = st.text_input("File name or group contains", key="split_find")
    rows = class_use.images_of_class(
        here.app.store, class_id=one.id, text=part or "", limit=SHOWN + 1
    )
    if not rows:
        st.info("No image of this class fits.")
    elif len(rows) > SHOWN:
        st.caption(f"The first {SHOWN}; name a part of the file name to see others.")
    rows = rows[:SHOWN]
    key = f"split_images_{one.id}"
    tiles = [Tile(row.id, thumb_url(row.id, row.version), row.name) for row in rows]
    with st.container(height=330, border=False):
        gallery(tiles, key=key, side=96, checkable=True)
    every = st.checkbox(
        f"All {words.plural(len(rows), 'image')} shown", key="split_all", disabled=not rows
    )
    shown = {row.id for row in rows}
    ids = sorted(shown) if every else [i for i in ticked(key) if i in shown]
    name = st.text_input("New class", key="split_name")
    _go(f"Split {words.plural(len(ids), 'image')} off", here, project, lambda: classes.split_class(
        here.app.store, class_id=one.id, image_ids=ids, name=name or "", who=here.annotator,
    ), off=not ids or not (name or "").strip())  # fmt: skip


def _concerned(one: ClassView, use: ClassUse) -> None:
    """Say what hangs on the class."""
    parts = [f"**{words.plural(use.n_images, 'image')}** labelled “{frame.plain(one.name)}”"]
    if use.n_readings:
        people = words.plural(use.n_people, "person", "people")
        parts.append(f"{words.plural(use.n_readings, 'label')} by {people}")
    if use.n_models:
        parts.append(words.plural(use.n_models, "model") + " that know it")
    st.markdown(" · ".join(parts) + ".")
    if use.merged:
        st.caption("Merged into it before: " + frame.plain(", ".join(use.merged)) + ".")


def _go(
    label: str, here: Here, project: ProjectView, change: Callable[[], ClassChange],
    off: bool = False,
) -> None:  # fmt: skip
    """Draw the button that makes the change, and close the dialog when it is made."""
    del here
    if st.button(label, type="primary", key="class_dialog_go", disabled=off):
        with st.spinner("Counting the labels anew"):
            made = classes_state.make(project, change)
        if made:
            classes_state.stop_asking()
            st.rerun()
        frame.show_error(st.session_state.pop(classes_state.ERROR))
