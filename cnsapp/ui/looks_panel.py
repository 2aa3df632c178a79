"""The view “By looks” of the Label page: a map, clusters, and images similar to some."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from cnsapp.services import jobs, label_settings, looks
from cnsapp.services.images import Counts
from cnsapp.services.looks import MapPoints, Status
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.job_view import show_outcome
from cnsapp.ui.looks_bulk import Place, only_unlabelled, show_chosen
from cnsapp.ui.looks_clusters import clusters_view
from cnsapp.ui.looks_similar import asked, similar_view

MAP, CLUSTERS, SIMILAR = "Map", "Clusters", "Similar to…"
BY = "looks_by"
COLORS = {"Class": "class", "What a model thinks": "model", "Annotator": "annotator",
          "Group": "group"}  # fmt: skip
WHAT_FOR = (
    "Here images are sorted by what they look like to a pretrained network: on a map, in clusters, "
    "and by similarity to an image, so that what belongs together can be labelled together."
)
READ_WITH_CARE = (
    "Near each other means similar. How far apart two heaps lie, and how large one is, says little."
)


def looks_view(
    here: Here, project: ProjectView, classes: list[ClassView], counts: Counts, as_of: int
) -> None:
    """Draw the view; `as_of` is `labels.high_water`, read before everything else."""
    blind = label_settings.read_settings(here.app.store, project_id=project.id).blind
    place = Place(here, project, classes, counts, as_of, blind)
    now = looks.status(here.app.store, project_id=project.id)
    if now.version is None:
        _no_index(place, now)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        by = st.segmented_control(
            "By looks", [MAP, CLUSTERS, SIMILAR], key=BY, required=True,
            default=None if BY in st.session_state else SIMILAR if asked() else MAP,
            bind="query-params", label_visibility="collapsed",
        )  # fmt: skip
        color = _choose_color(place) if by == MAP else ""
        _say_status(place, now)
    if now.job_id is None:
        _say_failure(place, now)
    else:
        with st.container(key="looks_job"):
            frame.job_progress(now.job_id)
    if by == MAP:
        _map(place, color)
    elif by == CLUSTERS:
        clusters_view(place, now)
    else:
        similar_view(place)


def _no_index(place: Place, now: Status) -> None:
    with st.container(border=True, key="looks_empty"):
        st.markdown(f"**{WHAT_FOR}**")
        if now.is_unreadable and now.job_id is None and not _say_failure(place, now):
            _sort(place)  # nobody has to ask for what was there before
            now = looks.status(place.here.app.store, project_id=place.project.id)
        if now.is_unreadable:
            st.write("What was sorted before is damaged or of an older form; it is made again.")
        if now.job_id is not None:
            frame.job_progress(now.job_id)
            return
        if not now.is_unreadable:
            _say_failure(place, now)
        st.write(
            "This happens in the background, behind the features of new images. It takes a minute "
            "or so, and you can label meanwhile."
        )
        st.button(
            f"Sort {words.plural(place.counts.images, 'image')} by looks",
            type="primary", key="looks_make", on_click=_sort, args=(place,),
        )  # fmt: skip


def _say_failure(place: Place, now: Status) -> bool:
    """Say why the newest index could not be made; return whether there was something to say."""
    last = jobs.list_jobs(
        place.here.app.store, project_id=place.project.id, kinds=["looks"], limit=1
    )
    if not last or last[0].state != "failed" or last[0].finished_at is None:
        return False
    if now.made_at is not None and last[0].finished_at < now.made_at:
        return False
    show_outcome(last[0])
    return True


def _sort(place: Place) -> None:
    looks.queue_looks(
        place.here.app.store, project_id=place.project.id, requested_by=place.here.annotator
    )


def _say_status(place: Place, now: Status) -> None:
    """Say of how many images the index is, and offer to make it again."""
    parts = [f"{words.plural(now.n, 'image')}, sorted {words.ago(now.made_at)}"]
    if now.n_missing:
        are = "is" if now.n_missing == 1 else "are"
        parts.append(f"{words.plural(now.n_missing, 'image')} {are} not in it yet")
    if now.n_unread:
        parts.append(f"{words.plural(now.n_unread, 'image')} without features left out")
    if now.map_method == "pca":
        parts.append("the map shows two principal components: UMAP cannot be used here")
    st.caption(" · ".join(parts), width="content")
    if now.job_id is None:
        st.button(
            "Sort again", icon=":material/refresh:", key="looks_again", on_click=_sort,
            args=(place,), type="secondary" if now.is_stale else "tertiary",
            help="Takes in new images, and makes clusters and map anew.",
        )  # fmt: skip


# --- the map ---


def _choose_color(place: Place) -> str:
    options = ["Group"] if place.blind else list(COLORS)  # blind: nobody sees what others think
    chosen = st.selectbox(
        "Colour by", options, key="looks_color", bind="query-params",
        label_visibility="collapsed", width=260,
        format_func=lambda name: f"Colour: {name[0].lower()}{name[1:]}",
    )  # fmt: skip
    return COLORS[chosen or options[0]]


def _map(place: Place, color: str) -> None:
    points = looks.map_points(place.here.app.store, project_id=place.project.id, color_by=color)
    left, right = st.columns([5, 6], gap="medium")
    with left:
        region = _lookmap()(
            key="looks_map",
            data=map_data(points, color, place.as_of),
            on_region_change=lambda: None,
        ).region
        note = f" {points.n_left_out:,} more are not drawn." if points.n_left_out else ""
        st.caption(READ_WITH_CARE + note)
    ids = inside(points, region)
    with right:
        if ids is None:
            st.info(
                "Drag around a heap of points: their images appear here, to be looked at and "
                "labelled together. Resting on a point shows its picture."
            )
            return
        if only_unlabelled():
            free = looks.in_use(place.here.app.store, place.project.id, ids, unlabelled_only=True)
            ids = [i for i in ids if i in free]
        show_chosen(
            place, ids, what="in the outline", key="looks_map_grid",
            beyond="Draw a smaller outline to see the others; “Label all” means them too.",
            empty="No image is left in this outline." if only_unlabelled() else
            "No image lies in this outline.",
        )  # fmt: skip


def inside(points: MapPoints, region: Any) -> list[int] | None:
    """Return the images of what the browser says was outlined; None when nothing was."""
    if not isinstance(region, Mapping) or region.get("version") != points.version:
        return None
    outline = region.get("outline")
    try:
        corners = np.asarray(outline, float)
    except (TypeError, ValueError):
        return None
    if corners.ndim != 2 or corners.shape[1] != 2 or not 3 <= len(corners) <= 1000:
        return None
    return points.inside(corners.tolist())


def map_data(points: MapPoints, color: str, as_of: int) -> dict[str, Any]:
    """Return what the browser draws: arrays as base64, a megabyte for 100,000 points."""
    return {
        "sign": f"{points.version}/{color}/{as_of}/{len(points.image_ids)}",
        "version": points.version,
        "colored": color,
        "ids": _packed(points.image_ids.astype("<i4")),
        "places": _packed(points.places.astype("<u2")),
        "codes": _packed(points.codes),
        "keys": [
            {"name": key.name, "color": key.color, "n": key.n, "rest": key.is_rest}
            for key in points.keys
        ],
    }


def _packed(values: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


@cache
def _lookmap() -> Any:
    folder = Path(__file__).parent
    style = (folder / "lookmap.css").read_text(encoding="utf-8")
    script = "\n".join(
        (folder / part).read_text(encoding="utf-8") for part in ("parts.js", "lookmap.js")
    )
    return st.components.v2.component("cnsapp_lookmap", css=style, js=script)
