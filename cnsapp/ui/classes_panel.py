"""The view “Classes” of the Label page: what the classes are, and every change undone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from cnsapp.domain.color_vision import look_alike
from cnsapp.errors import CnsError
from cnsapp.services import class_schemes, class_use, classes
from cnsapp.services.class_schemes import Format
from cnsapp.services.classes import ClassChange
from cnsapp.services.images import Counts
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import classes_state, frame, words
from cnsapp.ui.classes_dialogs import show_dialog
from cnsapp.ui.classes_state import ask, bring_back, do, take_back, widget
from cnsapp.ui.frame import Here
from cnsapp.ui.tables import Column, table, text

WIDTHS = [0.5, 0.7, 2.6, 2.2, 0.9, 0.8, 1.5]
HEADS = ("Colour", "Key", "Name", "Group", "Images", "Models", "")
PAGE = 30  # rows at once: every row is seven widgets
CHANGES = 30
MIMES: dict[Format, str] = {"json": "application/json", "csv": "text/csv"}


def classes_view(
    here: Here, project: ProjectView, found: list[ClassView], counts: Counts, _as_of: int = 0
) -> None:
    """Draw the view."""
    changes = classes.list_changes(here.app.store, project_id=project.id, limit=CHANGES)
    with st.container(key="classes_view"):
        toolbar(here, project, changes)
        classes_state.say(here, project)
        warn_alike(found)
        rows(here, project, found, counts)
        schemes(here, project)
        list_of_changes(here, project, changes)
    show_dialog(here, project, found)


def toolbar(here: Here, project: ProjectView, changes: Sequence[ClassChange]) -> None:
    """Draw what concerns all classes: add, undo, redo, order, keys."""
    store, who = here.app.store, here.annotator
    undone = [change for change in changes if not change.counts]
    last = max(undone, key=lambda c: c.undone_at or c.at) if undone else None
    first = next((change for change in changes if change.counts), None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("Add a class", icon=":material/add:", type="primary"):
            add_form(here, project)
        st.button(
            "Undo", icon=":material/undo:", key="classes_undo", disabled=first is None,
            help=first.sentence if first else None, on_click=take_back,
            args=(here, project, first.id if first else 0),
        )  # fmt: skip
        st.button(
            "Redo", icon=":material/redo:", key="classes_redo", disabled=last is None,
            help=last.sentence if last else None, on_click=bring_back,
            args=(here, project, last.id if last else 0),
        )  # fmt: skip
        st.button(
            "Sort by group and name", key="classes_sort", on_click=do,
            args=(project, lambda: classes.sort_classes(store, project_id=project.id, who=who)),
        )  # fmt: skip
        st.button(
            "Suggest keys", key="classes_keys", on_click=do,
            help="Up to ten classes get one key each; more get two: first the group's, then the "
            "class's own.",
            args=(project, lambda: classes.suggest_keys(store, project_id=project.id, who=who)),
        )  # fmt: skip
    if not who:
        st.caption(
            "Choose your name under *Labelling as* first: changes are kept with who made them."
        )


def add_form(here: Here, project: ProjectView) -> None:
    """Draw the form of a new class."""
    with st.form("classes_add", border=False, clear_on_submit=True):
        name = st.text_input("Name", key="classes_add_name")
        parent = st.text_input("Group of classes (optional)", key="classes_add_parent")
        if st.form_submit_button("Add class", key="classes_add_go"):
            do(
                project,
                lambda: classes.add_class(
                    here.app.store, project_id=project.id, name=name, parent=parent,
                    who=here.annotator,
                ),
            )  # fmt: skip
            st.rerun()


def warn_alike(found: Sequence[ClassView]) -> None:
    """Say which colours cannot be told apart."""
    pairs = look_alike({c.name: c.color for c in found[:100]})
    if not pairs:
        return
    one, other, everybody = pairs[0]
    whom = "" if everybody else " to some colour-blind people"
    more = f", and {words.plural(len(pairs) - 1, 'more pair')}" if len(pairs) > 1 else ""
    st.caption(
        f":material/palette: The colours of {frame.plain(one)} and {frame.plain(other)} look "
        f"alike{whom}{more}."
    )


def rows(here: Here, project: ProjectView, found: list[ClassView], counts: Counts) -> None:
    """Draw the classes as rows that can be changed in place."""
    models = class_use.models_per_class(here.app.store, project_id=project.id)
    pages = max(1, -(-len(found) // PAGE))
    at = 0
    if pages > 1:
        at = st.pagination(pages, key="classes_page") - 1
    head = st.columns(WIDTHS, vertical_alignment="bottom", gap="small")
    for place, title in zip(head, HEADS, strict=True):
        place.caption(title)
    for k, c in enumerate(found[at * PAGE : (at + 1) * PAGE], start=at * PAGE):
        row(here, project, c, counts.per_class.get(c.id, 0), models.get(c.id, 0), k, len(found))


def row(
    here: Here, project: ProjectView, c: ClassView, n: int, n_models: int, place: int, of: int
) -> None:
    """Draw one class."""
    cells = st.columns(WIDTHS, vertical_alignment="center", gap="small")
    with cells[0]:
        key = widget("color", c.id)
        st.color_picker(
            f"Colour of {c.name}", c.color, key=key, on_change=_set,
            args=(here, project, c.id, "color", key), label_visibility="collapsed",
        )  # fmt: skip
    for cell, field, label, value in (
        (cells[1], "hotkey", "Key", c.hotkey),
        (cells[2], "name", "Name", c.name),
        (cells[3], "parent", "Group", c.parent),
    ):
        key = widget(field, c.id)
        cell.text_input(
            f"{label} of {c.name}", value or "", key=key, on_change=_set,
            args=(here, project, c.id, field, key), placeholder="none",
            label_visibility="collapsed",
        )  # fmt: skip
    cells[4].markdown(words.number(n))
    cells[5].markdown(words.number(n_models))
    with cells[6].container(horizontal=True, gap="xxsmall", key=f"class_row_{c.id}"):
        for icon, word, by, off in (
            ("arrow_upward", "up", -1, place == 0),
            ("arrow_downward", "down", 1, place == of - 1),
        ):
            st.button(
                "", icon=f":material/{icon}:", key=f"class_{word}_{c.id}", disabled=off,
                help=f"Move {frame.plain(c.name)} {word}", on_click=_move, type="tertiary",
                args=(here, project, c.id, by),
            )  # fmt: skip
        with st.popover(
            "", icon=":material/more_vert:", help="More", type="tertiary", key=widget("more", c.id)
        ):
            more(here, project, c, n, of)


def more(here: Here, project: ProjectView, c: ClassView, n: int, of: int) -> None:
    """Draw what is done less often: description, merge, split, delete."""
    key = widget("description", c.id)
    st.text_area(
        f"What belongs to {frame.plain(c.name)}", c.description, key=key, height=100,
        on_change=_set, args=(here, project, c.id, "description", key),
    )  # fmt: skip
    for kind, label, off in (
        ("merge", "Merge into another class…", of < 2),
        ("split", "Split a new class off…", not n),
        ("delete", "Delete…", False),
    ):
        st.button(
            label, key=f"class_{kind}_{c.id}", disabled=off, on_click=ask, args=(kind, c.id),
            width="stretch",
        )  # fmt: skip


def _set(here: Here, project: ProjectView, class_id: int, field: str, key: str) -> None:
    value = str(st.session_state[key] or "")
    store, who = here.app.store, here.annotator
    if field == "name":
        do(project, lambda: classes.rename_class(store, class_id=class_id, name=value, who=who),
           class_id)  # fmt: skip
    else:
        change = {field: value}
        do(project, lambda: classes.change_class(store, class_id=class_id, who=who, **change))


def _move(here: Here, project: ProjectView, class_id: int, by: int) -> None:
    do(
        project,
        lambda: classes.move_class(here.app.store, class_id=class_id, by=by, who=here.annotator),
    )


def schemes(here: Here, project: ProjectView) -> None:
    """Draw class schemes as files: take one in, write one."""
    with st.expander("Class schemes as files", icon=":material/file_copy:", key="classes_schemes"):
        left, right = st.columns(2, gap="large")
        with left:
            st.caption("Another project, or another lab, can take these classes in.")
            with st.container(horizontal=True):
                for kind, mime in MIMES.items():
                    st.download_button(
                        f"Download {kind.upper()}",
                        partial(
                            class_schemes.export_scheme,
                            here.app.store,
                            project_id=project.id,
                            kind=kind,
                        ),
                        file_name=f"{project.name} classes.{kind}",
                        mime=mime,
                        key=f"scheme_{kind}",
                        on_click="ignore",
                    )
        with right:
            take_in(here, project)


def take_in(here: Here, project: ProjectView) -> None:
    """Draw the choice of a scheme, what it would change, and the button that takes it in."""
    source = st.segmented_control(
        "Take in", ["A file", "organ-systems"], key="scheme_source", default="A file",
        required=True, help="Classes are added and changed; those it does not name stay.",
    )  # fmt: skip
    if source == "A file":
        file = st.file_uploader(
            "JSON or CSV", type=["json", "csv"], key="scheme_file", max_upload_size=1
        )
        if file is None:
            return
        try:
            scheme = class_schemes.read_file(file.getvalue(), file.name)
        except CnsError as error:
            frame.show_error(error)
            return
    else:
        scheme = class_schemes.built_in("organ-systems")
    plan = class_schemes.preview_scheme(here.app.store, project_id=project.id, scheme=scheme)
    touched = [r for r in plan.rows if r.what != "same"]
    if touched:
        table(
            [Column("Class"), Column("What"), Column("Details")],
            [[text(r.spec.name), text("new" if r.what == "added" else "changed"),
              text(", ".join(r.changes) or r.spec.parent or words.NONE)] for r in touched],
        )  # fmt: skip
    for note in plan.notes:
        st.caption(frame.plain(note))
    label = f"Take in: {plan.n_added} new, {plan.n_changed} changed"
    st.button(
        label if touched else "All of it is there already", key="scheme_go", disabled=not touched,
        on_click=do,
        args=(project, lambda: class_schemes.apply_scheme(
            here.app.store, project_id=project.id, scheme=scheme, who=here.annotator)),
    )  # fmt: skip


def list_of_changes(here: Here, project: ProjectView, changes: Sequence[ClassChange]) -> None:
    """Draw the changes of the classes, each with its undo or redo."""
    with st.expander("Changes of the classes", icon=":material/history:", key="classes_changes"):
        if not changes:
            st.caption("No class was changed yet. Every change is listed here and can be undone.")
        for change in changes:
            left, middle, right = st.columns([6, 3, 1.2], vertical_alignment="center")
            said = frame.plain(change.sentence)
            left.markdown(said if change.counts else f"~~{said}~~")
            by = f"{change.who}, {words.ago(change.at)}"
            if not change.counts:
                by += f"; undone by {change.undone_by}"
            middle.caption(frame.plain(by), help=words.exact(change.at))
            right.button(
                "Undo" if change.counts else "Redo",
                key=f"class_change_{change.id}",
                type="tertiary",
                on_click=take_back if change.counts else bring_back,
                args=(here, project, change.id),
            )
