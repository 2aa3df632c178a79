"""The view “People” of the Label page: who labels, how far they agree, and where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from cnsapp.domain.agreement import Figure
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.services import agreement, label_settings, people, viewing
from cnsapp.services.agreement import Agreement, PairDetail, PairFigures
from cnsapp.services.images import Counts
from cnsapp.services.people import Person
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import frame, words
from cnsapp.ui.components import Place, matrix
from cnsapp.ui.frame import Here
from cnsapp.ui.labeller import PAGE_SIZE, Badge, labeller
from cnsapp.ui.readings_panel import readings_part
from cnsapp.ui.tables import Column, swatch, table, text, when

PAIR, CELL, BASIS = "pair", "people_cell", "people_basis"
ALL, SECOND = "All images in common", "Second readings only"
BASIS_HELP = (
    "Second readings are blind. A label that was given with another one in sight, such as a "
    "correction, is no independent opinion, so figures from all images can be too high or too low."
)
KAPPA_HELP = (
    "Agreement beyond chance: 1 is full agreement, 0 what chance alone would give. The interval "
    "(95 %) comes from drawing images, or whole groups where there are some, again and again."
)
# Landis & Koch, Biometrics 1977: the lower end of each word
WORDS = (
    (0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"),
    (0.0, "slight"),
)  # fmt: skip


@dataclass(frozen=True)
class _Place:
    here: Here
    project: ProjectView
    classes: list[ClassView]
    counts: Counts
    as_of: int
    blind: bool  # nobody sees what others said while labelling


def people_view(
    here: Here, project: ProjectView, classes: list[ClassView], counts: Counts, as_of: int
) -> None:
    """Draw the view."""
    settings = label_settings.read_settings(here.app.store, project_id=project.id)
    place = _Place(here, project, classes, counts, as_of, settings.blind)
    found = people.list_people(here.app.store, project_id=project.id)
    if not found:
        with st.container(border=True, key="people_empty"):
            st.markdown("**Here you see who labels, and how far people agree.**")
            st.write("Nobody has labelled in this project yet. Label some images first.")
        return
    only_second = _basis() if len(found) > 1 else False
    all_together = agreement.agreement(
        here.app.store, project_id=project.id, only_second=only_second
    )
    left, right = st.columns([6, 5], gap="large")
    with left:
        _people(found)
        _rule(settings.rule)
    with right:
        _agreement(all_together, classes, alone=len(found) == 1)
    if all_together.pairs:
        _pair(place, all_together, only_second)
    readings_part(here, project, classes, [person.name for person in found])


def _basis() -> bool:
    chosen = st.segmented_control(
        "Agreement on", [ALL, SECOND], key=BASIS, default=ALL, required=True,
        bind="query-params", help=BASIS_HELP,
    )  # fmt: skip
    return chosen == SECOND


def _people(found: Sequence[Person]) -> None:
    st.subheader("People", anchor=False)
    table(
        [
            Column("Name"),
            Column("Labels", number=True, help="Images that this person gives a class now"),
            Column("Unsure", number=True),
            Column(
                "Labels a minute", number=True,
                help="Of the latest 2,000 labels; pauses above two minutes are not counted",
            ),
            Column("Last active", number=True),
        ],
        [
            [
                text(person.name) + (" (import)" if person.is_machine else ""),
                words.number(person.labelled),
                words.number(person.unsure),
                words.number(person.pace.per_minute, 1),
                when(person.last_at),
            ]
            for person in found
        ],
    )  # fmt: skip


def _rule(rule: ConsensusRule) -> None:
    said = "the latest label counts"
    if rule.kind == "majority":
        said = f"a majority of {rule.readers} readers decides"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(f"Several people on one image: {said}.", width="content")
        if st.button("Change in Settings", key="people_rule", type="tertiary"):
            frame.go_to("pages/settings.py")


def _agreement(found: Agreement, classes: Sequence[ClassView], *, alone: bool) -> None:
    st.subheader("Agreement", anchor=False)
    if not found.pairs:
        with st.container(border=True, key="people_alone"):
            if alone:
                st.markdown("**One person has labelled so far.**")
                st.write(
                    "Ask below for second readings. Then choose another name under *Labelling as* "
                    "in the sidebar, and read the images again: One by one, Next: second readings."
                )
            else:
                st.markdown("**No image was read by two people.**")
                st.write(
                    "Ask for second readings below: they show how far people agree, and where not."
                )
        return
    st.html(
        f'<div class="cns-headline"><div class="cns-small cns-muted" title="{text(KAPPA_HELP)}">'
        f"Agreement of all, beyond chance (Fleiss’s kappa)</div>{_large(found.fleiss)}</div>"
    )
    by_id = {c.id: c for c in classes}
    rows = [
        [swatch(by_id[c].color) + text(by_id[c].name), _kappa(figure)]
        for c, figure in found.per_class.items()
        if c in by_id
    ]
    if any(figure.value is not None for figure in found.per_class.values()):
        table([Column("Class"), Column("Kappa, class against the others", number=True)], rows)


def _large(figure: Figure) -> str:
    if figure.value is None:
        return f'<div class="cns-small">{text(figure.reason)}</div>'
    spread = words.interval(figure.interval)
    rest = [f"95 % interval {spread}" if spread else "", f"n = {figure.n:,} images"]
    return (
        f'<div class="cns-figure" title="{text(in_words(figure.value))}">'
        f'{words.score(figure.value)}</div><div class="cns-small cns-muted">'
        f"{text(', '.join(part for part in rest if part))}</div>"
    )


def _kappa(figure: Figure) -> str:
    if figure.value is None:
        return f'<span title="{text(figure.reason)}">{words.NONE}</span>'
    said = words.figure(figure.value, figure.interval)
    return f'<span title="{text(in_words(figure.value))}">{text(said)}</span>'


def in_words(kappa: float) -> str:
    """Return what a kappa is often called; a habit of the literature, not a finding."""
    name = next((word for low, word in WORDS if kappa > low), "poor")
    return f"{name} (Landis & Koch 1977)"


def _pair(place: _Place, found: Agreement, only_second: bool) -> None:
    """Draw the pairs, the confusion of the chosen two, and the images of a cell."""
    pairs = {f"{pair.first} and {pair.second}": pair for pair in found.pairs}
    st.subheader("Two people", anchor=False)
    if len(pairs) > 1:
        _pairs(found.pairs)
    name = st.selectbox(
        "Two people", list(pairs), key=PAIR, bind="query-params", width=320,
        label_visibility="collapsed",
    )  # fmt: skip
    pair = pairs.get(str(name)) or found.pairs[0]
    detail = agreement.pair(
        place.here.app.store, project_id=place.project.id, first=pair.first, second=pair.second,
        only_second=only_second,
    )  # fmt: skip
    by_id = {c.id: c for c in place.classes}
    names = [by_id[c].name if c in by_id else "?" for c in detail.class_ids]
    left, right = st.columns([6, 5], gap="large")
    with left:
        st.caption(
            f"Rows: what {frame.plain(pair.first)} said. Columns: what {frame.plain(pair.second)} "
            "said. Choose a cell to see its images."
        )
        matrix(
            key="people_matrix", names=names, counts=detail.counts,
            selected=_chosen(pair, detail), on_choose=lambda at: _choose(pair, detail, at),
            titles=(pair.first, pair.second),
        )  # fmt: skip
    with right:
        _pair_figures(pair, detail, by_id)
    _images(place, pair, detail, names, only_second)


def _pairs(pairs: Sequence[PairFigures]) -> None:
    table(
        [
            Column("Pair"),
            Column("n", number=True, help="Images that both read"),
            Column("Same class", number=True),
            Column("Kappa (95 % interval)", number=True, help=KAPPA_HELP),
        ],
        [
            [
                f"{text(pair.first)} and {text(pair.second)}",
                words.number(pair.n),
                words.percent(pair.percent.value),
                _kappa(pair.kappa),
            ]
            for pair in pairs
        ],
    )


def _pair_figures(pair: PairFigures, detail: PairDetail, by_id: dict[int, ClassView]) -> None:
    st.html(
        f'<div class="cns-headline"><div class="cns-small cns-muted" title="{text(KAPPA_HELP)}">'
        f"Agreement beyond chance (Cohen’s kappa)</div>{_large(pair.kappa)}</div>"
    )
    if pair.kappa.value is None and pair.percent.value is None:
        return
    st.caption(f"The same class on {words.percent(pair.percent.value)} of {pair.n:,} images.")
    table(
        [Column("Class"), Column("Kappa, class against the others", number=True)],
        [
            [swatch(by_id[c].color) + text(by_id[c].name), _kappa(figure)]
            for c, figure in detail.per_class.items()
            if c in by_id
        ],
    )


def _images(
    place: _Place, pair: PairFigures, detail: PairDetail, names: Sequence[str], only_second: bool
) -> None:
    """Draw the images of the chosen cell; where none is chosen, those on which the two part."""
    chosen = _chosen(pair, detail)
    row, column = chosen or (None, None)
    found, n = agreement.parted(
        place.here.app.store, project_id=place.project.id, first=pair.first, second=pair.second,
        first_class=None if row is None else detail.class_ids[row],
        second_class=None if column is None else detail.class_ids[column],
        only_second=only_second, apart=chosen is None, limit=PAGE_SIZE,
    )  # fmt: skip
    with st.container(key="people_gallery"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{frame.plain(_title(pair, names, chosen))}**", width="content")
            more = f", the first {PAGE_SIZE} shown" if n > PAGE_SIZE else ""
            st.caption(f"{words.plural(n, 'image')}{more}", width="content")
            if chosen is not None and st.button(
                "All they part on", key="people_all", type="tertiary", icon=":material/close:"
            ):
                st.session_state.pop(CELL, None)
                st.rerun()
            settles = st.toggle(
                "Settle disputes", key="people_settle",
                help="A label that you give now decides what the image is called, whatever the "
                "others said. What they said is kept, and still counts for the agreement.",
            )  # fmt: skip
        if place.blind and not settles:
            st.caption(
                "This project labels blindly. Whoever settles disputes sees the images and what "
                "others said: turn that on to go on."
            )
            return
        by_id = {c.id: c.name for c in place.classes}
        labeller(
            key="people_labeller",
            images=[one.item for one in found],
            classes=place.classes,
            project_id=place.project.id,
            annotator=place.here.annotator,
            counts=place.counts,
            as_of=place.as_of,
            badges={
                one.item.id: Badge(
                    f"{by_id.get(one.first, '?')} · {by_id.get(one.second, '?')}",
                    "plain" if one.first == one.second else "wrong",
                )
                for one in found
            },
            empty="They called every one of these images the same."
            if chosen is None
            else "No image is in this cell.",
            height=470 if len(found) <= 10 else 640,
            um_per_px=viewing.um_per_px(place.here.app.store, project_id=place.project.id),
            source="adjudication" if settles else None,
        )


def _title(pair: PairFigures, names: Sequence[str], chosen: Place | None) -> str:
    if chosen is None:
        return f"Images on which {pair.first} and {pair.second} part"
    row, column = chosen
    parts = [
        f"{who}: {names[at]}"
        for who, at in ((pair.first, row), (pair.second, column))
        if at is not None
    ]
    return ", ".join(parts)


def _choose(pair: PairFigures, detail: PairDetail, at: Place) -> None:
    ids = [None if k is None else detail.class_ids[k] for k in at]
    st.session_state[CELL] = (pair.first, pair.second, *ids)


def _chosen(pair: PairFigures, detail: PairDetail) -> Place | None:
    """Return the chosen cell, while it is one of these two people and of classes they used."""
    kept = st.session_state.get(CELL)
    if not kept or kept[:2] != (pair.first, pair.second):
        return None
    if any(c is not None and c not in detail.class_ids for c in kept[2:]):
        return None
    row, column = (None if c is None else detail.class_ids.index(c) for c in kept[2:])
    return row, column
