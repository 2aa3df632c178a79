"""Find the best: what to try and for how long, the trials as they come, and what came of it."""

from __future__ import annotations

import streamlit as st

from cnsapp.domain.search import Candidate
from cnsapp.errors import InvalidInputError
from cnsapp.services import searching
from cnsapp.services.projects import ProjectView
from cnsapp.services.searching import NO_TIME, TRIED, SearchView, Trial
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.job_view import job_bar, show_outcome
from cnsapp.ui.tables import Column, table, text

PRESETS = ("quick", "full", "best")


def draw(here: Here, project: ProjectView) -> None:
    """Draw the search that goes, or the choice of a new one and what came of the last."""
    newest = searching.latest_search(here.app.store, project_id=project.id)
    if newest is not None and newest.job.is_active:
        with st.container(border=True, key="search_running"):
            st.fragment(_live, run_every=1.0, key="search_live")(here, newest.job.id)
        return
    with st.container(border=True, key="search_start_card"):
        _new(here, project)
    if newest is not None:
        _result(newest)


def _new(here: Here, project: ProjectView) -> None:
    st.write(
        "Tries networks and presets on the same folds of your labelled images, never on the locked "
        "test set: all of them on a little first, the better half on more. Of two that are as "
        "good, the simpler one is kept."
    )
    at_hand = {facts.id: facts for facts in searching.backbones_at_hand(here.app)}
    with st.container(horizontal=True, vertical_alignment="bottom", key="search_choices"):
        chosen = st.multiselect(
            "Backbones",
            list(at_hand),
            default=list(at_hand),
            format_func=lambda i: at_hand[i].title.partition(" (")[0],
            key="search_backbones",
            help="Those whose weights are on this computer.",
            width=460,
        )
        presets = st.pills(
            "Presets", PRESETS, selection_mode="multi", default=["quick", "full"],
            key="search_presets",
            help="quick: a head on fixed features. full and best: the network itself is trained.",
        )  # fmt: skip
        minutes = st.number_input(
            "Minutes", min_value=1, max_value=int(searching.MOST_MINUTES), value=30, step=10,
            key="search_minutes", width=130,
        )  # fmt: skip
    try:
        candidates = searching.candidates_of(here.app, backbones=chosen, presets=presets)
    except InvalidInputError as error:
        st.caption(f":material/info: {frame.plain(str(error))}")
        candidates = []
    with st.container(horizontal=True, vertical_alignment="center", key="search_start_row"):
        pressed = st.button(
            "Find the best",
            type="primary",
            key="search_start",
            icon=":material/search:",
            disabled=not candidates,
        )
        if candidates:
            st.caption(f"{len(candidates)} candidates: {_listed(candidates)}.", width="content")
    if pressed:
        with frame.guard():
            searching.start_search(
                here.app, project_id=project.id, minutes=float(minutes), backbones=chosen,
                presets=presets, requested_by=here.annotator,
            )  # fmt: skip
            st.rerun()


def _live(here: Here, job_id: int) -> None:
    with frame.guard():
        found = searching.read_search(here.app.store, job_id=job_id)
        if not found.job.is_active:
            st.rerun()
        job_bar(here.app, found.job, key="search_job")
        st.caption(
            f"{len(found.candidates)} candidates, {words.duration(60 * found.minutes)} in all, "
            f"{words.duration(found.seconds_spent) if found.trials else 'nothing'} of it used by "
            "trials so far. A restart of the app loses no trial that is done."
        )
        _trials(found)


def _result(found: SearchView) -> None:
    """Draw what came of a search that has ended."""
    st.subheader("The last search", anchor=False)
    if found.job.state != "done":
        show_outcome(found.job)
    elif found.model_id is not None:
        with st.container(horizontal=True, vertical_alignment="center", key="search_result"):
            st.markdown(frame.plain(found.outcome), width="stretch")
            st.button(
                "See the model",
                key="search_model",
                icon=":material/arrow_forward:",
                on_click=_see,
                args=(found.model_id,),
            )
        st.caption(
            ":material/info: Being the best of many by these folds, its fold score is slightly too "
            "good; the locked test set is the fair judge."
        )
    _trials(found)


def _see(model_id: int) -> None:
    st.session_state["models_view"] = "Models"
    st.query_params["model"] = str(model_id)


def _trials(found: SearchView) -> None:
    if not found.trials:
        st.caption("The trials come here, one after the other.")
        return
    last = max(trial.round for trial in found.trials)
    best: dict[int, float] = {}
    for trial in found.trials:
        if trial.score is not None:
            best[trial.round] = max(best.get(trial.round, 0.0), trial.score)
    table(
        [
            Column("Round"),
            Column("Candidate"),
            Column("Balanced accuracy", number=True, help="Of images that it had not learnt from"),
            Column("Standard error", number=True, help="By resampling whole groups"),
            Column("n", number=True, help="Images judged in this round: the same for all"),
            Column("Took", number=True),
            Column(""),
        ],
        [
            [
                f"{trial.round} of {trial.rounds}",
                text(trial.title),
                _bold(words.number(trial.score, 3), trial.score == best.get(trial.round)),
                words.number(trial.standard_error or None, 3),
                words.number(trial.n or None),
                words.duration(trial.seconds) if trial.state == TRIED else words.NONE,
                _said(trial, found, last),
            ]
            for trial in sorted(found.trials, key=lambda t: (-t.round, -(t.score or 0.0)))
        ],
    )


def _said(trial: Trial, found: SearchView, last: int) -> str:
    if trial.state == NO_TIME:
        return f'<span class="cns-muted">{text(trial.said)}</span>'
    if trial.state != TRIED:
        return f'<span class="cns-dot bad"></span>{text(trial.said)}'
    winner = found.job.result.get("winner")
    won = isinstance(winner, dict) and winner.get("title") == trial.title and trial.round == last
    return '<span class="cns-dot on"></span>chosen' if won else ""


def _bold(shown: str, best: bool) -> str:
    return f"<b>{shown}</b>" if best else shown


def _listed(candidates: list[Candidate]) -> str:
    names = [c.title for c in candidates]
    rest = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return "; ".join(names[:6]) + rest
