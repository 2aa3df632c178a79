"""Images: bring them in, look through them, and see all that is known of one."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import file_check, images, jobs, metadata, projects, reading, viewing
from cnsapp.services.images import Counts, ImageFilter, ImageItem, ImagePage
from cnsapp.services.jobs import JobView
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import frame, words
from cnsapp.ui.components import Tile, gallery, thumb_url
from cnsapp.ui.exclusion_controls import exclusion_controls, show_notes
from cnsapp.ui.files_panel import files_panel
from cnsapp.ui.filters import choose_filter
from cnsapp.ui.frame import Here
from cnsapp.ui.history_table import history_table
from cnsapp.ui.import_panel import import_panel
from cnsapp.ui.import_report import show_report
from cnsapp.ui.labeller import closeup
from cnsapp.ui.quality_panel import quality_panel
from cnsapp.ui.slides_panel import has_slides, slides_section
from cnsapp.ui.tables import facts, text, when

PAGE = 60
BROWSE, SLIDES, QUALITY, FILES, IMPORT = "Browse", "Slides", "Quality", "Files", "Import"


def main() -> None:
    """Draw the page."""
    here = frame.current()
    counts = None
    if here.project is not None:
        counts = images.counts(here.app.store, project_id=here.project.id)
    frame.page_header("Images", what_is_here(counts))
    project = frame.need_project(here, "Images belong to a project.")
    assert counts is not None
    tab = BROWSE
    # images whose files are missing are no less there
    others = file_check.count_by_status(here.app.store, project_id=project.id)
    has_images = bool(counts.images or others)
    if has_images:
        tab = choose_tab(counts, has_slides(here, project))
    else:
        st.info(
            "This project has no images yet. Choose a folder, a zip or files. A broken file never "
            "stops the rest, and importing the same folder again changes nothing."
        )
    running = last_import(here, project)
    if running is not None and (running.is_active or tab == IMPORT or not has_images):
        show_import(running)
    if tab == FILES:
        files_panel(here, project)
        return
    imports = tab == IMPORT or not has_images
    checks = running is not None and bool(running.payload.get("dry_run"))
    if running is not None and running.is_active and not (checks and imports):
        if has_images:
            browse(here, project)
        return
    if imports:
        import_panel(here, project)
    elif tab == SLIDES:
        slides_section(here, project)
    elif tab == QUALITY:
        quality_panel(here, project, lambda image_id: open_image(here, project, image_id))
    else:
        landed(here, running)
        browse(here, project)


def what_is_here(counts: Counts | None) -> str:
    """Return how many images there are, and how many still want a label."""
    if counts is None or not counts.images:
        return "Bring images into the project and look through them."
    looked_at = [
        f"{n:,} {word}"
        for n, word in (
            (counts.labelled, "labelled"),
            (counts.skipped, "skipped"),
            (counts.unsure, "unsure"),
            (counts.unlabelled, "without a label"),
        )
        if n
    ]
    return f"{words.plural(counts.images, 'image')}: {', '.join(looked_at)}."


def choose_tab(counts: Counts, with_slides: bool) -> str:
    """Draw the two sides of the page, and the way on to labelling."""
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        tab = st.segmented_control(
            "View",
            [BROWSE, *([SLIDES] if with_slides else []), QUALITY, FILES, IMPORT],
            key="images_tab",
            default=BROWSE,
            required=True,
            label_visibility="collapsed",
        )
        if tab == BROWSE and st.button(
            "Label images" if counts.unlabelled else "Train a model",
            type="primary",
            key="images_go_on",
        ):
            frame.go_to("pages/label.py" if counts.unlabelled else "pages/train.py")
    return tab or BROWSE


def last_import(here: Here, project: ProjectView) -> JobView | None:
    """Return the import that runs, or else the newest one."""
    imports = jobs.list_jobs(here.app.store, project_id=project.id, kinds=["import"], limit=10)
    return next((job for job in imports if job.is_active), imports[0] if imports else None)


def show_import(job: JobView) -> None:
    """Draw how far an import is, or what came of it."""
    with st.container(border=True, key="import_state"):
        seen = frame.job_progress(job.id)
        if seen.state == "done" or seen.result:  # a stopped one says what it kept
            show_report(seen)


def landed(here: Here, job: JobView | None) -> None:
    """After an import that this window started: say in one line what came of it."""
    if job is None or job.state == "cancelled" or st.session_state.get("import_job") != job.id:
        return
    if job.state == "failed":
        show_import(job)
        return
    result = jobs.get_job(here.app.store, job_id=job.id).result
    if result.get("dry_run"):
        return
    skipped = len(result.get("skipped", []))
    line = (
        f"{words.plural(result.get('imported', 0), 'image')} imported, "
        f"{words.plural(result.get('duplicates', 0), 'duplicate')}, {skipped:,} skipped."
    )
    if skipped:
        st.warning(f"{line} The Import tab lists what was skipped, and why.")
    else:
        st.success(line)


def browse(here: Here, project: ProjectView) -> None:
    """Draw the filters, the thumbnails, and the pager."""
    classes = projects.list_classes(here.app.store, project_id=project.id)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="img_filters"):
        chosen = choose_filter(
            here.app, project_id=project.id, classes=classes, width=136, with_status=True
        )
        pager = st.container(horizontal=True, gap="small", width="content")
    page = turn_pages(here, project, chosen)
    with pager:
        draw_pager(page)
    if not page.items:
        st.caption("No image matches these filters.")
        return
    by_id = {c.id: c for c in classes}
    opened = gallery([tile(item, by_id) for item in page.items], key="images_gallery")
    if opened is not None:
        show_image(here, opened, by_id)


def turn_pages(here: Here, project: ProjectView, chosen: ImageFilter) -> ImagePage:
    """Return the page of images that the pager is at; other filters start at their first page."""
    sign = f"{project.id}/{chosen}"
    if st.session_state.get("img_sign") != sign:
        st.session_state["img_sign"] = sign
        st.session_state["img_at"] = {}
    store, at = here.app.store, st.session_state["img_at"]
    page = images.list_images(store, project_id=project.id, filter=chosen, limit=PAGE, **at)
    if at and not page.items:  # they were labelled meanwhile and are in the list no more
        st.session_state["img_at"] = {}
        page = images.list_images(store, project_id=project.id, filter=chosen, limit=PAGE)
    return page


def draw_pager(page: ImagePage) -> None:
    """Draw the buttons to the pages before and behind."""
    for label, icon, key, at in (
        ("Previous", "chevron_left", "img_previous", {"before": page.prev_before}),
        ("Next", "chevron_right", "img_next", {"after": page.next_after}),
    ):
        st.button(
            label,
            icon=f":material/{icon}:",
            key=key,
            disabled=None in at.values(),
            on_click=go_to_page,
            args=(at,),
        )


def go_to_page(at: dict[str, int | None]) -> None:
    """Turn to another page of images."""
    st.session_state["img_at"] = at


def tile(item: ImageItem, classes: dict[int, ClassView]) -> Tile:
    """Return an image as the gallery shows it."""
    c = classes.get(item.class_id) if item.class_id is not None else None
    label = c.name if c else words.STATES.get(item.state, "")
    return Tile(item.id, thumb_url(item.id, item.version), item.name, label, c.color if c else "")


def open_image(here: Here, project: ProjectView, image_id: int) -> None:
    """Show one image."""
    classes = projects.list_classes(here.app.store, project_id=project.id)
    show_image(here, image_id, {c.id: c for c in classes})


@st.dialog("Image", width="large")
def show_image(here: Here, image_id: int, classes: dict[int, ClassView]) -> None:
    """Draw an image with its facts and the history of its label."""
    with frame.guard():
        image = images.get_image(here.app.store, image_id=image_id)
        picture, beside = st.columns([3, 2], gap="medium")
        with picture:
            closeup(
                key="image_closeup",
                image=image,
                um_per_px=viewing.um_per_px(here.app.store, project_id=image.project_id),
            )
        with beside:
            st.markdown(f"**{frame.plain(image.name.rsplit('/', 1)[-1])}**")
            label = classes.get(image.class_id) if image.class_id is not None else None
            rows = [
                ("Label", label.name if label else words.STATES.get(image.state) or "none yet"),
                ("Group", image.group or words.NONE),
                ("Size", f"{image.width:,} × {image.height:,} px"),
                ("File", f"{image.facts.get('format', '')} {words.size(image.n_bytes)}".strip()),
                ("Kept as", "link to the original" if image.linked else "copy"),
            ]
            rows += metadata.get_values(here.app.store, image_id=image.id)
            facts([(k, text(v)) for k, v in rows] + [("Imported", when(image.created_at))])
            if image.status != "ok":
                st.warning(f"This image is {image.status}: it is not trained on.")
            for note in image.facts.get("notes", []):
                st.caption(frame.plain(str(note)))
            if reading.has_choices(image.facts) and st.button(
                "How images are read", key="image_reading", type="tertiary"
            ):
                frame.go_to("pages/settings.py")
            if st.button("Explain this image", key="image_explain"):
                frame.go_to("pages/explain.py", image=image.id)
            exclusion_controls(here, image)
        show_notes(here, image)
        history_table(here.app, image.id)


main()
