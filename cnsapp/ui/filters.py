"""The filters above a list of images: the same on every page, and in its address."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.services import images
from cnsapp.services.images import ImageFilter
from cnsapp.services.projects import ClassView

STATES = {
    "All images": "all",
    "Not labelled": "unlabelled",
    "Labelled": "label",
    "Skipped": "skip",
    "Unsure": "unsure",
}
ANY_CLASS, ANY_GROUP = "Any class", "Any group"


def choose_filter(
    app: App,
    *,
    project_id: int,
    classes: Sequence[ClassView],
    width: int,
    state_key: str = "show",
    first_state: str = "All images",
) -> ImageFilter:
    """Draw the filters, which live in the page's address, and return what they say."""
    state = st.selectbox(
        "State",
        list(STATES),
        index=list(STATES).index(first_state),
        key=state_key,
        bind="query-params",
        label_visibility="collapsed",
        width=width,
    )
    by_name = {c.name: c.id for c in classes}
    name = st.selectbox(
        "Class",
        [ANY_CLASS, *by_name],
        key="class",
        bind="query-params",
        label_visibility="collapsed",
        width=width,
    )
    groups = [group for group, _ in images.list_groups(app.store, project_id=project_id)]
    group = None
    if groups:
        group = st.selectbox(
            "Group",
            [ANY_GROUP, *groups],
            key="group",
            bind="query-params",
            label_visibility="collapsed",
            width=width,
        )
    part = st.text_input(
        "File name contains",
        key="find",
        bind="query-params",
        placeholder="File name…",
        label_visibility="collapsed",
        width=width,
    )
    return ImageFilter(
        state=STATES[state or "All images"],
        class_id=by_name.get(name or ANY_CLASS),
        group=None if group in (None, ANY_GROUP) else group,
        text=(part or "").strip(),
    )
