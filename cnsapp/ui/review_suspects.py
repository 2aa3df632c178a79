"""Review, the label errors: labels that are probably wrong, put right with one key each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from cnsapp.services import label_errors, looks
from cnsapp.services.label_errors import Summary, SuspectPage
from cnsapp.services.label_settings import is_blind
from cnsapp.services.projects import ClassView
from cnsapp.ui import frame, words
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_suspects_data import PAGE, page_data, summary_data

ANYWAY = "suspects_anyway"
KEYS = (
    "**A** takes the suggestion, **Space** keeps the label, a class key gives that class, **X** "
    "says unsure, **S** goes on without a decision, **U** takes the last decision back, **↑** and "
    "**↓** walk through the list."
)


def draw(asked: Reviewed) -> None:
    """Draw the figures, the list and the suspect in focus; or why there is no list."""
    store = asked.here.app.store
    if is_blind(store, project_id=asked.project.id):
        st.info(
            "Label errors are not shown in a project that is labelled blindly: each line of the "
            "list tells what somebody else called an image. When all have labelled, switch blind "
            "labelling off on the Label page."
        )
        return
    if asked.part == "test":
        st.caption(
            ":material/lock: The list is of the held-out folds alone: nobody looks for label "
            "errors in the locked test set, or its figures would be chosen by hand."
        )
    with st.spinner("Comparing every label with the held-out answers and the images most like it…"):
        found = label_errors.summary(store, model_id=asked.model.id)
    if found.doubt and not _wanted_anyway(found):
        return
    _offer_neighbours(asked, found)
    if found.n_listed:
        page = label_errors.list_suspects(store, model_id=asked.model.id, limit=PAGE)
        _list(asked, found, page)
    else:
        st.success(
            f"No label stands out: of {words.plural(found.n_judged, 'label')} compared, none is "
            "called something else by the folds that never saw it and the images most like it."
        )
    _how(found)


def _wanted_anyway(found: Summary) -> bool:
    """Say why the list is not worth working through; return whether it is wanted all the same."""
    with st.container(key="suspects_doubt"):
        st.warning(f"**This list is not worth working through.**\n\n{frame.plain(found.doubt)}")
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            if st.button("Go to Train", type="primary", key="suspects_train"):
                frame.go_to("pages/train.py")
            return st.toggle(
                "Show the list all the same", key=ANYWAY,
                help="The most suspicious labels are still the first ones to look at, but most of "
                "them will be right.",
            )  # fmt: skip


def _offer_neighbours(asked: Reviewed, found: Summary) -> None:
    """Offer to sort by looks where only the model was asked; show how far that is."""
    if found.has_neighbours:
        return
    store, project_id = asked.here.app.store, asked.project.id
    job_id = looks.status(store, project_id=project_id).job_id
    with st.container(border=True, key="suspects_neighbours"):
        if job_id is not None:
            st.markdown("**Sorting the images by looks.** The list is made again when it is done.")
            frame.job_progress(job_id)
            return
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.markdown(
                "**Only the model was asked so far.** Sorted by looks, the labelled images that "
                "look most like each one are asked too: the list gets better, and the number "
                "expected is no longer too high. It takes a minute or so; you can go on meanwhile.",
                width="stretch",
            )
            if st.button("Sort by looks", key="suspects_looks", icon=":material/scatter_plot:"):
                looks.queue_looks(store, project_id=project_id, requested_by=asked.here.annotator)
                st.rerun()


def _list(asked: Reviewed, found: Summary, page: SuspectPage) -> None:
    wish = _component()(
        key="suspects",
        data=browser_data(asked, found, page, asked.classes),
        on_open_change=lambda: None,
        on_train_change=lambda: None,
    )
    if wish.train is True:
        frame.go_to("pages/train.py")
    opened = wish.open
    if isinstance(opened, int) and not isinstance(opened, bool):
        frame.go_to("pages/explain.py", model=asked.model.id, image=opened)


def browser_data(
    asked: Reviewed, found: Summary, page: SuspectPage, classes: Sequence[ClassView]
) -> dict[str, Any]:
    """Return what the browser begins with; while `version` stays it goes on by itself."""
    store = asked.here.app.store
    shown = [{"id": c.id, "name": c.name, "color": c.color, "hotkey": c.hotkey} for c in classes]
    index = looks.status(store, project_id=asked.project.id).version
    return {
        "project": asked.project.id,
        "model": asked.model.id,
        "annotator": asked.here.annotator,
        "version": f"{asked.model.id}/{index}/{shown}",
        "classes": shown,
        "summary": summary_data(found),
        **page_data(asked.here.app, page, classes),
    }


def _how(found: Summary) -> None:
    with st.expander("Keys, how the list is made, and what it cannot see", key="suspects_how"):
        st.markdown(KEYS)
        st.markdown(
            "Each image was judged by a fold that never saw it, and by the labelled images of "
            "other groups that look most like it. The list begins with the labels that both speak "
            "against most; it keeps its order while you decide. Begin at the top and leave none "
            "out. A decision is a label like any other: it has your name and can be undone."
        )
        st.markdown(frame.plain(found.assumes))
        for note in found.notes:
            if note != found.doubt:
                st.markdown(f"- {frame.plain(note)}")


@cache
def _component() -> Any:
    folder = Path(__file__).parent
    parts = ("parts.js", "labeller/outbox.js", "suspects.js")
    return st.components.v2.component(
        "cnsapp_suspects",
        css=(folder / "suspects.css").read_text(encoding="utf-8"),
        js="\n".join((folder / part).read_text(encoding="utf-8") for part in parts),
    )
