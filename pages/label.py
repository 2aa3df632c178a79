"""Label: say what images are, many at once in a grid or one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from cnsapp.domain.schemes import SCHEMES
from cnsapp.services import classes as class_edits
from cnsapp.services import images, label_settings, labels, projects, viewing
from cnsapp.services.images import Counts, ImageFilter
from cnsapp.services.own_labels import labels_of
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.services.sorting import ADDED, Order, SortedPage, sorted_images
from cnsapp.ui import frame, one_by_one
from cnsapp.ui.classes_panel import classes_view
from cnsapp.ui.filters import choose_filter, choose_order
from cnsapp.ui.frame import Here
from cnsapp.ui.labeller import PAGE_SIZE, labeller
from cnsapp.ui.looks_bulk import VIEW, look_like
from cnsapp.ui.looks_panel import looks_view
from cnsapp.ui.people_panel import people_view
from cnsapp.ui.progress_panel import progress_view
from cnsapp.ui.suggestions_panel import suggestion_button
from cnsapp.ui.whose import only_mine

GRID, SINGLE = "Grid", "One by one"
# further views: name -> what draws it, given (here, project, classes, counts, as_of)
PANELS: dict[str, Callable[[Here, ProjectView, list[ClassView], Counts, int], None]] = {
    VIEW: looks_view,
    "Progress": progress_view,
    "People": people_view,
    "Classes": classes_view,
}
HELP = (
    "Keys label the selected images. Every label is stored with who gave it, and can be undone. "
    "Press ? on this page for all keys."
)


def main() -> None:
    """Draw the page."""
    here = frame.current()
    if frame.page_header("Label", HELP):
        return_to_place()
    with frame.guard():
        project = frame.need_project(here, "Here you say what each image is.")
        as_of = labels.high_water(here.app.store)  # before the images, see `labeller`
        counts = images.counts(here.app.store, project_id=project.id)
        classes = projects.list_classes(here.app.store, project_id=project.id)
        if not counts.images:
            frame.empty_state(
                "This project has no images yet.",
                "Import some, then label them here.",
                "pages/images.py",
                "Go to Images",
            )
        elif not classes and st.query_params.get("view") != "Classes":  # there, undo is at hand
            first_classes(here, project)
        else:
            label_images(here, project, classes, counts, as_of)


def first_classes(here: Here, project: ProjectView) -> None:
    """Ask for the classes of a project that has none."""
    st.info("This project has no classes yet. What can an image be?")
    with st.form("first_classes", width=520):
        text = st.text_area(
            "Classes, one a line", key="class_names", placeholder="colon\nliver\nspleen", height=160
        )
        own = st.form_submit_button("Add these classes", type="primary", key="add_classes")
        scheme = st.form_submit_button(
            "Use the 12 organ classes instead",
            key="add_scheme",
            help=", ".join(spec.name for spec in SCHEMES["organ-systems"]),
        )
    names = [line for line in text.splitlines() if line.strip()]
    if own and not names:
        st.warning("Type at least one class name.")
    elif own or scheme:
        class_edits.add_classes(
            here.app.store,
            project_id=project.id,
            who=here.annotator or "unnamed",
            classes=names if own else None,
            scheme="organ-systems" if scheme else None,
        )
        st.rerun()


def label_images(
    here: Here, project: ProjectView, classes: list[ClassView], counts: Counts, as_of: int
) -> None:
    """Draw the view that the address names."""
    view = st.segmented_control(
        "View",
        [GRID, SINGLE, *PANELS],
        key="view",
        default=None if "view" in st.session_state else GRID,  # “Similar” may have set it
        required=True,
        bind="query-params",
        label_visibility="collapsed",
    )
    if view in PANELS:
        PANELS[view](here, project, classes, counts, as_of)
    else:
        label_pictures(here, project, classes, counts, as_of, single=view == SINGLE)


def label_pictures(
    here: Here,
    project: ProjectView,
    classes: list[ClassView],
    counts: Counts,
    as_of: int,
    *,
    single: bool,
) -> None:
    """Draw the filters and the component: a grid, or one image after the other."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        chosen = choose_filter(
            here.app,
            project_id=project.id,
            classes=classes,
            width=112,
            state_key="todo" if single else "show",
            # one by one, the next thing to do is the next image without a label
            first_state="Not labelled" if single else "All images",
            with_opinions=True,
        )
        settings = label_settings.read_settings(here.app.store, project_id=project.id)
        mine = only_mine(here, project, blind=settings.blind)
        # a blind queue still shares the work: who labelled what is not told by that
        shared = single and settings.blind and chosen.state == "unlabelled"
        if mine and not shared:
            chosen = replace(chosen, own=here.annotator)
        if single:
            wish = one_by_one.choose_next(here, classes, blind=settings.blind)
        else:
            order = choose_order(
                width=112,
                blind=settings.blind or mine,
                opinions=images.has_suggestions(here.app.store, project_id=project.id),
            )
        pager = st.container(horizontal=True, gap="xsmall", width="content")
        with pager:
            if not settings.blind:
                suggestion_button(here, project, classes)
    if single:
        one_by_one.draw(
            here, project, classes, counts, as_of, chosen, wish, blind=settings.blind, mine=mine
        )
        return
    page = turn_pages(here, project, chosen, order, f"{project.id}/{chosen}/{order}", pager)
    settles = not mine and (chosen.disputed or chosen.state == "undecided")
    if settles and page.items:
        st.caption("People called these images different things: the label you give here decides.")
    labeller(
        key="labeller_grid",
        images=labels_of(here.app.store, page.items, here.annotator) if mine else page.items,
        classes=classes,
        project_id=project.id,
        annotator=here.annotator,
        counts=counts,
        as_of=as_of,
        whose="mine" if mine else "all",
        source="adjudication" if settles else None,
        empty=nothing_left(chosen, counts),
        um_per_px=viewing.um_per_px(here.app.store, project_id=project.id),
        blind=settings.blind,
        on_like=look_like,
    )


def turn_pages(
    here: Here,
    project: ProjectView,
    chosen: ImageFilter,
    order: Order,
    sign: str,
    place: st.delta_generator.DeltaGenerator,
) -> SortedPage:
    """Return the page of images that the address names, and draw the buttons to the next ones."""
    if st.session_state.get("label_pages_of", sign) != sign:
        turn_to()  # other filters: their first page
    st.session_state["label_pages_of"] = sign
    after, before = whole(st.query_params.get("after")), whole(st.query_params.get("before"))
    st.session_state["label_place"] = {"after": after, "before": before}
    page = find(here, project, chosen, order, after=after, before=before, limit=PAGE_SIZE)
    if not page.items and (after or before):
        turn_to()
        page = find(here, project, chosen, order, limit=PAGE_SIZE)
    if page.note:
        st.caption(page.note)
    with place:
        st.button(
            "",
            icon=":material/chevron_left:",
            help="Previous page",
            key="previous_page",
            disabled=page.prev_before is None,
            on_click=turn_to,
            kwargs={"before": page.prev_before},
        )
        st.button(
            "",
            icon=":material/chevron_right:",
            help="Next page",
            key="next_page",
            disabled=page.next_after is None,
            on_click=turn_to,
            kwargs={"after": page.next_after},
        )
    return page


def return_to_place() -> None:
    """Name the page of images that was left for another page of the app, unless one is named."""
    place = st.session_state.get("label_place")
    if place and not {"after", "before"} & set(st.query_params):
        turn_to(**place)


def turn_to(*, after: int | None = None, before: int | None = None) -> None:
    """Name another page of images in the address."""
    for name, value in (("after", after), ("before", before)):
        if value is not None:
            st.query_params[name] = str(value)
        elif name in st.query_params:
            del st.query_params[name]


def find(
    here: Here,
    project: ProjectView,
    chosen: ImageFilter,
    order: Order = ADDED,
    *,
    limit: int,
    after: int | None = None,
    before: int | None = None,
) -> SortedPage:
    """Return the images that the filters let through, in order."""
    return sorted_images(
        here.app.store,
        project_id=project.id,
        filter=chosen,
        order=order,
        after=after,
        before=before,
        limit=limit,
    )


def nothing_left(chosen: ImageFilter, counts: Counts) -> str:
    """Return what an empty list means."""
    if chosen == ImageFilter(state="unlabelled") and not counts.unlabelled:
        return (
            "Every image has been looked at. Train a model next, or look through the unsure ones."
        )
    return "No image matches these filters."


def whole(text: str | None) -> int | None:
    """Return the number in an address, or None when there is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None


main()
