"""The galleries of what changed: pages that go on behind a cursor, labelled by keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from cnsapp.services import viewing
from cnsapp.services.images import Counts, ImageItem
from cnsapp.services.models import ModelView
from cnsapp.ui import frame
from cnsapp.ui.labeller import Badge, Reviewing, labeller
from cnsapp.ui.review_asked import Reviewed

FEW, FEW_HEIGHT = 10, 470  # a gallery of a few images needs no whole window


def page_at(name: str, sign: str) -> Any:
    """Return the cursor that the shown page begins behind; None at the first page.

    `sign` says what is listed: another one begins at the first page.
    """
    if st.session_state.get(f"{name}_sign") != sign:
        st.session_state[f"{name}_sign"] = sign
        st.session_state[f"{name}_trail"] = [None]
    return st.session_state[f"{name}_trail"][-1]


def pager(name: str, place: st.delta_generator.DeltaGenerator, after: Any) -> None:
    """Draw the buttons to the page before and the next one, where there is one (`after`)."""
    trail: list[Any] = st.session_state[f"{name}_trail"]
    if after is None and len(trail) == 1:
        return
    for title, icon, to, off in (
        ("Previous", "chevron_left", trail[:-1] or [None], len(trail) == 1),
        ("Next", "chevron_right", [*trail, after], after is None),
    ):
        place.button(
            title, icon=f":material/{icon}:", key=f"{name}_{title.lower()}", disabled=off,
            on_click=st.session_state.__setitem__, args=(f"{name}_trail", to),
        )  # fmt: skip


def draw_gallery(
    asked: Reviewed,
    *,
    key: str,
    items: Sequence[ImageItem],
    as_of: int,
    counts: Counts,
    badges: Mapping[int, Badge],
    model: ModelView,
    empty: str,
    review: Reviewing | None = None,
) -> None:
    """Draw images that can be labelled; one that is opened goes to the Explain page.

    `as_of` is read before the items; `review`: whose answers stand beside the large picture.
    """
    here = asked.here
    answer = labeller(
        key=key,
        mode="review",
        images=items,
        classes=asked.classes,
        project_id=asked.project.id,
        annotator=here.annotator,
        counts=counts,
        as_of=as_of,
        badges=badges,
        empty=empty,
        height=FEW_HEIGHT if len(items) <= FEW else None,
        review=review,
        um_per_px=viewing.um_per_px(here.app.store, project_id=asked.project.id),
    )
    if answer.opened is not None:
        frame.go_to("pages/explain.py", model=model.id, image=answer.opened)
