"""Review: how good the model is, where it is wrong, and the images behind every figure."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from cnsapp.services import models, projects, review
from cnsapp.services.label_settings import is_blind
from cnsapp.services.models import ModelView
from cnsapp.services.retraining import RetrainHint, retrain_hint
from cnsapp.services.review import Part, Truth
from cnsapp.ui import (
    frame,
    review_by_class,
    review_cells,
    review_changes,
    review_checks,
    review_suspects,
)
from cnsapp.ui.frame import Here
from cnsapp.ui.locked import may_look
from cnsapp.ui.pickers import MODEL, choose_model, number_in_address
from cnsapp.ui.reading_note import say_read_otherwise
from cnsapp.ui.review_asked import SET_TRUTH, TODAY, TRUTH, Reviewed

AT_TRAINING = "Labels at training"
TRUTHS: dict[str, Truth] = {AT_TRAINING: "trained", TODAY: "current"}
FOLDS = "Held-out folds"
PARTS: dict[str, Part] = {FOLDS: "fold", "Locked test set": "test"}
VIEW, ERRORS, CHANGED = "view", "Label errors", "What changed"
OF_TODAY = (ERRORS, CHANGED)  # go by the labels of today, whatever is chosen
VIEWS: dict[str, Callable[[Reviewed], None]] = {
    "Matrix": review_cells.draw,
    ERRORS: review_suspects.draw,
    "Checks": review_checks.draw,
    CHANGED: review_changes.draw,
    "By class": review_by_class.draw,
}


def main() -> None:
    """Draw the page."""
    here = frame.current()
    frame.page_header("Review", "Where the model is wrong. Correct a wrong label right here.")
    project = frame.need_project(here, "Review shows how a project's model does.")
    found = models.list_models(here.app.store, project_id=project.id, also=number_in_address(MODEL))
    if not found:
        frame.empty_state(
            "Review shows where a model is wrong, image by image.",
            "No model was trained in this project yet.",
            "pages/train.py",
            "Go to Train",
        )
    blind = is_blind(here.app.store, project_id=project.id)
    with st.container(horizontal=True, vertical_alignment="bottom", key="review_top"):
        model = choose_model(found, key="review_model")
        # a count that moves with one's own label tells what others had called the image
        truth = "trained" if blind else chosen_truth()
        part = choose_part(here, model)
    if part == "test" and not may_look(here, model, "Review"):
        return
    if view_now() != CHANGED and not blind:  # that view says it itself
        say_changed(retrain_hint(here.app.store, model_id=model.id))
    say_read_otherwise(here, model)
    classes = projects.list_classes(here.app.store, project_id=project.id)
    asked = Reviewed(here, project, model, classes, truth, part, blind)
    VIEWS[choose_view()](asked)


def view_now() -> str | None:
    """Return the view that is about to be drawn, above the choice of it."""
    return st.session_state.get(VIEW) or st.query_params.get(VIEW)


def choose_view() -> str:
    """Draw the choice of what is looked at, which lives in the address; return its name."""
    first = next(iter(VIEWS))
    chosen = st.segmented_control(
        "View",
        list(VIEWS),
        key=VIEW,
        default=first,
        required=True,
        bind="query-params",
        label_visibility="collapsed",
    )
    return chosen if chosen in VIEWS else first


def choose_part(here: Here, model: ModelView) -> Part:
    """Draw the choice between held-out folds and the locked test set, where there is one."""
    if review.test_split(here.app.store, model_id=model.id) is None:
        return "fold"
    chosen = st.segmented_control(
        "Images",
        list(PARTS),
        key="review_part",
        default=FOLDS,
        required=True,
        bind="query-params",
        help="Figures of the two are never mixed. Choose by the folds; publish the test set.",
    )
    return PARTS[chosen or FOLDS]


def chosen_truth() -> Truth:
    """Return which labels the predictions are held against, chosen where it makes a difference."""
    return truth_before() if view_now() in OF_TODAY else choose_truth()


def choose_truth() -> Truth:
    """Draw the choice of which labels the predictions are held against."""
    set_by_button = bool(st.session_state.get(SET_TRUTH))
    if set_by_button:
        st.session_state[TRUTH] = TODAY
    chosen = st.segmented_control(
        "Held against",
        list(TRUTHS),
        key=TRUTH,
        default=None if set_by_button else AT_TRAINING,
        required=True,
        bind="query-params",
        help="At training: the figures of the model. Of today: with the labels corrected since.",
    )
    return TRUTHS[chosen or AT_TRAINING]


def truth_before() -> Truth:
    """Return what was chosen before a view without the choice: it comes back with the next one."""
    return TRUTHS.get(st.session_state.get(TRUTH) or AT_TRAINING, "trained")


def say_changed(hint: RetrainHint) -> None:
    """Say in one line that the labels have moved on since this model, and whether to train."""
    if not hint.changes.total and not hint.unknown_classes:
        return
    head, _, rest = hint.said.partition(": ")
    with st.container(horizontal=True, vertical_alignment="center", key="review_changed"):
        st.caption(f":material/sync: **{head}:** {frame.plain(rest)}", width="content")
        if st.button(
            "Train again", key="review_retrain",
            type="secondary" if hint.worth == "yes" else "tertiary",
        ):  # fmt: skip
            frame.go_to("pages/train.py")


main()
