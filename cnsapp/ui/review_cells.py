"""Review, the matrix: where labels and predictions part, and the images of every cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cnsapp.services.models import ModelView
from cnsapp.services.review_filter import ReviewFilter
from cnsapp.services.review_matrix import ReviewMatrix, review_matrix
from cnsapp.ui import figures, frame, review_gallery, words
from cnsapp.ui.components import Cells, Place, follow, matrix
from cnsapp.ui.review_asked import SET_TRUTH, Reviewed
from cnsapp.ui.review_filters import choose_filters
from cnsapp.ui.review_gallery import Shown
from cnsapp.ui.review_place import as_place, asked_cell, take_cell, turn_to

SCORES = "review_scores"  # the part that is drawn again when labels were stored
CELLS: dict[str, Cells] = {
    "Counts": "counts",
    "% of label (recall)": "row",
    "% of prediction (precision)": "column",
}
COUNTS = next(iter(CELLS))
WIDE = 12  # a matrix of more classes takes the whole width
WALK = (
    "Choose a cell, a row or a column to see its images below. Arrow keys walk, Enter chooses, "
    "Enter once more goes to the images."
)


def draw(asked: Reviewed) -> None:
    """Draw the matrix with the score, and the gallery of the chosen cell below."""
    with frame.guard():
        blind = asked.blind
        wanted = choose_filters(asked, blind=blind)
        # few images in a matrix would tell which label each has
        counted = _all_of(wanted) if blind else wanted
        above = st.container()
        below = st.container(key="review_gallery")
        with below:
            shown = review_gallery.open_list(asked, wanted, blind=blind)
        with above:
            st.fragment(_follow, key=SCORES)(asked, counted, shown)
        with below:
            review_gallery.draw_images(shown)
    st.session_state.pop(SET_TRUTH, None)


def _all_of(wanted: ReviewFilter) -> ReviewFilter:
    return ReviewFilter(part=wanted.part, truth=wanted.truth, level=wanted.level)


def _follow(asked: Reviewed, wanted: ReviewFilter, shown: Shown) -> None:
    """Draw what follows the labels given below, without a run of the page: see `follow`."""
    with frame.guard():
        found = review_matrix(asked.here.app.store, model_id=asked.model.id, wanted=wanted)
        if found.n:
            _scores(asked, found, wanted)
        else:
            _nothing(asked, found, wanted)
        if not shown.asked.blind:  # what moves after one's own label tells what others had said
            follow(key="review_follow", project_id=asked.project.id)
            review_gallery.say_what_changed(shown)


def _scores(asked: Reviewed, found: ReviewMatrix, wanted: ReviewFilter) -> None:
    """Draw the score, the matrix that opens the gallery, and the figures of every class."""
    many = len(found.names) > WIDE
    left, right = (st.container(), st.container()) if many else _two_columns()
    with left:
        _matrix(asked, found)
    known = _stored(asked.model, found, wanted)
    with right:
        one, two = st.columns([5, 6], gap="large") if many else (right, right)
        with one:
            _headline(asked, found, known)
            _beside(asked, found)
            for warning in figures.warnings_of(asked.model):
                st.caption(f":material/info: {frame.plain(warning)}")
        with two:
            _per_class(found, known)


def _two_columns() -> Any:
    return st.columns([6, 5], gap="large")


def _nothing(asked: Reviewed, found: ReviewMatrix, wanted: ReviewFilter) -> None:
    """Say why there is no matrix."""
    if wanted != _all_of(wanted):
        st.info("No image that counts in the matrix comes through these filters.")
    else:
        st.info(
            "No image could be held out, or none of them has a label that this model knows: "
            "nothing can be said of how good it is."
        )
    _beside(asked, found)


def _matrix(asked: Reviewed, found: ReviewMatrix) -> None:
    chosen = st.segmented_control(
        "Cells",
        list(CELLS),
        key="cells",
        default=COUNTS,
        required=True,
        bind="query-params",
        label_visibility="collapsed",
    )
    matrix(
        key="review_matrix",
        names=found.names,
        counts=found.counts,
        selected=as_place(asked_cell(), found, asked.classes),
        on_choose=lambda place: _choose(place, found),
        show=CELLS[chosen or COUNTS],
    )
    st.caption(WALK)


def _choose(place: Place, found: ReviewMatrix) -> None:
    take_cell(place, found.ids)
    turn_to()
    st.rerun()  # the gallery too


def _stored(
    model: ModelView, found: ReviewMatrix, wanted: ReviewFilter
) -> Mapping[str, Any] | None:
    """Return the model's own figures where they are of these very images and labels."""
    if wanted != ReviewFilter(part=wanted.part):
        return None
    scores = model.metrics if wanted.part == "fold" else model.metrics.get("test") or {}
    score, ours = scores.get("balanced_accuracy"), found.balanced_accuracy
    same = score is not None and ours is not None and abs(score - ours) < 1e-9
    return scores if same and scores.get("n") == found.n else None


def _headline(asked: Reviewed, found: ReviewMatrix, known: Mapping[str, Any] | None) -> None:
    figures.headline(
        {
            "balanced_accuracy": found.balanced_accuracy,
            "balanced_accuracy_interval": (known or {}).get("balanced_accuracy_interval")
            or found.interval,
            "n": found.n,
        }
    )
    st.caption(how_scored(asked, found))


def how_scored(asked: Reviewed, found: ReviewMatrix) -> str:
    """Return the sentence that says which predictions the figures are made of."""
    if asked.part == "fold":
        known = {**asked.model.metrics, "n": found.n, "n_groups": found.n_groups}
        return figures.how_scored(known)
    groups = f" from {words.plural(found.n_groups, 'group')}" if found.n_groups else ""
    return (
        f"Predictions of {words.plural(found.n, 'image')}{groups} of the locked test set: no "
        "training and no choice has seen them."
    )


def _beside(asked: Reviewed, found: ReviewMatrix) -> None:
    """Say what is not in the figures, and which corrections they do not show."""
    if found.n_elsewhere:
        st.caption(
            f"{words.plural(found.n_elsewhere, 'image')} left out: no label any more, or one "
            "that this model does not know."
        )
    if found.n_changed and asked.truth == "trained" and not asked.blind:
        with st.container(
            horizontal=True, vertical_alignment="center", gap="small", key="review_corrected"
        ):
            said = words.plural(found.n_changed, "label was", "labels were")
            st.caption(f"{said} changed since the training; that does not show here.")
            st.button(
                "Count the labels of today", key="review_today", type="tertiary", on_click=_today
            )


def _today() -> None:
    # not the choice itself: what the browser knew of it a moment ago may come in between
    st.session_state[SET_TRUTH] = True
    st.rerun()


def _per_class(found: ReviewMatrix, known: Mapping[str, Any] | None) -> None:
    """Draw recall, precision and F1 of every row; intervals where the model has noted them."""
    noted = {row["class_id"]: row for row in (known or {}).get("per_class") or []}
    rows = []
    for k, (class_id, name) in enumerate(zip(found.ids, found.names, strict=True)):
        n, called = sum(found.counts[k]), sum(row[k] for row in found.counts)
        row = {
            "class_id": class_id,
            "name": name,
            "n": n,
            "recall": found.row_shares[k][k],
            "precision": found.column_shares[k][k],
            "f1": 2 * found.counts[k][k] / (n + called) if n else None,
        }
        at_training = noted.get(class_id, {})
        if at_training.get("n") == n:
            row["recall_interval"] = at_training.get("recall_interval")
            row["recall_interval_by"] = at_training.get("recall_interval_by", "image")
        rows.append(row)
    figures.per_class(rows, dict(zip(found.ids, found.colors, strict=True)))
