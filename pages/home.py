"""Home: make a project or try the demo; then where the project stands and what to do next."""

from __future__ import annotations

import streamlit as st

from cnsapp.domain.schemes import SCHEMES
from cnsapp.services import images, jobs, models, projects, training
from cnsapp.services.jobs import JobView
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ProjectView
from cnsapp.services.training import Readiness
from cnsapp.ui import frame, sidebar, words
from cnsapp.ui.figures import labels_of_classes
from cnsapp.ui.frame import Here
from cnsapp.ui.job_view import state_mark
from cnsapp.ui.next_step import NextStep, Standing, next_step
from cnsapp.ui.tables import Column, table, text, when

ORGANS, OWN, LATER = "Organ systems", "My own", "None yet"
CLASSES_NOTE = {
    ORGANS: "12 organ classes: " + ", ".join(c.name for c in SCHEMES["organ-systems"]) + ".",
    OWN: "",
    LATER: "An import can take them from the names of the folders; more can be added at any time.",
}


def main() -> None:
    """Draw the page."""
    here = frame.current()
    land_in_demo(here)
    if here.project is None:
        welcome(here)
    else:
        project_home(here, here.project)


def welcome(here: Here) -> None:
    """Draw the page of an empty installation."""
    frame.page_header(
        "Welcome to cnsapp",
        "Label tissue images, train a network on them with one click, see where it is wrong and "
        "why, correct it, and apply it to new images.",
    )
    left, right = st.columns([3, 2], gap="medium")
    with left, st.container(border=True, key="new_project_card"):
        st.subheader("New project", anchor=False)
        st.caption("A project is a set of images with one set of classes.")
        new_project(here)
    with right, st.container(border=True, key="demo_card"):
        demo(here)


def new_project(here: Here) -> None:
    """Draw the form of a new project; when it is made, go on to its images."""
    name = st.text_input("Name", key="new_name", placeholder="Colon biopsies 2026")
    kind = st.segmented_control(
        "Classes", [ORGANS, OWN, LATER], key="new_kind", default=ORGANS, required=True
    )
    typed = ""
    if kind == OWN:
        typed = st.text_area(
            "Classes, one a line", key="new_classes", placeholder="tumour\nstroma\nnormal"
        )
    else:
        st.caption(CLASSES_NOTE[kind or ORGANS])
    if st.button("Create project", type="primary", key="new_create"):
        with frame.guard():
            made = projects.create_project(
                here.app.store,
                name=name or "",
                scheme="organ-systems" if kind == ORGANS else None,
                classes=[line for line in (typed or "").splitlines() if line.strip()],
            )
            sidebar.pick_project(made.id)
            frame.go_to("pages/images.py")


def demo(here: Here) -> None:
    """Offer the demo, or show how far it is."""
    st.subheader("Try the demo", anchor=False)
    st.write(
        "Generated tissue-like images of several organs from a few pretend patients, some of them "
        "labelled. Ready in less than a minute; every page can be tried on it."
    )
    job_id = st.session_state.get("demo_job") or demo_job(here)
    if job_id is not None:
        st.session_state["demo_job"] = job_id
        frame.job_progress(job_id)
        if jobs.get_job(here.app.store, job_id=job_id).is_active:
            return
    if st.button("Try the demo", key="demo_start", icon=":material/science:"):
        with frame.guard():
            st.session_state["demo_job"] = jobs.submit_job(
                here.app.store, kind="demo", project_id=None, requested_by=here.annotator
            )
            st.rerun()


def demo_job(here: Here) -> int | None:
    """Return the demo that is being made, by whichever window asked for it."""
    active = jobs.list_jobs(here.app.store, active_only=True, kinds=["demo"], limit=1)
    return active[0].id if active else None


def land_in_demo(here: Here) -> None:
    """When the demo that this window asked for is there, go to its images."""
    job_id = st.session_state.get("demo_job")
    if job_id is None:
        return
    job = jobs.get_job(here.app.store, job_id=job_id)
    if job.state == "done" and "project_id" in job.result:
        del st.session_state["demo_job"]
        sidebar.pick_project(int(job.result["project_id"]))
        frame.go_to("pages/images.py")


def project_home(here: Here, project: ProjectView) -> None:
    """Draw where a project stands."""
    title, buttons = st.columns([3, 2], vertical_alignment="bottom")
    with title:
        frame.page_header(
            project.name,
            "Images, labels, a model, its errors, better labels: round and round until it is good.",
        )
    with (
        buttons,
        st.container(horizontal=True, horizontal_alignment="right", key="home_buttons"),
    ):
        if st.button("New project", icon=":material/add:", key="home_new"):
            new_project_dialog(here)
        if st.button("Demo", icon=":material/science:", key="home_demo", help="Make the demo"):
            demo_dialog(here)
    store = here.app.store
    found = models.list_models(store, project_id=project.id)
    ready = training.readiness(store, project_id=project.id)
    at = standing(here, project, found[0] if found else None, ready)
    todo = next_step(at)
    steps(here, project, at, found, todo)
    with st.container(horizontal=True, vertical_alignment="center", key="home_next"):
        if st.button(todo.button, type="primary", key="next_step", icon=":material/arrow_forward:"):
            frame.go_to(todo.page)
        st.caption(todo.why, width="content")
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Models", anchor=False)
        recent_models(found[:5])
        st.subheader("Recent runs", anchor=False)
        # maps of single images are no runs
        recent_runs(
            jobs.list_jobs(store, project_id=project.id, but=["explain", "preview"], limit=6)
        )
    with right:
        st.subheader("Labels", anchor=False)
        labels_of_classes(ready.per_class)


@st.dialog("New project")
def new_project_dialog(here: Here) -> None:
    """Draw the form of a new project over the page."""
    with frame.guard():
        new_project(here)


@st.dialog("Demo")
def demo_dialog(here: Here) -> None:
    """Offer the demo over the page."""
    with frame.guard():
        demo(here)


def standing(
    here: Here, project: ProjectView, newest: ModelView | None, ready: Readiness
) -> Standing:
    """Return where the project stands."""
    store = here.app.store
    counts = images.counts(store, project_id=project.id)
    changed = models.labels_changed_since(store, model_id=newest.id).total if newest else 0
    return Standing(
        n_images=counts.images,
        n_unlabelled=counts.unlabelled,
        n_labelled=counts.labelled,
        can_train=ready.ok,
        trains_now=training.active_training(store, project_id=project.id) is not None,
        has_model=newest is not None,
        n_changed=changed,
    )


def steps(
    here: Here, project: ProjectView, at: Standing, found: list[ModelView], todo: NextStep
) -> None:
    """Draw the loop with its counts."""
    newest = found[0].metrics if found else {}
    predicted = [
        job
        for job in jobs.list_jobs(
            here.app.store, project_id=project.id, kinds=["predict"], limit=1000
        )
        if job.state == "done"
    ]
    accuracy = words.score(newest.get("balanced_accuracy")) if newest else words.NONE
    spread = words.interval(newest.get("balanced_accuracy_interval"))
    n_classes = words.plural(project.n_classes, "class", "classes")
    cells = [
        ("images", "Images", words.number(at.n_images), n_classes),
        ("label", "Label", words.number(at.n_labelled), f"labelled; {at.n_unlabelled:,} to go"),
        ("train", "Train", words.number(len(found)), "model" if len(found) == 1 else "models"),
        ("review", "Review", accuracy, f"balanced accuracy{f' ({spread})' if spread else ''}"),
        ("explain", "Explain", "Why", "see what the model looked at"),
        ("predict", "Predict", words.number(len(predicted)), "sets of new images"),
    ]  # fmt: skip
    for place, (step, name, big, sub) in zip(st.columns(6, gap="small"), cells, strict=True):
        mark = "next" if step == todo.step else step
        with place, st.container(border=True, key=f"step_{mark}", gap=None):
            st.page_link(f"pages/{step}.py", label=name, query_params=frame.kept_params())
            st.html(f'<div class="cns-big">{text(big)}</div><div class="cns-sub">{text(sub)}</div>')


def recent_runs(found: list[JobView]) -> None:
    """Draw what was done lately."""
    if not found:
        st.caption("Nothing has run yet.")
        return
    table(
        [Column("What"), Column("State"), Column("When", number=True)],
        [
            [
                text(job.title)
                + (
                    f'<div class="cns-small cns-muted">{text(job.error)}</div>' if job.error else ""
                ),
                state_mark(job),
                when(job.finished_at or job.created_at),
            ]
            for job in found
        ],
    )


def recent_models(found: list[ModelView]) -> None:
    """Draw the newest models with their figures."""
    if not found:
        st.caption("No model yet. It takes labels of two classes or more.")
        return
    table(
        [
            Column("Name"),
            Column("Balanced accuracy", number=True, help="Mean of the recalls of all classes"),
            Column("When", number=True),
        ],
        [
            [
                text(m.name),
                text(
                    words.figure(
                        m.metrics.get("balanced_accuracy"),
                        m.metrics.get("balanced_accuracy_interval"),
                        m.metrics.get("n"),
                    )
                ),
                when(m.created_at),
            ]
            for m in found
        ],
    )


main()
