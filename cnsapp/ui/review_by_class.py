"""Review, by class and by group: one sheet that shows what a class or a patient is to the model."""

from __future__ import annotations

import streamlit as st

from cnsapp.domain.names import name_key
from cnsapp.services import by_class, label_settings
from cnsapp.services.by_class import GroupRow
from cnsapp.ui import (
    frame,
    review_by_class_all,
    review_by_class_group,
    review_by_class_one,
    review_by_class_sheet,
)
from cnsapp.ui.review_asked import Reviewed

# in the address; “by” and “group” there are filters of the matrix
BY, CLASS, GROUP = "sheet", "class", "sheet_group"
CLASSES, GROUPS = "Class", "Group"
EVERY = 0  # instead of a class: all of them
BLIND = (
    "This project is read blind: nobody sees what others called an image. These sheets show images "
    "by their labels, so they would tell. They can be seen once blind reading is off (Label, "
    "People)."
)
FIRST = "Reading the model's answers and its images for the first time…"


def draw(asked: Reviewed) -> None:
    """Draw the choice of a class or group, and its sheet."""
    store = asked.here.app.store
    if label_settings.read_settings(store, project_id=asked.project.id).blind:
        st.info(BLIND)
        return
    review_by_class_sheet.style()
    with st.container(horizontal=True, vertical_alignment="bottom", key="class_choice"):
        by = _choose_by()
        if by == GROUPS:
            with st.spinner(FIRST):
                groups = by_class.list_groups(
                    store, model_id=asked.model.id, part=asked.part, truth=asked.truth
                )
            group = _choose_group(groups)
            name = group.name if group else ""
        else:
            class_id = _choose_class(asked)
            name = next(
                (o.name for o in asked.model.outputs if o.class_id == class_id), "all classes"
            )
        if by != GROUPS or group is not None:
            review_by_class_sheet.print_button(
                f"{asked.project.name} - {name} - {asked.model.name}"
            )
    with st.container(key="class_sheet"):
        if by == GROUPS:
            if group is None:
                _no_groups()
                return
            review_by_class_group.draw(asked, group)
        elif class_id is None:
            with st.spinner(FIRST):
                review_by_class_all.draw(asked)
        else:
            with st.spinner(FIRST):
                figures = by_class.figures(
                    store, model_id=asked.model.id, part=asked.part, truth=asked.truth
                )
            review_by_class_one.draw(asked, figures, class_id)


def _choose_by() -> str:
    """Draw the choice between classes and groups, which lives in the address."""
    st.session_state["class_by"] = GROUPS if st.query_params.get(BY) == GROUPS else CLASSES
    chosen = st.segmented_control(
        "By", [CLASSES, GROUPS], key="class_by", required=True, on_change=_picked,
        args=(BY, "class_by", CLASSES),
        help="A group is a patient, slide or whatever the project's groups are.",
    )  # fmt: skip
    return chosen or CLASSES


def _choose_class(asked: Reviewed) -> int | None:
    """Draw the choice of a class; None: all of them."""
    known = {o.class_id: o.name for o in asked.model.outputs if not o.deleted}
    given = str(st.query_params.get(CLASS) or "")
    usual = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None
    st.session_state["class_shown"] = usual if usual in known else EVERY
    chosen = st.selectbox(
        "Class", [EVERY, *known], key="class_shown", width=260,
        format_func=lambda i: "All classes" if i == EVERY else known[i],
        on_change=_picked, args=(CLASS, "class_shown", EVERY),
    )  # fmt: skip
    return None if chosen == EVERY else chosen


def _choose_group(groups: list[GroupRow]) -> GroupRow | None:
    """Draw the choice of a group, those that are worse first; None where there are none."""
    by_name = {group.name: group for group in _worst_first(groups)}
    if not by_name:
        return None
    given = name_key(str(st.query_params.get(GROUP) or ""))
    usual = next(iter(by_name))
    st.session_state["group_shown"] = next((n for n in by_name if name_key(n) == given), usual)
    chosen = st.selectbox(
        "Group", list(by_name), key="group_shown", width=420,
        format_func=lambda name: _title(by_name[name]), on_change=_picked,
        args=(GROUP, "group_shown"),
        help="Those that are clearly worse than the rest come first, then by name.",
    )  # fmt: skip
    return by_name[chosen]


def _worst_first(groups: list[GroupRow]) -> list[GroupRow]:
    return sorted(groups, key=lambda group: not is_worse(group))


def is_worse(group: GroupRow) -> bool:
    """Return whether a group is worse than the rest, after the correction for all groups."""
    return group.compared is not None and group.compared.verdict.startswith("worse")


def _title(group: GroupRow) -> str:
    worse = " · worse than the rest" if is_worse(group) else ""
    return f"{group.name} · {group.n_right:,} of {group.n:,} right{worse}"


def _picked(name: str, key: str, usual: object = None) -> None:
    """Put a choice into the address; what is usual needs no word there."""
    value = st.session_state[key]
    if value == usual:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(value)


def _no_groups() -> None:
    st.info(
        "No image that this model judged has a group. Groups (patient, slide, animal) come from a "
        "column, the file name or the folder, under Images."
    )
    if st.button("Go to Images", key="class_no_groups"):
        frame.go_to("pages/images.py")
