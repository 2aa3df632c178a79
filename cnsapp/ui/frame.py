"""What is around every page: the sidebar, the header, and calm words when something goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.services.projects import ProjectView
from cnsapp.ui import sidebar, start
from cnsapp.ui.job_view import job_progress
from cnsapp.ui.words import plain

__all__ = [
    "Here",
    "begin",
    "current",
    "empty_state",
    "guard",
    "job_progress",
    "need_project",
    "page_header",
    "plain",
    "run",
    "show_error",
]

log = logging.getLogger(__name__)
_PARTS = Path(__file__).parent


@dataclass(frozen=True)
class Here:
    """Where the user is: the installation, the chosen project, and who she is."""

    app: App
    project: ProjectView | None
    annotator: str


def begin() -> None:
    """Set up the window; the first thing that `app.py` does."""
    st.set_page_config(
        page_title="cnsapp",
        page_icon=_PARTS / "icon.svg",  # an emoji loads a catalogue first
        layout="wide",
        initial_sidebar_state="expanded",
        menu_items={"About": "cnsapp: label tissue images, train, review. Research use only."},
    )
    st.logo(_PARTS / "logo.svg", size="large")
    st.html(_PARTS / "frame.css")


def run(page: Any) -> None:
    """Run a page inside the guard, so that no error ever reaches the screen as a traceback."""
    try:
        start.opened()
    except CnsError as error:
        cannot_open(error)
    with guard():
        page.run()


def cannot_open(error: CnsError) -> NoReturn:
    """Say on a page of its own why the installation cannot be used, and draw nothing else."""
    _, middle, _ = st.columns([1, 3, 1])
    with middle:
        st.title("cnsapp cannot open its data")
        show_error(error)
        st.caption(
            "Nothing was changed. When this is mended, start the app again and reload this page."
        )
    st.stop()


def current() -> Here:
    """Return where the user is, and draw the sidebar. Call it at the top of every page, once."""
    app = start.opened()
    with st.sidebar:
        project = sidebar.choose_project(app)
        annotator = sidebar.choose_annotator(app, project)
        sidebar.show_jobs(app)
        sidebar.footer(annotator)
    return Here(app=app, project=project, annotator=annotator)


def page_header(title: str, help: str = "") -> bool:  # the word that Streamlit's own calls use
    """Draw the title of a page and, small, what the page is for.

    Returns whether the user has just come here from another page.
    """
    arrived = st.session_state.get("page_shown") != title
    st.session_state["page_shown"] = title
    with st.container(gap=None):
        st.title(plain(title), anchor=False)
        if help:
            st.caption(help)
    return arrived


def need_project(here: Here, purpose: str) -> ProjectView:
    """Return the chosen project; where there is none, say what the page is for and stop."""
    if here.project is not None:
        return here.project
    empty_state(purpose, "Make a project first, or try the demo.", "pages/home.py", "Go to Home")


def empty_state(purpose: str, what_next: str, page: str, button: str) -> NoReturn:
    """Say what a page is for and offer the one next step; the page ends here."""
    with st.container(border=True, key="empty_state"):
        st.markdown(f"**{purpose}**")
        st.write(what_next)
        if st.button(button, type="primary", key="empty_state_next"):
            st.switch_page(page, query_params=kept_params())
    st.stop()


def kept_params() -> dict[str, str]:
    """Return the part of the address that every page shares: the project and who labels."""
    return {k: v for k, v in st.query_params.items() if k in ("project", "who")}


def go_to(page: str, **params: object) -> NoReturn:
    """Go to another page, taking project and annotator along."""
    st.switch_page(page, query_params=kept_params() | {k: str(v) for k, v in params.items()})


def show_error(error: CnsError) -> None:
    """Show an error as what happened, why it matters and what to do."""
    rest = " ".join(part for part in (error.why, error.remedy) if part)
    st.error(f"**{plain(error.what)}**" + (f"\n\n{plain(rest)}" if rest else ""))


@contextmanager
def guard() -> Iterator[None]:
    """Turn errors into calm words. What the user cannot mend goes to the log, with its traceback.

    Streamlit's own signals (rerun, stop, switch page) are no `Exception` and pass through.
    """
    try:
        yield
    except CnsError as error:
        show_error(error)
    except Exception:
        log.exception("a page failed")
        st.error(
            "**Something went wrong on this page.**\n\nNothing that was saved is lost. Reload the "
            "page; if it happens again, the log of the server says why."
        )
