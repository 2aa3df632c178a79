"""What changed in the labels since a model was trained, the images behind it, and what to do."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import images, labels
from cnsapp.services.label_changes import (
    LabelChange,
    LabelChanges,
    LabelState,
    changed_images,
    labels_since_model,
)
from cnsapp.services.retraining import RetrainHint, retrain_hint
from cnsapp.ui import frame, words
from cnsapp.ui.labeller import PAGE_SIZE, Badge
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_changes_gallery import draw_gallery, page_at, pager

Move = tuple[LabelState, LabelState]
WORTH = {
    "no": ":material/check_circle:",
    "maybe": ":material/info:",
    "yes": ":material/model_training:",
}


def draw_labels(asked: Reviewed) -> None:
    """Draw counts by kind, the hint whether to train again, and the images of each move."""
    store, model = asked.here.app.store, asked.model
    as_of = labels.high_water(store)
    with st.spinner("Comparing the labels of today with those the model was made from…"):
        found = labels_since_model(store, model_id=model.id)
        hint = retrain_hint(store, model_id=model.id)
    if not found.changes:
        st.info(
            "No label changed since this model was trained. Correct labels under “Label errors” or "
            "in the matrix, or label new images; what changed is listed here."
        )
        return
    _hint(hint)
    _counts(found)
    _images(asked, found, as_of)


def _hint(hint: RetrainHint) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="changes_hint"):
        st.markdown(f"{WORTH[hint.worth]} {frame.plain(hint.said)}", width="stretch")
        if st.button(
            "Go to Train", key="changes_train",
            type="primary" if hint.worth == "yes" else "secondary",
        ):  # fmt: skip
            frame.go_to("pages/train.py")


def _counts(found: LabelChanges) -> None:
    kinds = (
        ("Another class", found.n_changed, f"of {found.n_before:,} that had a label then"),
        ("Newly labelled", found.n_added, "had no label then"),
        ("No label any more", found.n_removed, "unsure, skipped, or taken back"),
        ("Otherwise", found.n_other, "without a label then and now"),
    )
    cells = "".join(
        f'<div><div class="cns-muted cns-small">{title}</div>'
        f'<div class="cns-big">{n:,}</div><div class="cns-sub">{under}</div></div>'
        for title, n, under in kinds
    )
    st.html('<div style="display:grid;grid-template-columns:repeat(4,1fr);gap:24px">'
            f"{cells}</div>")  # fmt: skip


def _images(asked: Reviewed, found: LabelChanges, as_of: int) -> None:
    """Draw the images of one move or one person, the newest act first."""
    moves: dict[Move, int] = {(before, after): n for before, after, n in found.moves}
    people = dict(found.by_person)
    with st.container(horizontal=True, vertical_alignment="bottom", key="moved_top"):
        move = st.selectbox(
            "From what to what", [None, *moves], key="changes_move", width=360,
            format_func=lambda m: title_of(m, moves, len(found.changes)),
        )  # fmt: skip
        who = None
        if len(people) > 1:
            who = st.selectbox(
                "Changed by", [None, *people], key="changes_who", width=220,
                format_func=lambda p: "Anybody" if p is None else f"{p}: {people[p]:,}",
            )  # fmt: skip
        place = st.container(horizontal=True, width="content")
    store = asked.here.app.store
    before, after = move or (None, None)
    rows = changed_images(
        store, found, before=before, after=after, who=who, limit=PAGE_SIZE + 1,
        behind=page_at("moved", f"{asked.model.id}/{move}/{who}"),
    )  # fmt: skip
    shown = rows[:PAGE_SIZE]
    pager("moved", place, shown[-1][0].event_id if len(rows) > PAGE_SIZE else None)
    draw_gallery(
        asked, key="changes_labels", items=[item for _, item in shown], as_of=as_of,
        counts=images.counts(store, project_id=asked.project.id),
        badges={change.image_id: badge(change) for change, _ in shown}, model=asked.model,
        empty="No image was changed so by this person.",
    )  # fmt: skip


def title_of(move: Move | None, moves: dict[Move, int], n: int) -> str:
    """Return a move as the choice shows it."""
    if move is None:
        return f"All changes: {n:,}"
    return f"{called(move[0])} → {called(move[1])}: {moves[move]:,}"


def called(state: LabelState) -> str:
    """Return what an image is called in that state."""
    return state.name or words.STATES.get(state.state) or "no label"


def badge(change: LabelChange) -> Badge:
    """Return what the image was called at the training, and who changed it."""
    return Badge(f"was {called(change.before)} · {change.who}", "changed")
