"""What the view of the classes did last, and what it is asked: kept between two runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import classes
from cnsapp.services.class_rows import SameNameError
from cnsapp.services.classes import ClassChange
from cnsapp.services.projects import ProjectView
from cnsapp.ui import frame
from cnsapp.ui.frame import Here

DONE, ERROR, ROUND, ASK, MERGE = (
    "classes_did", "classes_error", "classes_round", "classes_ask", "classes_merge_wish",
)  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """A rename that another class stands in the way of: merge the two instead?"""

    class_id: int
    other_id: int
    other_name: str


def widget(name: str, class_id: int) -> str:
    """Return the key of a widget; after each change it is drawn anew, with what is stored."""
    return f"class_{name}_{class_id}_{st.session_state.get(ROUND, 0)}"


def do(project: ProjectView, change: Callable[[], ClassChange], class_id: int = 0) -> None:
    """Make a change when a widget asks for it, and keep what to say of it."""
    make(project, change, class_id)


def make(project: ProjectView, change: Callable[[], ClassChange], class_id: int = 0) -> bool:
    """Make a change, and keep what to say of it; return whether it was made."""
    for key in (DONE, ERROR, MERGE):
        st.session_state.pop(key, None)
    try:
        done = change()
    except SameNameError as error:
        st.session_state[ERROR] = error
        if error.other is not None and class_id:
            st.session_state[MERGE] = Wish(class_id, error.other.id, error.other.name)
        return False
    except CnsError as error:
        st.session_state[ERROR] = error
        return False
    finally:
        st.session_state[ROUND] = st.session_state.get(ROUND, 0) + 1
    st.session_state[DONE] = (project.id, done)
    return True


def take_back(here: Here, project: ProjectView, change: int) -> None:
    """Undo a change."""
    do(
        project,
        lambda: classes.undo_class_change(
            here.app.store, project_id=project.id, who=here.annotator, change=change
        ),
    )


def bring_back(here: Here, project: ProjectView, change: int) -> None:
    """Redo a change."""
    do(
        project,
        lambda: classes.redo_class_change(
            here.app.store, project_id=project.id, who=here.annotator, change=change
        ),
    )


def merge_wish(here: Here, project: ProjectView, wish: Wish) -> None:
    """Merge two classes whose names read alike."""
    do(
        project,
        lambda: classes.merge_classes(
            here.app.store, class_id=wish.class_id, into=wish.other_id, who=here.annotator
        ),
    )


def say(here: Here, project: ProjectView) -> None:
    """Draw what the last change did, with Undo, or why it was refused."""
    error, did = st.session_state.get(ERROR), st.session_state.get(DONE)
    if error is not None:
        frame.show_error(error)
        wish = st.session_state.get(MERGE)
        if wish is not None:
            st.button(
                f"Merge it into “{frame.plain(wish.other_name)}”",
                key="classes_merge_instead",
                on_click=merge_wish,
                args=(here, project, wish),
            )
    elif did is not None and did[0] == project.id:
        done: ClassChange = did[1]
        with st.container(
            horizontal=True, vertical_alignment="center", gap="small", border=True,
            key="classes_done",
        ):  # fmt: skip
            words = done.sentence if done.counts else f"Taken back: {done.sentence}"
            st.markdown(f"{frame.plain(words)}.")
            st.button(
                "Undo" if done.counts else "Redo",
                icon=f":material/{'undo' if done.counts else 'redo'}:",
                key="classes_undo_last",
                on_click=take_back if done.counts else bring_back,
                args=(here, project, done.id),
            )


def ask(kind: str, class_id: int) -> None:
    """Open a dialog about a class in the next run; the menu that asked for it closes."""
    st.session_state[ROUND] = st.session_state.get(ROUND, 0) + 1
    st.session_state[ASK] = (kind, class_id)


def stop_asking() -> None:
    """Close the dialog."""
    st.session_state.pop(ASK, None)
