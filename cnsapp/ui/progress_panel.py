"""The view “Progress” of the Label page: how far it is, how long the rest takes, what it brings."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cnsapp.services import label_settings, progress
from cnsapp.services.images import Counts
from cnsapp.services.people import Person
from cnsapp.services.progress import GroupCount, LearningCurve, Progress
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import words
from cnsapp.ui.frame import Here
from cnsapp.ui.progress_charts import curve_chart, days_chart
from cnsapp.ui.tables import Bar, bars, class_name, text

FEW_GROUPS = 12  # shown at once
CURVE_HELP = (
    "Every refresh of the suggestions is scored on labelled images that it had not learnt from. "
    "Images that the queue chose because they are hard make the scores lower than they are on all "
    "images; so read the shape of the curve, not its height."
)


def progress_view(
    here: Here, project: ProjectView, classes: list[ClassView], counts: Counts, as_of: int
) -> None:
    """Draw the view."""
    del counts, as_of  # the numbers come together, from one look at the database
    now = progress.progress(here.app.store, project_id=project.id, annotator=here.annotator)
    _headline(now, here.annotator)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("By class", anchor=False)
        _by_class(now, classes)
        st.subheader("By person", anchor=False)
        _by_person(now.people)
    with right:
        st.subheader("By group", anchor=False)
        if now.groups:
            _by_group(now.groups)
        else:
            st.caption("The images have no groups (patients, slides).")
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Labels a day", anchor=False)
        if now.days:
            days_chart(now.days)
            st.caption("Of labels that were not taken back; imports are left out.")
        else:
            st.caption("Nobody has labelled in the app yet.")
    with right:
        st.subheader("What more labels bring", anchor=False, help=CURVE_HELP)
        _curve(here, project, progress.learning_curve(here.app.store, project_id=project.id))


def _headline(now: Progress, who: str) -> None:
    share = now.labelled / now.images if now.images else 0.0
    rest = [f"{now.unsure:,} unsure", f"{now.skipped:,} skipped"]
    pace = words.number(now.pace.per_minute, 1)
    facts = [
        ("Labelled", f"{now.labelled:,} of {now.images:,}", f"{words.percent(share)}; "
         + ", ".join(rest)),
        ("Still to label", f"{now.readings_left:,}", "images" if now.readings_left ==
         now.images - now.labelled - now.unsure - now.skipped else "labels, for enough readers"),
        (f"Pace of {who}" if who else "Pace", f"{pace} a minute" if pace != words.NONE else pace,
         "latest 2,000 labels, pauses left out" if pace != words.NONE
         else "known after some ten labels in the app"),
        ("Time left", *_time_left(now, who)),
    ]  # fmt: skip
    for column, (name, figure, note) in zip(st.columns(4, gap="large"), facts, strict=True):
        with column:
            st.html(
                f'<div class="cns-small cns-muted">{text(name)}</div>'
                f'<div class="cns-big">{text(figure)}</div>'
                f'<div class="cns-sub">{text(note)}</div>'
            )


def _time_left(now: Progress, who: str) -> tuple[str, str]:
    if not now.readings_left:
        return "Done", "nothing is left to label"
    if not who:
        return words.NONE, "say who is labelling, in the sidebar"
    if now.left is None:
        return words.NONE, "not known yet"
    low, high = words.duration(now.left.low), words.duration(now.left.high)
    spread = f"{low} to {high} " if low != high else ""
    return (
        words.duration(now.left.seconds),
        f"{spread}of labelling alone, at this pace, without breaks",
    )


def _by_class(now: Progress, classes: Sequence[ClassView]) -> None:
    most = max([1, *now.per_class.values()])
    bars(
        [
            Bar(class_name(c), n / most, words.number(n), c.color)
            for c in classes
            for n in [now.per_class.get(c.id, 0)]
        ]
    )


def _by_person(people: Sequence[Person]) -> None:
    if not people:
        st.caption("Nobody has labelled yet.")
        return
    most = max(1, *(person.labelled for person in people))
    bars(
        [
            Bar(
                text(person.name) + (" (import)" if person.is_machine else ""),
                person.labelled / most,
                words.number(person.labelled),
            )
            for person in people
        ]
    )


def _by_group(groups: Sequence[GroupCount]) -> None:
    """Draw how much of each group is labelled, those with the most work left first."""
    all_of_them = len(groups) > FEW_GROUPS and st.toggle(
        f"All {len(groups):,} groups", key="progress_groups"
    )
    bars(
        [
            Bar(
                text(group.name) if group.name is not None else "no group",
                group.labelled / group.images,
                f"{group.labelled:,} of {group.images:,}",
            )
            for group in (groups if all_of_them else groups[:FEW_GROUPS])
        ]
    )


def _curve(here: Here, project: ProjectView, found: LearningCurve) -> None:
    if not found.points:
        every = label_settings.read_settings(here.app.store, project_id=project.id).suggest_every
        when = f"after every {every} labels" if every else "when you ask for them"
        with st.container(border=True, key="progress_no_curve"):
            st.markdown("**The learning curve begins with the first suggestions.**")
            st.write(
                f"A quick model learns from the labels {when}; each time it is scored, this curve "
                "gets a point."
            )
        return
    curve_chart(found)
    if found.forecast.labels:
        n, low, high = found.forecast.labels
        st.markdown(
            f"**About {n:,} more labels for one more percentage point** "
            f"({low:,} to {high:,}, 80 % range)."
        )
    else:
        st.markdown(f"**What more labels would bring cannot be told yet.** {found.forecast.reason}")
    if found.n_other:
        st.caption(
            f"{words.plural(found.n_other, 'older point')} left out: of other classes than today's."
        )
    newest = found.points[-1]
    if found.at_random:
        st.caption("Scored on those labelled images that the queue had drawn at random.")
    st.caption(
        f"Newest: {words.figure(newest.value, newest.interval)} from "
        f"{words.plural(newest.n_labels, 'label')}, {words.ago(newest.at)}."
    )
