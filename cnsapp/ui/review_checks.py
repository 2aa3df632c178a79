"""Review, the checks: what else may be wrong with the data, and the images behind each finding."""

from __future__ import annotations

from datetime import date

import streamlit as st

from cnsapp.domain.findings import Finding
from cnsapp.services import audit, label_settings
from cnsapp.services.audit import AuditView
from cnsapp.ui import frame, review_checks_finding, review_checks_words, words
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.tables import text

FINDING = "finding"  # in the address: "moment of the look-place", such as 1795912345-2
SINCE = "checks_since"
WHAT_FOR = "A look through the data asks five questions that no score answers."
QUESTIONS = (
    "**Look-alikes with different labels:** the same picture twice, under two names.",
    "**Groups that do worse:** a patient, slide, scanner or person on which the model fails.",
    "**Odd images:** no tissue, another organ, an artefact.",
    "**Shortcuts:** can the label be told from colour, border, file or scanner alone?",
    "**Drift:** are the images that came later of another kind?",
)
BLIND = (
    "This project is read blind: nobody sees what others called an image. The checks compare "
    "labels, so they would tell. They can be seen once blind reading is off (Label, People)."
)


def draw(asked: Reviewed) -> None:
    """Draw the state of the checks and what they found, or one finding with its images."""
    store, project = asked.here.app.store, asked.project
    if label_settings.read_settings(store, project_id=project.id).blind:
        st.info(BLIND)
        return
    view = audit.audit_view(store, project_id=project.id)
    number = asked_finding(view)
    listed = st.empty()  # a place of its own: the cards are gone at once when one is opened
    if number is not None:
        with st.container(key="check"):
            st.button("All checks", icon=":material/arrow_back:", key="check_back", on_click=close)
            review_checks_finding.draw(asked, view, number)
        return
    with listed.container(key="checks"):
        if view.made_at is None:
            _nothing_yet(asked, view)
            return
        _status(asked, view)
        _findings(view)
        review_checks_words.untold(view)
        review_checks_words.everything(view)


def asked_finding(view: AuditView) -> int | None:
    """Return the place of the finding that the address names; None where it is of another look."""
    look, dash, place = str(st.query_params.get(FINDING) or "").partition("-")
    if not dash or view.made_at is None or look != _look(view):
        return None
    number = int(place) if place.isascii() and place.isdigit() and len(place) < 6 else -1
    return number if 0 <= number < len(view.findings) else None


def close() -> None:
    """Go back to all findings."""
    st.query_params.pop(FINDING, None)


def _open(look: str, number: int) -> None:
    st.query_params[FINDING] = f"{look}-{number}"


def _look(view: AuditView) -> str:
    return "" if view.made_at is None else str(int(view.made_at.timestamp()))


def _nothing_yet(asked: Reviewed, view: AuditView) -> None:
    with st.container(border=True, key="checks_empty"):
        st.markdown(f"**{WHAT_FOR}**")
        st.markdown("\n".join(f"- {question}" for question in QUESTIONS))
        if view.job is not None and view.job.is_active:
            frame.job_progress(view.job.id)
            return
        if view.job is not None:
            frame.job_progress(view.job.id)  # says how the last one ended
        st.caption(
            "It reads what is there already, changes nothing, and takes a few seconds up to a few "
            "minutes in the background."
        )
        st.button(
            "Look through the data", type="primary", key="checks_start", on_click=_start,
            args=(asked,),
        )  # fmt: skip


def _status(asked: Reviewed, view: AuditView) -> None:
    """Say how old the findings are, and offer to look anew."""
    job = view.job
    running = job is not None and job.is_active
    with st.container(
        horizontal=True, vertical_alignment="center", border=view.is_stale, key="checks_status"
    ):
        with st.container(width="stretch", gap=None):
            if view.is_stale:
                st.markdown(
                    f":material/sync: **Out of date.** {frame.plain(' '.join(view.changed))}"
                )
            st.caption(
                f"Looked through {words.ago(view.made_at)}: {_counted(view)}.",
                help=words.exact(view.made_at),
            )
        if not running:
            _drift_since(view)
            st.button(
                "Look anew", icon=":material/refresh:", key="checks_again", on_click=_start,
                args=(asked,), type="primary" if view.is_stale else "secondary",
                help="Asks all questions again, of the data as they are now.",
            )  # fmt: skip
    if job is not None and (running or job.state != "done"):
        with st.container(border=running, key="checks_job"):
            frame.job_progress(job.id)
    if not asked.model.is_current:
        st.caption(
            ":material/info: The checks are of the project's data and its current model; the model "
            "chosen above plays no part in them."
        )


def _drift_since(view: AuditView) -> None:
    """Draw the choice of the day from which images count as new."""
    since = review_checks_words.since_of(view)
    now = "" if since is None else f" These findings count from {since:%Y-%m-%d %H:%M} UTC."
    with st.popover("New since…", key="checks_since_open"):
        st.date_input(
            "Images count as new from", value=None, max_value=date.today(), key=SINCE,
            format="YYYY-MM-DD", width=260,
        )  # fmt: skip
        st.caption(
            "For drift, images that came later are compared with those before. Empty: from the "
            f"training of the current model.{now} A day begins at 0:00 UTC. Press Look anew "
            "when you have chosen.",
            width=320,
        )


def _start(asked: Reviewed) -> None:
    since = st.session_state.get(SINCE)
    day = since.isoformat() if isinstance(since, date) else None
    with frame.guard():
        audit.queue_audit(
            asked.here.app.store,
            project_id=asked.project.id,
            requested_by=asked.here.annotator,
            since=day,
        )


def _counted(view: AuditView) -> str:
    if not view.findings:
        return "nothing was found"
    n = words.plural(len(view.findings), "finding")
    parts = [f"{view.counts[name]} {name}" for name in ("high", "medium", "low")
             if view.counts.get(name)]  # fmt: skip
    return f"{n} ({', '.join(parts)})"


def _findings(view: AuditView) -> None:
    if not view.findings:
        tried = len(view.checked)
        st.success(
            f"**Nothing stands out.** {words.plural(tried, 'test')} found nothing to look at."
            if tried
            else "**Nothing was found**, but nothing could be tested either: see below."
        )
        if tried:
            st.caption(
                "That does not prove that nothing is wrong: what the tests do not ask, or what too "
                "few images can show, stays unseen."
            )
        return
    for number, finding in enumerate(view.findings):
        _card(view, number, finding)


def _card(view: AuditView, number: int, finding: Finding) -> None:
    with st.container(border=True, key=f"check_{number}", gap="small"):
        what, act = st.columns([6, 1.25], vertical_alignment="top", gap="medium")
        with what:
            st.html(
                f"{review_checks_words.mark(finding)}"
                f'<div class="cns-check"><b>{text(finding.title)}</b><br>{text(finding.sentence)}'
                f'<div class="cns-muted cns-small">{text(finding.advice)}</div></div>'
            )
            review_checks_words.small_bars(finding)
        with act:
            st.button(
                review_checks_words.look_at(finding), key=f"check_open_{number}", width="stretch",
                on_click=_open, args=(_look(view), number), help="Opens the images behind it.",
            )  # fmt: skip
