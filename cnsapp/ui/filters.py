"""The filters above a list of images: the same on every page, and in its address."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.services import images, label_settings
from cnsapp.services.images import ImageFilter
from cnsapp.services.projects import ClassView
from cnsapp.services.sorting import Order, like_ids
from cnsapp.ui.more_filters import more_filters

STATES = {
    "All images": "all",
    "Not labelled": "unlabelled",
    "Labelled": "label",
    "Skipped": "skip",
    "Unsure": "unsure",
    "Waits for a reader": "waiting",
    "Readers undecided": "undecided",
}
VOTED = ("Waits for a reader", "Readers undecided")  # only where readings are voted on
ANY_CLASS, ANY_GROUP = "Any class", "Any group"
ORDERS = {
    "As added": "added",
    "Newest first": "newest",
    "Name": "name",
    "File date": "date",
    "Random": "random",
    "Least certain": "uncertain",
    "Least believed label": "wrong",
    "Most disputed": "disputed",
    "Similar": "like",
}
OPINIONS = ("Least certain", "Least believed label", "Most disputed")  # not in blind mode


def choose_filter(
    app: App,
    *,
    project_id: int,
    classes: Sequence[ClassView],
    width: int,
    state_key: str = "show",
    first_state: str = "All images",
    with_status: bool = False,
    with_opinions: bool = False,
) -> ImageFilter:
    """Draw the filters, which live in the page's address, and return what they say.

    `with_status` offers images that are missing, changed or excluded too, `with_opinions` what a
    model and other people think.
    """
    voted = label_settings.read_settings(app.store, project_id=project_id).rule.kind != "latest"
    states = [name for name in STATES if voted or name not in VOTED]
    state = st.selectbox(
        "State",
        states,
        index=states.index(first_state),
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
    further = more_filters(
        app,
        project_id=project_id,
        classes=by_name,
        with_status=with_status,
        with_opinions=with_opinions,
    )
    return ImageFilter(
        state=STATES[state or "All images"],
        class_id=by_name.get(name or ANY_CLASS),
        group=None if group in (None, ANY_GROUP) else group,
        text=(part or "").strip(),
        **further,
    )


def choose_order(*, width: int, blind: bool, opinions: bool) -> Order:
    """Draw the choice of an order, which lives in the page's address, and return it.

    `opinions`: there are suggestions to order by; `blind`: nobody is to see what a model thinks.
    """
    like = like_ids(st.query_params.get("like"))
    hidden = [] if opinions and not blind else list(OPINIONS)
    hidden += [] if like else ["Similar"]
    offered = [name for name in ORDERS if name not in hidden]
    name = st.selectbox(
        "Sort by",
        offered,
        key="sort",
        bind="query-params",
        label_visibility="collapsed",
        width=width,
        help="Random keeps its order until you shuffle again.",
    )
    by = ORDERS[name or "As added"]
    if by == "random":
        st.button(
            "", icon=":material/shuffle:", help="Shuffle again", key="shuffle", on_click=_shuffle
        )
    return Order(by, seed=_seed(), like=like if by == "like" else ())


def _seed() -> int:
    text = st.query_params.get("seed", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _shuffle() -> None:
    st.query_params["seed"] = str(_seed() + 1)
