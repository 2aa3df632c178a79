"""The filters that few need, behind one button; in the page's address like the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.services import images, label_settings, metadata, models, people
from cnsapp.services.filtering import NOT_LEARNT, Meta
from cnsapp.services.metadata import MetaKey
from cnsapp.ui.words import plain

ANY_VALUE = "Any"
IN_USE = "In use"
STATUSES = {IN_USE: "ok", "Missing": "missing", "Changed": "changed", "Excluded": "excluded"}
SOURCES = {
    "One by one": "human",
    "Many at once": "bulk",
    "Accepted suggestions": "suggestion",
    "Review": "review",
    "Imports": "import",
    "Second readings": "second",
    "Repeated readings": "self",
    "Decided disputes": "adjudication",
}
# the keys of the choices below; one that is set is counted on the button
CHOICES = ("status", "tag", "by", "from", "split", "opinion")
RANGES = ("sure_from", "sure_to")
SWITCHES = ("disputed", "disagrees")


def more_filters(
    app: App,
    *,
    project_id: int,
    classes: Mapping[str, int],
    with_status: bool,
    with_opinions: bool,
) -> dict[str, Any]:
    """Draw the button with what is behind it; return the further parts of an `ImageFilter`."""
    keys = meta_keys(app, str(app.store.root), project_id)
    tags = images.tag_names(app.store, project_id=project_id)
    who = people.list_annotators(app.store, project_id=project_id)
    if not (keys or with_status or tags or len(who) > 1 or with_opinions):
        return {}
    n = _n_set(keys)
    found: dict[str, Any] = {}
    with st.popover(f"More ({n})" if n else "More", icon=":material/tune:", width="content"):
        if with_status:
            found["status"] = STATUSES[
                choose(
                    "Files",
                    list(STATUSES),
                    "status",
                    help="Missing and changed files are found by a check (view “Files”). They and "
                    "excluded images are not trained on; their labels are kept.",
                )
            ]
        found |= labelled(tags, who)
        if with_opinions:
            found |= _folds(app, project_id)
            found |= _opinions(app, project_id, classes)
        meta: list[Meta] = []
        for key in keys:
            meta += one_of(key) if key.low is None or key.high is None else between(key)
        found["meta"] = tuple(meta)
        if not keys:
            st.caption("Columns of a metadata table, such as stain or age, become filters here.")
    return found


def labelled(tags: list[str], who: list[str]) -> dict[str, Any]:
    """Draw the filters on tags and on where labels come from."""
    found: dict[str, Any] = {}
    if tags:
        tag = choose("Tag", [ANY_VALUE, *tags], "tag")
        found["tag"] = None if tag == ANY_VALUE else tag
    if who:
        name = choose("Labelled by", [ANY_VALUE, *who], "by")
        found["annotator"] = None if name == ANY_VALUE else name
        source = choose("Label from", [ANY_VALUE, *SOURCES], "from")
        found["source"] = SOURCES.get(source)
    return found


def _folds(app: App, project_id: int) -> dict[str, Any]:
    """Draw the filter on how the current model divided the images."""
    found = models.list_models(app.store, project_id=project_id)
    current = next((model for model in found if model.is_current), None)
    if current is None:
        return {}
    folds = {f"Fold {k + 1}": k for k in range(int(current.metrics.get("n_folds") or 0))}
    options = {**folds, "Not learnt from": NOT_LEARNT}
    name = choose(
        "Split",
        [ANY_VALUE, *options],
        "split",
        help=f"Of the current model, {plain(current.name)}: in which fold it held an image out, "
        "and which images it did not learn from.",
    )
    return {"fold": (current.id, options[name])} if name in options else {}


def _opinions(app: App, project_id: int, classes: Mapping[str, int]) -> dict[str, Any]:
    """Draw the filters on what people and the newest model think, unless that is to be hidden."""
    if label_settings.read_settings(app.store, project_id=project_id).blind:
        return {}
    found: dict[str, Any] = {
        "disputed": st.toggle("People disagree", key="disputed", bind="query-params")
    }
    if images.has_suggestions(app.store, project_id=project_id):
        name = choose("The model says", [ANY_VALUE, *classes], "opinion")
        found["opinion"] = classes.get(name)
        left, right = st.columns(2, width=280)
        low, high = (
            place.number_input(
                label, 0.0, 1.0, value=None, step=0.05, placeholder=hint, key=key,
                bind="query-params",
            )
            for place, label, hint, key in (
                (left, "Confidence from", "0", "sure_from"),
                (right, "Confidence to", "1", "sure_to"),
            )
        )  # fmt: skip
        found["confidence"] = (low, high)
        found["disagrees"] = st.toggle(
            "Model and label differ",
            key="disagrees",
            bind="query-params",
            help="Labelled images that the model, without having learnt from them, takes for "
            "another class.",
        )
    return found


def choose(label: str, options: list[str], key: str, help: str | None = None) -> str:
    chosen = st.selectbox(label, options, key=key, bind="query-params", help=help, width=280)
    return str(chosen or options[0])


def one_of(key: MetaKey) -> list[Meta]:
    """Draw the choice of a value."""
    value = choose(plain(key.name), [ANY_VALUE, *key.values], f"meta_{key.name}")
    return [] if value == ANY_VALUE else [(key.name, value)]


def between(key: MetaKey) -> list[Meta]:
    """Draw the ends of a range of numbers."""
    left, right = st.columns(2, width=280)
    low, high = (
        place.number_input(
            f"{plain(key.name)} {word}",
            value=None,
            placeholder=f"{bound:g}",
            key=f"meta_{key.name}_{word}",
            bind="query-params",
        )
        for place, word, bound in ((left, "from", key.low or 0.0), (right, "to", key.high or 0.0))
    )
    return [] if low is None and high is None else [(key.name, low, high)]


def _n_set(keys: list[MetaKey]) -> int:
    """Return how many of these filters are set."""
    state = st.session_state
    chosen = sum(state.get(key, ANY_VALUE) not in (None, ANY_VALUE, IN_USE) for key in CHOICES)
    ends = any(state.get(key) is not None for key in RANGES)
    return chosen + ends + sum(bool(state.get(key)) for key in SWITCHES) + sum(map(is_set, keys))


def is_set(key: MetaKey) -> bool:
    state = st.session_state
    if key.low is None:
        return state.get(f"meta_{key.name}", ANY_VALUE) not in (None, ANY_VALUE)
    ends = (state.get(f"meta_{key.name}_{word}") for word in ("from", "to"))
    return any(end is not None for end in ends)


@st.cache_data(ttl=20, show_spinner=False)
def meta_keys(_app: App, home: str, project_id: int) -> list[MetaKey]:
    del home  # tells installations apart
    return metadata.list_keys(_app.store, project_id=project_id)
