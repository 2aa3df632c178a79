"""All figures of a model, section by section: chart, table, what it means, and the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cnsapp.services import evaluation
from cnsapp.services.evaluation import Evaluated, Part
from cnsapp.services.models import ModelView
from cnsapp.services.review import Truth
from cnsapp.services.split_uses import count_uses
from cnsapp.ui import frame, words
from cnsapp.ui.evaluation_sections import BY_NAME, SECTIONS
from cnsapp.ui.evaluation_words import about_interval
from cnsapp.ui.frame import Here

PARTS: dict[str, Part] = {"Held-out images": "fold", "Locked test set": "test"}
TRUTHS: dict[str, Truth] = {"Labels at training": "trained", "Labels of today": "current"}


def draw(here: Here, model: ModelView) -> None:
    """Draw the evaluation of a model; nothing is computed again while nothing changes."""
    with frame.guard(), st.container(key="evaluation"):
        parts = evaluation.parts_of(here.app.store, model_id=model.id)
        if not parts:
            st.caption(
                "This model has no predictions of images that it had not seen, so nothing can be "
                "said about how good it is. Label more images, or images of more groups, then "
                "train again."
            )
            return
        with st.container(horizontal=True, vertical_alignment="bottom", key="evaluation_top"):
            part = _part(parts)
            truth = _truth()
            section = st.segmented_control(
                "Figures", list(SECTIONS), key="evaluation_section", default="By class",
                required=True,
            )  # fmt: skip
        by = _column(here, model) if section == BY_NAME else None
        found = evaluation.evaluate_model(
            here.app.store, model.id, part, truth, by, who=here.annotator
        )
        if part == "test":
            _say_looks(here, model)
        _say_n(found)
        SECTIONS[section or "By class"](found)


def _part(parts: Sequence[Part]) -> Part:
    offered = [title for title, part in PARTS.items() if part in parts]
    if len(offered) < 2:
        return PARTS[offered[0]]
    chosen = st.segmented_control(
        "Images", offered, key="evaluation_part", default=offered[0], required=True,
        help="Looks at the locked test set are noted: each makes its score a little less worth.",
    )  # fmt: skip
    return PARTS[chosen or offered[0]]


def _truth() -> Truth:
    chosen = st.segmented_control(
        "Held against", list(TRUTHS), key="evaluation_truth", default="Labels at training",
        required=True,
        help="At training: the figures of the model. Of today: with the labels corrected since.",
    )  # fmt: skip
    return TRUTHS[chosen or "Labels at training"]


def _column(here: Here, model: ModelView) -> str:
    columns = evaluation.columns_of(here.app.store, project_id=model.project_id)
    titles = {column.name: column.title for column in columns}
    chosen = st.selectbox(
        "Look at figures by", list(titles), format_func=lambda name: titles[name],
        key="evaluation_by", width=320,
    )  # fmt: skip
    return str(chosen)


def _say_looks(here: Here, model: ModelView) -> None:
    if model.split_id is None:
        return
    n = count_uses(here.app.store, split_id=model.split_id)
    st.caption(
        f":material/lock: Locked test set, looked at {words.times(n)}. A score "
        "counts as unseen only while nothing was changed because of it."
    )


def _say_n(found: Evaluated) -> None:
    groups = found.scores.n_groups
    said = words.plural(found.scores.n, "image")
    if groups:
        said += f" from {words.plural(groups, 'group')}"
    parts = [f"{said}. {about_interval(found)}"]
    if found.n_elsewhere:
        parts.append(
            f"{words.plural(found.n_elsewhere, 'image')} left out: no label any more, or one that "
            "this model does not know."
        )
    if found.n_without:
        parts.append(
            f"{words.plural(found.n_without, 'answer')} came without probabilities and count only "
            "by class and in the confusion."
        )
    st.caption(" ".join(parts))
