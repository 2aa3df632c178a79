"""What narrows the Review page: a button with filters behind it, and what is set, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from cnsapp.services import images, people
from cnsapp.services.filtering import ImageFilter
from cnsapp.services.review_filter import ReviewFilter
from cnsapp.services.review_levels import LevelName
from cnsapp.services.review_list import list_batches, list_review
from cnsapp.ui import words
from cnsapp.ui.filters import ANY_GROUP
from cnsapp.ui.more_filters import (
    ANY_VALUE,
    SOURCES,
    between,
    choose,
    is_set,
    labelled,
    meta_keys,
    one_of,
)
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.words import plain

LEVELS: dict[str, LevelName] = {"Classes": "classes", "Organ systems": "systems"}
CLASSES = next(iter(LEVELS))
WIDTH = 280
Added = tuple[datetime | None, datetime | None]


@dataclass(frozen=True)
class Set:
    """A filter that is set: what it says, and what its widgets hold when it is taken away."""

    said: str
    empty: Mapping[str, Any]


def choose_filters(asked: Reviewed, *, blind: bool) -> ReviewFilter:
    """Draw the row of filters, which live in the page's address, and return what they say.

    `blind`: nothing is offered that tells what others called an image.
    """
    with st.container(
        horizontal=True, vertical_alignment="center", gap="xsmall", key="review_narrow"
    ):
        level = _level(asked)
        found: list[Set] = []
        with st.popover("Filters", icon=":material/tune:", width="content"):
            group, text = _group_and_name(asked, found)
            added = _batch(asked, found)
            fold = _fold(asked, found)
            sure = _sure(found)
            rest = _labels_and_columns(asked, found, blind=blind)
        wanted = ReviewFilter(
            part=asked.part,
            truth=asked.truth,
            level=level,
            sure=sure,
            fold=fold,
            added=added,
            images=ImageFilter(group=group, text=text, **rest),
        )
        _chips(found)
        if found:
            _how_many(asked, wanted)
    return wanted


def _level(asked: Reviewed) -> LevelName:
    if not any(c.parent for c in asked.classes):
        return "classes"
    chosen = st.segmented_control(
        "Level",
        list(LEVELS),
        key="level",
        default=CLASSES,
        required=True,
        bind="query-params",
        label_visibility="collapsed",
        help="Of organ systems, an answer is right when its system is the label's.",
    )
    return LEVELS[chosen or CLASSES]


def _group_and_name(asked: Reviewed, found: list[Set]) -> tuple[str | None, str]:
    store, project_id = asked.here.app.store, asked.project.id
    group = None
    if names := images.group_names(store, project_id=project_id):
        group = choose("Group", [ANY_GROUP, *names], "group")
        if group == ANY_GROUP:
            group = None
        else:
            found.append(Set(f"Group {group}", {"group": ANY_GROUP}))
    text = st.text_input(
        "File name contains", key="find", bind="query-params", width=WIDTH
    ).strip()  # fmt: skip
    if text:
        found.append(Set(f"Name has “{text}”", {"find": ""}))
    return group, text


def _batch(asked: Reviewed, found: list[Set]) -> Added:
    batches = list_batches(asked.here.app.store, model_id=asked.model.id, part=asked.part)
    if len(batches) < 2:
        return None, None
    by_name = {f"{batch.first:%Y-%m-%d %H:%M} UTC": batch for batch in batches}
    name = choose("Imported", [ANY_VALUE, *by_name], "batch", help="The newest import first.")
    if name not in by_name:
        return None, None
    found.append(Set(f"Imported {name}", {"batch": ANY_VALUE}))
    return by_name[name].first, by_name[name].until


def _fold(asked: Reviewed, found: list[Set]) -> int | None:
    n = int(asked.model.metrics.get("n_folds") or 0) if asked.part == "fold" else 0
    if n < 2:
        return None
    folds = {f"Fold {k + 1}": k for k in range(n)}
    name = choose(
        "Fold", [ANY_VALUE, *folds], "fold", help="The fold that held an image out, and judged it."
    )
    if name in folds:
        found.append(Set(name, {"fold": ANY_VALUE}))
    return folds.get(name)


def _sure(found: list[Set]) -> tuple[float | None, float | None]:
    """Draw the ends of the probability of what was predicted."""
    left, right = st.columns(2, width=WIDTH)
    low, high = (
        place.number_input(
            label, 0.0, 1.0, value=None, step=0.05, placeholder=hint, key=key, bind="query-params"
        )
        for place, label, hint, key in (
            (left, "Confidence from", "0", "sure_from"),
            (right, "Confidence to", "1", "sure_to"),
        )
    )
    if low is not None or high is not None:
        ends = f"{low or 0:.2f} to {1 if high is None else high:.2f}"
        found.append(Set(f"Confidence {ends}", {"sure_from": None, "sure_to": None}))
    return low, high


def _labels_and_columns(asked: Reviewed, found: list[Set], *, blind: bool) -> dict[str, Any]:
    """Draw the filters on tags, on where labels come from, and on columns of metadata."""
    app, project_id = asked.here.app, asked.project.id
    tags = images.tag_names(app.store, project_id=project_id)
    who = [] if blind else people.list_annotators(app.store, project_id=project_id)
    rest = labelled(tags, who)
    source = next((name for name, kind in SOURCES.items() if kind == rest.get("source")), None)
    for said, value, key in (
        ("Tag", rest.get("tag"), "tag"),
        ("Labelled by", rest.get("annotator"), "by"),
        ("Label from:", source, "from"),
    ):
        if value:
            found.append(Set(f"{said} {value}", {key: ANY_VALUE}))
    meta: list[Any] = []
    for column in meta_keys(app, str(app.store.root), project_id):
        numbers = column.low is not None and column.high is not None
        wish = between(column) if numbers else one_of(column)
        meta += wish
        if wish and is_set(column):
            found.append(_of_column(column.name, wish[0], numbers=numbers))
    return {**rest, "meta": tuple(meta)}


def _of_column(name: str, wish: Any, *, numbers: bool) -> Set:
    if not numbers:
        return Set(f"{name}: {wish[1]}", {f"meta_{name}": ANY_VALUE})
    low, high = ("…" if end is None else f"{end:g}" for end in wish[1:])
    return Set(f"{name}: {low} to {high}", {f"meta_{name}_from": None, f"meta_{name}_to": None})


def _chips(found: list[Set]) -> None:
    """Draw what is set; a press takes it away."""
    for one in found:
        st.button(
            plain(one.said),
            icon=":material/close:",
            icon_position="right",
            key=f"drop_{next(iter(one.empty))}",
            help="Take this filter away",
            on_click=st.session_state.update,
            args=(one.empty,),
        )
    if len(found) > 1:
        every = {key: value for one in found for key, value in one.empty.items()}
        st.button(
            "Clear all",
            key="drop_all",
            type="tertiary",
            on_click=st.session_state.update,
            args=(every,),
        )


def _how_many(asked: Reviewed, wanted: ReviewFilter) -> None:
    store, every = asked.here.app.store, ReviewFilter(part=asked.part, truth=asked.truth)
    some, n = (
        list_review(store, model_id=asked.model.id, wanted=wish, limit=1).n
        for wish in (wanted, every)
    )
    st.caption(f"{some:,} of {words.plural(n, 'image')}", width="content")
