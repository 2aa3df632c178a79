"""Readings again, on the view “People”: ask for them, see what is open, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import agreement, readings
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.services.readings import ReadingCount, Wanted
from cnsapp.ui import frame, one_by_one, words
from cnsapp.ui.frame import Here
from cnsapp.ui.tables import Column, table, text

ANYBODY = "Anybody who has not read it"
SECOND, SELF = "By somebody else", "By the same person"
EVENLY, AS_THEY_COME = "The same number of each class", "As they come"
WHAT_FOR = (
    "A second reading shows how far two people agree; one’s own images once more show how steadily "
    "one labels. The reader sees no label, tag or suggestion."
)


def readings_part(
    here: Here, project: ProjectView, classes: Sequence[ClassView], names: Sequence[str]
) -> None:
    """Draw the part; `names` are the people who have labelled."""
    st.subheader("Readings again", anchor=False)
    st.caption(WHAT_FOR)
    left, right = st.columns([6, 5], gap="large")
    with left:
        _ask(here, project, classes, names)
    with right:
        _asked(here, project)
        _came_of_it(here, project)


def _ask(
    here: Here, project: ProjectView, classes: Sequence[ClassView], names: Sequence[str]
) -> None:
    with st.container(border=True, key="readings_ask"):
        kind = st.segmented_control(
            "Read again", [SECOND, SELF], key="readings_kind", default=SECOND, required=True
        )
        if kind == SELF:
            by = st.selectbox("Whose images", list(names), key="readings_self", width=320)
        else:
            by = st.selectbox(
                "Who reads", [ANYBODY, *_others(here, names)], key="readings_by", width=320,
                accept_new_options=True,
                help="A name that is not in the list can be typed.",
            )  # fmt: skip
        share = st.slider(
            "Share of the images that can be asked for", 1, 100, 10, key="readings_share",
            format="%d %%", width=320,
        )  # fmt: skip
        how = st.radio("Drawn at random", [AS_THEY_COME, EVENLY], key="readings_how")
        wanted = Wanted(
            kind="self" if kind == SELF else "second",
            by=None if by in (None, ANYBODY) else str(by).strip(),
            share=(share or 1) / 100,
            evenly=how == EVENLY,
            seed=int(st.session_state.get("readings_seed", 0)),
        )
        ahead = readings.preview(here.app.store, project_id=project.id, wanted=wanted)
        by_id = {c.id: c.name for c in classes}
        if ahead.drawn:
            each = ", ".join(
                f"{by_id.get(c, '?')} {n:,}" for c, n in sorted(ahead.per_class.items())
            )
            st.caption(
                f"{words.plural(ahead.drawn, 'image')} of {ahead.possible:,}: {frame.plain(each)}."
            )
        else:
            st.caption("No labelled image can be asked for that is not asked for already.")
        number = f" for {words.plural(ahead.drawn, 'reading')}" if ahead.drawn else ""
        st.button(
            f"Ask{number}", type="primary", key="readings_go", disabled=not ahead.drawn,
            on_click=_go, args=(here, project, wanted),
        )  # fmt: skip
        if sentence := st.session_state.pop("readings_said", None):
            st.caption(sentence)


def _others(here: Here, names: Sequence[str]) -> list[str]:
    known = [name for name in names if name != "import"]
    return known if not here.annotator or here.annotator in known else [*known, here.annotator]


def _go(here: Here, project: ProjectView, wanted: Wanted) -> None:
    try:
        n = readings.ask(
            here.app.store, project_id=project.id, asked_by=here.annotator or "unnamed",
            wanted=wanted,
        )  # fmt: skip
    except CnsError as error:
        st.session_state["readings_said"] = frame.plain(str(error))
        return
    st.session_state["readings_seed"] = int(st.session_state.get("readings_seed", 0)) + 1
    where = "my own again" if wanted.kind == "self" else "second readings"
    st.session_state["readings_said"] = (
        f"Asked for {words.plural(n, 'reading')}. They wait under One by one, Next: {where}."
    )


def _asked(here: Here, project: ProjectView) -> None:
    found = readings.count_readings(here.app.store, project_id=project.id)
    if not found:
        st.caption("No reading is asked for.")
        return
    table(
        [Column("Readings"), Column("Reader"), Column("Open", True), Column("Done", True)],
        [
            [
                "Second" if one.kind == "second" else "Own again",
                text(one.wanted_from or "anybody"),
                words.number(one.open),
                words.number(one.done),
            ]
            for one in found
        ],
    )
    n = sum(one.open for one in found)
    with st.container(horizontal=True, gap="small"):
        if mine := _mine(found, here.annotator):
            st.button("Read them now", key="readings_read", on_click=_read, args=(mine,))
        if n:
            st.button(
                f"Withdraw {words.plural(n, 'open reading')}", key="readings_withdraw",
                type="tertiary", on_click=_withdraw, args=(here, project),
                help="What was answered stays.",
            )  # fmt: skip


def _mine(found: Sequence[ReadingCount], who: str) -> str:
    """Return the kind of readings that this person can give now; empty when there are none."""
    for one in found:
        if one.open and who and one.wanted_from in (None, who):
            return one.kind
    return ""


def _read(kind: str) -> None:
    st.session_state["view"] = "One by one"
    one_by_one.choose(kind)


def _withdraw(here: Here, project: ProjectView) -> None:
    readings.withdraw(here.app.store, project_id=project.id)


def _came_of_it(here: Here, project: ProjectView) -> None:
    """Draw how readings again compare with the first ones."""
    own = agreement.read_again(here.app.store, project_id=project.id, kind="self")
    others = agreement.read_again(here.app.store, project_id=project.id, kind="second")
    rows = [[text(one.first), "themselves", *_figures(one)] for one in own]
    rows += [[text(one.second), text(one.first), *_figures(one)] for one in others]
    if rows:
        table(
            [
                Column("Reader"), Column("Compared with"), Column("n", True),
                Column("Same class", True), Column("Kappa (95 % interval)", True),
            ],
            rows,
        )  # fmt: skip


def _figures(one: agreement.Again) -> list[Any]:
    if one.percent.value is None:
        few = f'<span title="{text(one.percent.reason)}">too few</span>'
        return [words.number(one.n), few, words.NONE]
    return [
        words.number(one.n),
        words.percent(one.percent.value),
        text(words.figure(one.kappa.value, one.kappa.interval)),
    ]
