"""Explain, what is asked for: classes, methods, their settings; and why other methods are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from cnsapp.domain.maps import DEFAULT_METHOD, POSITIVE, SIGNED, MapMethod, MapSetting, Offer
from cnsapp.services.explaining import LABEL, PREDICTED, Target
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ClassView
from cnsapp.ui import tables
from cnsapp.ui.tables import Column

SIDE_BY_SIDE = 4  # classes, and methods
MOST_PANELS = 8
OF_THE_IMAGE = {PREDICTED: "predicted class", LABEL: "its label"}
SHOWN = {"For the class": POSITIVE, "For and against": SIGNED}


@dataclass(frozen=True)
class Choices:
    """Which maps of any image are wanted; `settings` by method."""

    methods: list[str]
    wanted: list[Target]
    settings: dict[str, dict[str, Any]]
    checks: bool


def choose(model: ModelView, offers: list[Offer], classes: Mapping[int, ClassView]) -> Choices:
    """Draw the row above the maps, and return what is chosen in it."""
    known = {o.method.id: o.method for o in offers if not o.reason}
    with st.container(horizontal=True, vertical_alignment="bottom", key="explain_choices"):
        wanted = _classes(model, classes)
        methods = _methods(known)
        with st.popover("Settings", icon=":material/tune:", key="explain_settings"):
            settings, checks = _settings([known[m] for m in methods])
    return Choices(methods, wanted, settings, checks)


def _classes(model: ModelView, classes: Mapping[int, ClassView]) -> list[Target]:
    options: list[Target] = [PREDICTED, LABEL]
    options += [o.class_id for o in model.outputs if o.class_id in classes]

    def name(one: Target) -> str:
        return OF_THE_IMAGE[one] if isinstance(one, str) else classes[one].name

    chosen = st.multiselect(
        "Evidence for",
        options,
        default=[PREDICTED, LABEL],
        format_func=name,
        max_selections=SIDE_BY_SIDE,
        key=f"explain_targets_{model.id}",
        persist_state="session",
        help="Any class that the model knows, up to four side by side. Where the predicted class "
        "is the label, there is one map.",
    )
    return list(chosen) or [PREDICTED]


def _methods(known: Mapping[str, MapMethod]) -> list[str]:
    key = "explain_methods"
    if key in st.session_state:  # another model may not have them all
        st.session_state[key] = [m for m in st.session_state[key] if m in known]
    chosen = st.multiselect(
        "Method",
        list(known),
        default=[DEFAULT_METHOD] if key not in st.session_state else None,
        format_func=lambda m: known[m].title,
        max_selections=SIDE_BY_SIDE,
        key=key,
        persist_state="session",
        help="\n\n".join(f"**{m.title}.** {m.note}" for m in known.values()),
    )
    return list(chosen) or [DEFAULT_METHOD]


def _settings(methods: list[MapMethod]) -> tuple[dict[str, dict[str, Any]], bool]:
    """Draw what the chosen methods can be told, and whether maps are checked."""
    shown = SHOWN[
        st.segmented_control(
            "Shown",
            list(SHOWN),
            default="For the class",
            required=True,
            key="explain_show",
            persist_state="session",
            help="For and against is signed: two hues, pale at zero. SmoothGrad and the guided "
            "methods have no sign.",
        )
        or "For the class"
    ]
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        rows = [one for one in method.settings if one.name != "show"]
        found[method.id] = {"show": shown} if len(rows) < len(method.settings) else {}
        if rows:
            st.markdown(f"**{method.title}**")
        for one in rows:
            found[method.id][one.name] = _setting(method, one)
    checks = st.toggle(
        "Check each map against chance",
        value=True,
        key="explain_checks",
        persist_state="session",
        help="Insertion and deletion against random maps (about 130 passes of the network), and "
        "once for each model and method a comparison with random weights.",
    )
    return found, checks


def _setting(method: MapMethod, one: MapSetting) -> Any:
    key = f"explain_set_{method.id}_{one.name}"
    if one.choices:
        return st.selectbox(
            one.title,
            list(one.choices),
            index=one.choices.index(str(one.default)),
            key=key,
            persist_state="session",
            help=one.help,
        )
    kind = int if one.whole else float
    return st.number_input(
        one.title,
        min_value=kind(one.low),
        max_value=kind(one.high),
        value=kind(one.default),
        step=kind(1) if one.whole else 0.05,
        key=key,
        persist_state="session",
        help=f"{one.help} From {one.low:g} to {one.high:g}; {one.default:g} unless you change it.",
    )


def why_not(offers: list[Offer]) -> None:
    """List the methods that are not offered for the model, with the reason."""
    rows = [[tables.text(o.method.title), tables.text(o.reason)] for o in offers if o.reason]
    if rows:
        with st.expander("Why not the others", key="explain_why_not"):
            tables.table([Column("Method"), Column("Why it is not offered")], rows)
