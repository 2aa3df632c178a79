"""Explain, the maps: those that are wanted of one image, side by side, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from cnsapp.services import viewing
from cnsapp.services.images import ImageDetail
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ClassView
from cnsapp.ui import explain_view, explain_words, frame
from cnsapp.ui.components import view_url
from cnsapp.ui.explain_choices import MOST_PANELS, Choices
from cnsapp.ui.explain_overlay import Panel, overlay
from cnsapp.ui.explain_view import MapState, MapWish
from cnsapp.ui.frame import Here


@dataclass(frozen=True)
class Shown:
    """One map of the page."""

    wish: MapWish
    state: MapState


def ask(
    here: Here,
    model: ModelView,
    image: ImageDetail,
    targets: list[int | None],
    choices: Choices,
) -> list[Shown]:
    """Ask for the maps of an image, class by class; stop checks of those not looked at any more."""
    wishes = [
        MapWish(model.id, image.id, m, t, tuple(sorted(choices.settings.get(m, {}).items())))
        for t in targets
        for m in choices.methods
    ][:MOST_PANELS]
    explain_view.leave(here.app, wishes, requested_by=here.annotator)
    return [
        Shown(
            wish,
            explain_view.get_map(
                here.app, wish, checks=choices.checks, requested_by=here.annotator
            ),
        )
        for wish in wishes
    ]


def draw(
    here: Here,
    model: ModelView,
    image: ImageDetail,
    classes: Mapping[int, ClassView],
    shown: list[Shown],
    named: Mapping[str, int | None],
    n_wanted: int,
) -> None:
    """Draw the image with its maps side by side, and below what could not be made.

    Parameters
    ----------
    named
        Which class is the predicted one, and which the label, for the titles.
    n_wanted
        How many maps were asked for; only so many are shown.
    """
    close = viewing.closeup(here.app.store, image_id=image.id)
    overlay(
        key="explain_overlay",
        image_url=view_url(image.id, image.version),
        width=image.width,
        height=image.height,
        name=image.name,
        model=f"Model: {model.name} (number {model.id}, {model.backbone})",
        panels=[panel(one, classes, named) for one in shown],
        um_per_px=close.um_per_px,
    )
    if n_wanted > len(shown):
        st.caption(f"{len(shown)} of {n_wanted} maps are shown. Choose fewer classes or methods.")
    _failures(shown)


def panel(one: Shown, classes: Mapping[int, ClassView], named: Mapping[str, int | None]) -> Panel:
    """Return one map as the browser's part is given it."""
    state, wish = one.state, one.wish
    title = title_of(one, classes, named)
    settings = dict(wish.settings)
    if state.error:
        return explain_words.waiting(title, wish.method, settings, "Could not be made")
    if state.facts is None:
        return explain_words.waiting(title, wish.method, settings, "Being made…")
    checking = ""
    if state.check_error:
        checking = "The checks are not there: see below."
    elif state.job_id is not None:
        checking = "Being checked against random maps and random weights…"
    return explain_words.panel_of(title, state.key, state.facts, checking)


def title_of(one: Shown, classes: Mapping[int, ClassView], named: Mapping[str, int | None]) -> str:
    """Return for which class a map is, and whether that is what was predicted, or its label."""
    target, facts = one.wish.target_class, one.state.facts
    if target in classes:
        name = classes[target].name if target is not None else ""
    else:
        name = str(facts["class"]) if facts is not None else "the predicted class"
    roles = [role for role, class_id in named.items() if class_id == target is not None]
    return f"Evidence for {name}" + (f" ({' and '.join(roles)})" if roles else "")


def _failures(shown: list[Shown]) -> None:
    """Say what could not be made, each reason once, and offer to try again."""
    reasons: dict[tuple[str, str], list[int]] = {}
    for at, one in enumerate(shown):
        if one.state.error:
            reasons.setdefault(("The map could not be made.", one.state.error), []).append(at)
        elif one.state.check_error:
            what = "The map could not be checked."
            reasons.setdefault((what, one.state.check_error), []).append(at)
    for (what, why), places in reasons.items():
        st.error(f"**{what}**\n\n{frame.plain(why)}")
        st.button(
            "Try again",
            key=f"explain_again_{places[0]}",
            on_click=explain_view.try_again,
            args=([shown[at].wish for at in places],),
        )
