"""Suggestions on the Label page: how good they are, and accepting the sure ones together."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from cnsapp.domain.suggestions import FEW, THRESHOLDS
from cnsapp.errors import CnsError
from cnsapp.services import looks, suggestion_runs, suggestions
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.services.suggestion_runs import Run, Status
from cnsapp.services.suggestions import Offer
from cnsapp.ui import frame, words
from cnsapp.ui.components import Tile, gallery, thumb_url
from cnsapp.ui.frame import Here
from cnsapp.ui.labeller import BULK_STAMP
from cnsapp.ui.tables import Column, table

LOOK_SECONDS = 4  # between two looks whether new suggestions have come
SHOWN = 12  # of the least sure ones that would be accepted
OPEN, DONE = "suggestions_open", "suggestions_done"


def suggestion_button(here: Here, project: ProjectView, classes: list[ClassView]) -> None:
    """Draw the button with what is behind it, and draw the page anew when suggestions have come."""
    now = suggestion_runs.status(here.app.store, project_id=project.id)
    _wait_for_news(here, project, now)
    if done := st.session_state.pop(DONE, None):
        st.toast(done, icon=":material/check:")
    popover = st.popover(
        "Suggestions",  # another name would be another popover, and close this one
        icon=":material/wand_stars:",
        key=OPEN,
        on_change="rerun",
        help="What a quick model thinks of the images without a label, and how often it is right "
        "on labels it had not seen. A accepts one.",
    )
    with popover, st.container(width=460):
        _state(here, project, now)
        if st.session_state.get(OPEN) and now.run is not None and here.annotator:
            _accept(here, project, classes, now.run)


@st.fragment(run_every=LOOK_SECONDS)
def _wait_for_news(here: Here, project: ProjectView, drawn: Status) -> None:
    now = suggestion_runs.newest_run(here.app.store, project_id=project.id)
    if now is not None and (drawn.run is None or now.id != drawn.run.id):
        st.rerun(scope="app")


def _state(here: Here, project: ProjectView, now: Status) -> None:
    """Say how fresh and how good the suggestions are, and offer new ones."""
    st.markdown("\n\n".join(sentences(now)))
    if now.job_id is not None:
        frame.job_progress(now.job_id)
    elif not now.lacking:
        st.button(
            "Suggest again" if now.run else "Suggest now",
            key="suggest_again",
            on_click=_refresh,
            args=(here, project),
            help="They are made again by themselves; Settings says after how many labels.",
        )


def sentences(now: Status) -> list[str]:
    """Return what there is to say of a project's suggestions, in Markdown."""
    run = now.run
    if run is None:
        return [now.lacking or "Suggestions are made when the images' features are ready."]
    said = f"From {words.plural(run.n_labels, 'label')}, {words.ago(run.at)}."
    if now.n_since:
        more = "500 or more" if now.n_since >= 500 else f"{now.n_since:,}"
        said += f" {more} labelled since."
    figures = run.figures
    ends = figures.get("accuracy_interval")
    if figures.get("n_easy"):
        said += (
            f" {words.plural(figures['n_easy'], 'clear image')} of clusters taught it, and do not "
            "judge it: on these any model is right."
        )
    if figures.get("accuracy") is None or not ends:
        return [
            said,
            "How good they are cannot be said: no other label could be held out. Label some images "
            "one by one first, in the order *smart* or *random*.",
        ]
    parts = [
        said,
        f"**Right in about {figures['accuracy']:.0%}** of {words.plural(figures['n'], 'image')} "
        f"that were held out ({ends[0]:.0%} to {ends[1]:.0%}).",
    ]
    if figures["n"] < FEW:
        parts.append("So few images say little: label more one by one before you rely on it.")
    at_random = figures.get("at_random")
    if at_random and at_random.get("accuracy_interval"):
        ends = at_random["accuracy_interval"]
        parts.append(
            f"Of images that were picked at random: {at_random['accuracy']:.0%} "
            f"({ends[0]:.0%} to {ends[1]:.0%}, n = {at_random['n']:,}). The others were picked "
            "because they are hard, and make it look worse than it is."
        )
    if figures.get("n_groups") is None:
        parts.append("No groups are known: on images of new patients it may be worse.")
    return parts


def _refresh(here: Here, project: ProjectView) -> None:
    try:
        suggestion_runs.refresh(here.app.store, project_id=project.id, requested_by=here.annotator)
    except CnsError as error:
        frame.show_error(error)


def _accept(here: Here, project: ProjectView, classes: list[ClassView], run: Run) -> None:
    """Offer to accept all suggestions from a confidence on, with what is to be expected of it."""
    st.divider()
    st.markdown("**Accept the sure ones together**")
    by_id = {c.id: c for c in classes}
    threshold = st.select_slider(
        "From a confidence of",
        THRESHOLDS,
        value=st.session_state.get("suggest_threshold", 0.95),
        format_func=lambda share: f"{share:.0%}",
        key="suggest_threshold",
    )
    known = [c for c in run.class_ids if c in by_id]
    only = st.multiselect(
        "Of these classes",
        known,
        format_func=lambda i: by_id[i].name,
        placeholder="All classes",
        key="suggest_classes",
    )
    offered = suggestions.offer(
        here.app.store,
        project_id=project.id,
        threshold=threshold,
        class_ids=only or None,
    )
    st.markdown(expectation(offered, by_id))
    with st.expander("Compare confidences", expanded=not offered.image_ids):
        table([Column("From", number=True), Column("Without a label", number=True),
               Column("Wrong of held-out", number=True)], comparison(run))  # fmt: skip
    if not offered.image_ids:
        return
    st.button(
        f"Label {words.plural(len(offered.image_ids), 'image')} so",
        type="primary",
        key="suggest_accept",
        on_click=_go,
        args=(here, project, offered),
        help="Stored as accepted suggestions, told apart from your own labels; U takes them back.",
    )
    st.caption("The least sure ones among them:")
    items = looks.list_items(here.app.store, image_ids=offered.image_ids[:SHOWN])
    said = dict(zip(offered.image_ids, offered.classes, strict=True))
    gallery(
        [
            Tile(item.id, thumb_url(item.id, item.version), by_id[said[item.id]].name)
            for item in items
            if said[item.id] in by_id
        ],
        key="suggest_preview",
        side=64,
        row=True,
    )


def comparison(run: Run) -> list[tuple[str, str, str]]:
    """Return for each confidence how many images have it, and the held-out error, as HTML."""
    rows = []
    for row in run.figures.get("thresholds", []):
        wrong = words.NONE
        if row["interval"]:
            low, high = row["interval"]
            wrong = f"{row['error']:.0%} ({low:.0%} to {high:.0%}, n = {row['n']:,})"
        rows.append((f"{row['threshold']:.0%}", f"{row['n_open']:,}", wrong))
    return rows


def expectation(offered: Offer, by_id: Mapping[int, ClassView]) -> str:
    """Return how many images an offer labels, and how many of them wrongly, in Markdown."""
    n = len(offered.image_ids)
    if not n:
        return "No image without a label has a suggestion that sure."
    parts = ", ".join(
        f"{frame.plain(by_id[c].name)} {k:,}"
        for c, k in sorted(offered.per_class.items(), key=lambda pair: -pair[1])
        if c in by_id
    )
    said = f"**{words.plural(n, 'image')}**: {parts}.\n\n"
    if offered.interval is None or offered.expected is None:
        return said + "How many of them are wrong cannot be said: no held-out image was so sure."
    low, high = (round(share * n) for share in offered.interval)
    said += (
        f"About **{round(offered.expected):,}** of them will be wrong ({low:,} to {high:,}): of "
        f"{words.plural(offered.n, 'held-out image')} so sure"
        f"{', all picked at random' if offered.at_random else ''}, {offered.wrong:,} "
        f"{'was' if offered.wrong == 1 else 'were'} wrong."
    )
    if offered.n < FEW:
        said += " These are few: look through them first."
    return said


def _go(here: Here, project: ProjectView, offered: Offer) -> None:
    """Accept; the last thing that is stored before anything is drawn."""
    receipt = suggestions.accept(
        here.app.store, offered, project_id=project.id, annotator=here.annotator
    )
    st.session_state[DONE] = (
        f"{words.plural(receipt.stored, 'suggestion')} accepted. U takes them back."
    )
    st.session_state[BULK_STAMP] = receipt.action
    st.session_state[OPEN] = False
