"""Review, the matrix: where labels and predictions part, and the images of every cell."""

from __future__ import annotations

import re

import streamlit as st

from cnsapp.services import images, labels, review, viewing
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ClassView
from cnsapp.services.review import Confusion, Only, Part, ReviewItem
from cnsapp.ui import figures, frame, words
from cnsapp.ui.components import Place, matrix
from cnsapp.ui.labeller import PAGE_SIZE, Badge, labeller
from cnsapp.ui.review_asked import Reviewed

CELL = "cell"  # in the address: "label class-predicted class", an empty side means all
ONLY: dict[str, Only] = {"All": "all", "Wrong": "wrong", "Label changed": "changed"}
FEW, FEW_HEIGHT = 10, 470  # a gallery of a few images needs no whole window
Cell = tuple[int | None, int | None]  # (label, prediction) as class ids


def draw(asked: Reviewed) -> None:
    """Draw the matrix with the score, and the gallery of the chosen cell below."""
    here, model, classes = asked.here, asked.model, asked.classes
    confusion = review.confusion(
        here.app.store, model_id=model.id, truth=asked.truth, part=asked.part
    )
    with frame.guard():
        score_and_matrix(model, confusion, classes, asked.part)
    wrong_ones(asked)


def how_scored(model: ModelView, found: Confusion, part: Part) -> str:
    """Return the sentence that says which predictions the figures are made of."""
    if part == "fold":
        return figures.how_scored({**model.metrics, "n": found.n})
    groups = f" from {words.plural(found.n_groups, 'group')}" if found.n_groups else ""
    return (
        f"Predictions of {words.plural(found.n, 'image')}{groups} of the locked test set: no "
        "training and no choice has seen them."
    )


def score_and_matrix(
    model: ModelView, found: Confusion, classes: list[ClassView], part: Part
) -> None:
    """Draw the score, the matrix that opens the gallery, and the figures of every class."""
    left, right = st.columns([6, 5], gap="large")
    with left:
        matrix(
            key="review_matrix",
            names=found.names,
            counts=found.counts,
            selected=as_places(asked_cell(), found.class_ids),
            on_choose=lambda place: take_cell(place, found.class_ids),
        )
        st.caption("Choose a cell, a row or a column to see its images below; arrow keys walk.")
    with right:
        figures.headline(
            {
                "balanced_accuracy": found.balanced_accuracy,
                "balanced_accuracy_interval": found.balanced_accuracy_interval,
                "n": found.n,
            }
        )
        st.caption(how_scored(model, found, part))
        if found.n_elsewhere:
            st.caption(
                f"{words.plural(found.n_elsewhere, 'image')} left out: no label any more, or one "
                "that this model does not know."
            )
        colors = {c.id: c.color for c in classes}
        figures.per_class(found.per_class, colors)
    for warning in figures.warnings_of(model):
        st.caption(f":material/info: {frame.plain(warning)}")


def wrong_ones(asked: Reviewed) -> None:
    """Draw the gallery of the chosen cell, most confidently wrong first."""
    here, project, model, classes = asked.here, asked.project, asked.model, asked.classes
    with st.container(key="review_gallery"):
        cell = asked_cell()
        by_id = review.class_names(here.app.store, model_id=model.id)
        with st.container(horizontal=True, vertical_alignment="center", key="review_filters"):
            st.subheader(frame.plain(title_of(cell, by_id)), anchor=False, width="content")
            if cell is not None and st.button(
                "All wrong ones", key="review_all", type="tertiary", icon=":material/close:"
            ):
                st.query_params.pop(CELL, None)
                st.rerun()
            chosen = st.segmented_control(
                "Show",
                list(ONLY),
                key="review_only" if cell else "review_only_wrong",
                default="All" if cell else "Wrong",
                required=True,
                label_visibility="collapsed",
            )
            pager = st.container(horizontal=True, width="content")
        as_of = labels.high_water(here.app.store)
        counts = images.counts(here.app.store, project_id=project.id)
        only = ONLY[chosen or "All"]
        items = turn_pages(asked, cell, only, pager)
        answer = labeller(
            key="review_labeller",
            mode="review",
            images=items,
            classes=classes,
            project_id=project.id,
            annotator=here.annotator,
            counts=counts,
            as_of=as_of,
            badges={item.id: badge(item, by_id) for item in items},
            empty=nothing_here(cell, only),
            height=FEW_HEIGHT if len(items) <= FEW else None,
            um_per_px=viewing.um_per_px(here.app.store, project_id=project.id),
        )
    if answer.opened is not None:
        frame.go_to("pages/explain.py", model=model.id, image=answer.opened)


def turn_pages(
    asked: Reviewed,
    cell: Cell | None,
    only: Only,
    place: st.delta_generator.DeltaGenerator,
) -> list[ReviewItem]:
    """Return the images of the page that the pager is at; draw the pager where one is needed."""
    model, truth, part = asked.model, asked.truth, asked.part
    sign = f"{model.id}/{cell}/{only}/{truth}/{part}"
    if st.session_state.get("review_sign") != sign:
        st.session_state["review_sign"] = sign
        st.session_state["review_trail"] = [None]
    trail: list[tuple[float, int] | None] = st.session_state["review_trail"]
    label, predicted = cell or (None, None)
    items = review.cell_images(
        asked.here.app.store,
        model_id=model.id,
        true_class=label,
        predicted_class=predicted,
        only=only,
        after=trail[-1],
        limit=PAGE_SIZE + 1,
        truth=truth,
        part=part,
    )
    more = len(items) > PAGE_SIZE
    items = items[:PAGE_SIZE]
    if more or len(trail) > 1:
        with place:
            back = trail[:-1] or [None]
            ahead = [*trail, items[-1].cursor] if more else trail
            for name, icon, key, to, off in (
                ("Previous", "chevron_left", "review_previous", back, len(trail) == 1),
                ("Next", "chevron_right", "review_next", ahead, not more),
            ):
                st.button(
                    name,
                    icon=f":material/{icon}:",
                    key=key,
                    disabled=off,
                    on_click=st.session_state.__setitem__,
                    args=("review_trail", to),
                )
    return items


def badge(item: ReviewItem, names: dict[int, str]) -> Badge:
    """Return what the model said of an image, and how sure it was."""
    said = f"{names.get(item.predicted_class_id, 'another class')} {item.confidence:.2f}"
    if item.changed:
        return Badge(said, "changed")
    return Badge(said, "plain" if item.predicted_class_id == item.label_then else "wrong")


def title_of(cell: Cell | None, names: dict[int, str]) -> str:
    """Return what the gallery shows, in words."""
    if cell is None:
        return "Images, most confident predictions first"
    label, predicted = cell
    if label is None:
        return f"Predicted as {names.get(predicted or 0, 'another class')}"
    if predicted is None:
        return f"Labelled {names.get(label, 'another class')}"
    return f"Labelled {names.get(label, '?')}, predicted as {names.get(predicted, '?')}"


def nothing_here(cell: Cell | None, only: Only) -> str:
    """Return what an empty gallery means."""
    if only == "changed":
        return "No label of these images was changed since the model was trained."
    if cell is None and only == "wrong":
        return "The model agrees with every label. Look at the All tab, or predict new images."
    return "No image is in this cell."


def asked_cell() -> Cell | None:
    """Return the cell that the address names."""
    label, dash, predicted = str(st.query_params.get(CELL) or "").partition("-")
    if not dash or not all(re.fullmatch("[0-9]{0,15}", part) for part in (label, predicted)):
        return None
    cell = (int(label) if label else None, int(predicted) if predicted else None)
    return None if cell == (None, None) else cell


def take_cell(places: Place, class_ids: list[int]) -> None:
    """Put a cell of the matrix into the address."""
    parts = ["" if at is None else str(class_ids[at]) for at in places]
    st.query_params[CELL] = "-".join(parts)


def as_places(cell: Cell | None, class_ids: list[int]) -> Place | None:
    """Return a cell as the places of its row and column in the matrix."""
    if cell is None or any(i is not None and i not in class_ids for i in cell):
        return None
    label, predicted = (None if i is None else class_ids.index(i) for i in cell)
    return label, predicted
