"""The one-by-one view of the Label page: which images come next, chosen above the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import streamlit as st

from cnsapp.services import viewing
from cnsapp.services.images import Counts, ImageFilter
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import memory
from cnsapp.ui.frame import Here
from cnsapp.ui.labeller import labeller

NAMES = {  # of the strategies of the queue
    "smart": "smart",
    "in-order": "in order",
    "random": "random",
    "look-alikes": "look-alikes",
    "disagree": "people disagree",
    "model": "model differs",
    "unsure": "unsure again",
    "skipped": "skipped again",
    "second": "second readings",
    "self": "my own again",
}
HELP = (
    "Smart: images that cover the whole set first, then those that the model doubts, and some at "
    "random, so that scores stay honest. Look-alikes: images like those of a rare class. What "
    "waits in your queue is nobody else's."
)
KEY, CLASS_KEY = "next", "like_class"
CHOSEN = "next_chosen"  # by a click on this page: that is remembered, an address is not


def choose_next(here: Here, classes: Sequence[ClassView], *, blind: bool) -> tuple[str, int | None]:
    """Draw the choice of the order, which lives in the address; return it, and whose look-alikes.

    Without one in the address it is the one that this person chose last in this browser.
    """
    names = {name: code for code, name in NAMES.items() if not (blind and code == "model")}
    kept = f"next_{here.annotator}"
    last = memory.recall(kept)
    if last in names and KEY not in st.query_params and not st.session_state.get(CHOSEN):
        st.session_state[KEY] = last
    st.markdown(":small[Next]", width="content")
    name = st.selectbox(
        "Next",
        list(names),  # as they are: the address holds what is shown
        key=KEY,
        bind="query-params",
        on_change=_chosen,
        label_visibility="collapsed",
        width=140,
        help=HELP,
    )
    strategy = names[name or NAMES["smart"]]
    chosen = here.annotator and st.session_state.get(CHOSEN)
    memory.keep(kept, str(name) if chosen else "")
    if strategy != "look-alikes":
        return strategy, None
    by_name = {c.name: c.id for c in classes}
    like = st.selectbox(
        "Class whose look-alikes come next",
        list(by_name),
        key=CLASS_KEY,
        bind="query-params",
        label_visibility="collapsed",
        width=140,
    )
    return strategy, by_name.get(like)


def draw(
    here: Here,
    project: ProjectView,
    classes: Sequence[ClassView],
    counts: Counts,
    as_of: int,
    chosen: ImageFilter,
    wish: tuple[str, int | None],
    *,
    blind: bool,
    mine: bool = False,
) -> None:
    """Draw the component, which asks the queue for its images itself; `mine`: own labels only."""
    labeller(
        key="labeller_one",
        mode="single",
        images=[],
        classes=classes,
        project_id=project.id,
        annotator=here.annotator,
        counts=counts,
        as_of=as_of,
        ask={
            "strategy": wish[0],
            "class_id": wish[1],
            "filter": asdict(chosen),
            "whose": "mine" if mine else "all",
        },
        whose="mine" if mine else "all",
        um_per_px=viewing.um_per_px(here.app.store, project_id=project.id),
        blind=blind,
        on_next=choose,
    )


def choose(strategy: str) -> None:
    """Have this order of images from now on; for callbacks alone."""
    if strategy in NAMES:
        st.session_state[KEY] = NAMES[strategy]
        _chosen()


def _chosen() -> None:
    st.session_state[CHOSEN] = True
