"""Explain, the images: which list the strip shows, and maps of a whole list in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from cnsapp.domain.maps import get_method
from cnsapp.services import explaining, images, jobs, own_labels, review_list
from cnsapp.services.images import ImageFilter, ImageItem
from cnsapp.services.jobs import JobView
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.services.review import ReviewItem
from cnsapp.services.review_filter import Cursor, ReviewFilter
from cnsapp.ui import frame, words
from cnsapp.ui.components import Tile, gallery, thumb_url
from cnsapp.ui.explain_choices import Choices
from cnsapp.ui.frame import Here

IMAGE = "image"  # in the address
STRIP, PAGE = 40, 1000
USUAL = 50  # images of one request
WRONG, EVERY = "Wrong ones", "All images"
QUEUED = "explain_queue_job"  # of the session: the last job for many maps


@dataclass(frozen=True)
class Listed:
    """A list of images by what the user chose, and the first of them."""

    kind: str
    text: str
    blind: bool  # only one's own labels may be seen
    items: list[ImageItem]


def choose_list(here: Here, model: ModelView, *, blind: bool) -> Listed:
    """Draw which images the strip shows, and return them; `blind` projects tell no errors."""
    kind = EVERY
    if not blind:
        kind = st.segmented_control(
            "Images", [WRONG, EVERY], key="explain_list", default=WRONG, required=True
        )
    text = st.text_input("File name contains", key="explain_find", width=200)
    listed = Listed(kind or EVERY, (text or "").strip(), blind, [])
    items = _items(here, model, listed, STRIP)
    if blind:
        items = own_labels.labels_of(here.app.store, items, here.annotator)
    return Listed(listed.kind, listed.text, blind, items)


def _items(here: Here, model: ModelView, listed: Listed, limit: int) -> list[ImageItem]:
    """Return the first images of a list, page by page; excluded ones are in none."""
    store, found = here.app.store, list[ImageItem]()
    after: Cursor | None = None
    last: int | None = None
    while len(found) < limit:
        size = min(PAGE, limit - len(found))
        wanted = ImageFilter(text=listed.text)
        if listed.kind == WRONG:
            page = review_list.list_review(
                store, model_id=model.id, wanted=ReviewFilter(show="wrong", images=wanted),
                after=after, limit=size,
            )  # fmt: skip
            found += page.items
            after = page.after
            if after is None:
                break
        else:
            part = images.list_images(
                store, project_id=model.project_id, filter=wanted, after=last, limit=size
            )
            found += part.items
            last = part.items[-1].id if part.items and len(part.items) == size else None
            if last is None:
                break
    return found


def strip(
    listed: Listed, current: int, classes: Mapping[int, ClassView], there: Mapping[int, bool]
) -> None:
    """Draw the list as a strip of thumbnails; a click shows that image."""
    if listed.items:
        gallery(
            [tile(item, classes, there.get(item.id, False)) for item in listed.items],
            key="explain_strip",
            selected=current,
            side=92,
            row=True,
            on_open=show,
        )


def show(image_id: int) -> None:
    """Put an image into the address."""
    st.query_params[IMAGE] = str(image_id)


def tile(item: ImageItem, classes: Mapping[int, ClassView], has_maps: bool) -> Tile:
    """Return an image as the strip shows it: its label, what the model said, if it has its maps."""
    label = classes.get(item.class_id) if item.class_id is not None else None
    parts = [f"{item.confidence:.2f}"] if isinstance(item, ReviewItem) else []
    return Tile(
        item.id,
        thumb_url(item.id, item.version),
        item.name,
        label.name if label else "",
        label.color if label else "",
        " ".join([*parts, *(["✓"] if has_maps else [])]),
    )


def with_maps(here: Here, model: ModelView, listed: Listed, choices: Choices) -> dict[int, bool]:
    """Say which images of the strip have all the maps that are chosen."""
    ids = [item.id for item in listed.items]
    targets = targets_of(here, model, ids, choices, blind=listed.blind)
    there = explaining.maps_there(
        here.app, model_id=model.id, image_ids=ids, methods=choices.methods, targets=targets,
        settings=choices.settings,
    )  # fmt: skip
    return {i: there[i] == len(targets[i]) * len(choices.methods) > 0 for i in ids}


def targets_of(
    here: Here, model: ModelView, ids: list[int], choices: Choices, *, blind: bool
) -> dict[int, list[int | None]]:
    """Return the classes whose maps are wanted of each image."""
    return explaining.targets_of(
        here.app, model_id=model.id, image_ids=ids, wanted=choices.wanted,
        only=here.annotator if blind else None,
    )  # fmt: skip


def many(here: Here, model: ModelView, listed: Listed, choices: Choices) -> None:
    """Draw what makes the maps of many images of the list in one job."""
    with st.popover("Make maps for many", icon=":material/playlist_add:", key="explain_many"):
        what = listed.kind.lower() + (f" with “{listed.text}” in the name" if listed.text else "")
        st.markdown(
            f"Make the maps of the first images of this list ({frame.plain(what)}) in one go. Then "
            "they are there at once when you walk through."
        )
        n = st.number_input(
            "Images", 1, explaining.MOST_MAPS, USUAL, key="explain_queue_n", width=160,
            help=f"From 1 to {explaining.MOST_MAPS:,}; {explaining.MOST_MAPS:,} maps at most.",
        )  # fmt: skip
        titles = ", ".join(get_method(m).title for m in choices.methods)
        st.caption(f"{titles}, for the classes chosen above the maps. What is there is kept.")
        checks = st.checkbox("Also check each against chance (slower)", key="explain_queue_checks")
        if st.button("Make maps", type="primary", key="explain_queue_start"):
            with frame.guard():
                _start(here, model, listed, choices, int(n), checks=checks)


def _start(
    here: Here, model: ModelView, listed: Listed, choices: Choices, n: int, *, checks: bool
) -> None:
    ids = [item.id for item in _items(here, model, listed, n)]
    free = explaining.outside_test_set(here.app.store, model_id=model.id, image_ids=ids)
    targets = targets_of(here, model, free, choices, blind=listed.blind)
    asked = explaining.request_maps(
        here.app, model_id=model.id, image_ids=free, methods=choices.methods, targets=targets,
        settings=choices.settings, checks=checks, requested_by=here.annotator,
    )  # fmt: skip
    locked = len(ids) - len(free)
    left_out = (
        f" {words.plural(locked, 'image')} of the locked test set left out." if locked else ""
    )
    if asked.job_id is None:
        there = words.plural(len(asked.wishes), "map")
        st.info(f"Nothing to make: {there} of this list are there already.{left_out}")
        return
    st.session_state[QUEUED] = asked.job_id
    if left_out:
        st.toast(left_out.strip())
    st.rerun()


def queue(here: Here, project: ProjectView) -> None:
    """Draw the job for many maps while it runs, and then what came of it."""
    active = jobs.list_jobs(
        here.app.store, project_id=project.id, kinds=["explain_many"], active_only=True, limit=1
    )
    if active:
        with st.container(border=True, key="explain_queue"):
            frame.job_progress(active[0].id)
    elif QUEUED in st.session_state:
        job = jobs.get_job(here.app.store, job_id=st.session_state[QUEUED])
        if job.project_id != project.id:
            return
        with st.container(
            horizontal=True, vertical_alignment="center", border=True, key="explain_queue"
        ):
            with st.container():
                outcome(job)
            st.button(
                "", icon=":material/close:", type="tertiary", key="explain_queue_seen",
                help="Close", on_click=st.session_state.pop, args=(QUEUED, None),
            )  # fmt: skip


def outcome(job: JobView) -> None:
    """Say what came of a job for many maps."""
    if job.state != "done":
        frame.job_progress(job.id)
        return
    made, lost = int(job.result.get("n_made", 0)), int(job.result.get("n_failed", 0))
    st.markdown(f":material/check: {words.plural(made, 'map')} made.")
    if lost:
        rows = [
            f"- {frame.plain(str(one['file']))}: {frame.plain(str(one['reason']))}"
            for one in job.result.get("failed", [])
        ]
        with st.expander(f"{words.plural(lost, 'image')} could not be read"):
            st.markdown("\n".join(rows))
