"""The filters above a list of images: the same on every page, and in its address."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.services import images, metadata
from cnsapp.services.filtering import Meta
from cnsapp.services.images import ImageFilter
from cnsapp.services.metadata import MetaKey
from cnsapp.services.projects import ClassView
from cnsapp.ui.words import plain

STATES = {
    "All images": "all",
    "Not labelled": "unlabelled",
    "Labelled": "label",
    "Skipped": "skip",
    "Unsure": "unsure",
}
ANY_CLASS, ANY_GROUP, ANY_VALUE = "Any class", "Any group", "Any"
IN_USE = "In use"
STATUSES = {IN_USE: "ok", "Missing": "missing", "Changed": "changed", "Excluded": "excluded"}


def choose_filter(
    app: App,
    *,
    project_id: int,
    classes: Sequence[ClassView],
    width: int,
    state_key: str = "show",
    first_state: str = "All images",
    with_status: bool = False,
) -> ImageFilter:
    """Draw the filters, which live in the page's address, and return what they say.

    `with_status` offers images that are missing, changed or excluded too.
    """
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
    groups = images.group_names(app.store, project_id=project_id)
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
    status, meta = _more(app, project_id, with_status)
    return ImageFilter(
        state=STATES[state or "All images"],
        class_id=by_name.get(name or ANY_CLASS),
        group=None if group in (None, ANY_GROUP) else group,
        text=(part or "").strip(),
        status=status,
        meta=meta,
    )


def _more(app: App, project_id: int, with_status: bool) -> tuple[str, tuple[Meta, ...]]:
    """Draw the filters that few need behind one button, and return what they say."""
    keys = _meta_keys(app, str(app.store.root), project_id)
    if not keys and not with_status:
        return "ok", ()
    n = sum(_is_set(key) for key in keys) + (
        with_status and st.session_state.get("status", IN_USE) != IN_USE
    )
    status = IN_USE
    meta: list[Meta] = []
    with st.popover(f"More ({n})" if n else "More", icon=":material/tune:", width="content"):
        if with_status:
            status = st.selectbox(
                "Files",
                list(STATUSES),
                key="status",
                bind="query-params",
                help="Missing and changed files are found by a check (view “Files”). They and "
                "excluded images are not trained on; their labels are kept.",
            )
        for key in keys:
            meta += _one_of(key) if key.low is None or key.high is None else _between(key)
        if not keys:
            st.caption("Columns of a metadata table, such as stain or age, become filters here.")
    return STATUSES[status or IN_USE], tuple(meta)


def _one_of(key: MetaKey) -> list[Meta]:
    """Draw the choice of a value."""
    value = st.selectbox(
        plain(key.name), [ANY_VALUE, *key.values], key=f"meta_{key.name}", width=280
    )
    return [] if value in (None, ANY_VALUE) else [(key.name, str(value))]


def _between(key: MetaKey) -> list[Meta]:
    """Draw the ends of a range of numbers."""
    left, right = st.columns(2, width=280)
    low, high = (
        place.number_input(
            f"{plain(key.name)} {word}",
            value=None,
            placeholder=f"{bound:g}",
            key=f"meta_{key.name}_{word}",
        )
        for place, word, bound in ((left, "from", key.low or 0.0), (right, "to", key.high or 0.0))
    )
    return [] if low is None and high is None else [(key.name, low, high)]


def _is_set(key: MetaKey) -> bool:
    state = st.session_state
    if key.low is None:
        return state.get(f"meta_{key.name}", ANY_VALUE) not in (None, ANY_VALUE)
    ends = (state.get(f"meta_{key.name}_{word}") for word in ("from", "to"))
    return any(end is not None for end in ends)


@st.cache_data(ttl=20, show_spinner=False)
def _meta_keys(_app: App, home: str, project_id: int) -> list[MetaKey]:
    del home  # tells installations apart
    return metadata.list_keys(_app.store, project_id=project_id)
