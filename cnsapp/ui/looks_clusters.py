"""Clusters of look-alikes: the second part of the view “By looks”."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.services import looks
from cnsapp.services.images import ImageItem
from cnsapp.services.looks import Cluster, Status
from cnsapp.ui import frame, words
from cnsapp.ui.components import thumb_url
from cnsapp.ui.labeller import Badge
from cnsapp.ui.looks_bulk import Place, only_unlabelled, show_chosen

OPENED = "looks_cluster"
ALSO = "looks_also"
NAMED = 3  # classes of a cluster's labels that are named
HOW = (
    "Clear images are far nearer to the middle of their cluster than to any other; half of all "
    "images are. The six pictures are spread over those to label, from the most typical to the "
    "least clear: where all six are of one class, the others nearly always are too, if looks tell "
    "your classes apart. Images on a border are better labelled one by one: suggestions learnt "
    "from clear images alone are too sure of them. ↑ and ↓ frame another cluster. There are more "
    "clusters than classes on purpose."
)


def clusters_view(place: Place, now: Status) -> None:
    """Draw the list of clusters, or the one that was opened."""
    opened = st.session_state.get(OPENED)
    if isinstance(opened, tuple) and opened[0] == now.version:
        _cluster(place, opened[1])
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        said = st.container(width="stretch")
        also = st.toggle(
            "Also those with a label", key=ALSO,
            help="Labels all clear images of a cluster, also those that somebody looked at. "
            "Undo brings their labels back.",
        )  # fmt: skip
    found = looks.clusters(place.here.app.store, project_id=place.project.id, also_labelled=also)
    left = sum(c.n_clear_unlabelled for c in found)
    said.caption(
        f"**{words.plural(left, 'clear image')}** in {words.plural(len(found), 'cluster')} without "
        "a label. Six pictures of one class? Its key labels the clear ones of the framed cluster; "
        "U takes back.",
        help=HOW,
    )
    if not place.here.annotator:
        st.info("Say who labels first: “Labelling as” in the sidebar.")
    previews = looks.list_items(
        place.here.app.store, image_ids=[i for one in found for i in one.previews]
    )
    items = {item.id: item for item in previews}
    _component()(
        key="looks_clusters",
        data=cluster_data(place, now, found, items, also=also),
        on_open_change=_opened,
    )


def cluster_data(
    place: Place,
    now: Status,
    found: Sequence[Cluster],
    items: Mapping[int, ImageItem],
    *,
    also: bool,
) -> dict[str, Any]:
    """Return what the browser draws."""
    return {
        "project": place.project.id,
        "annotator": place.here.annotator,
        "version": now.version,
        "as_of": place.as_of,
        "also": also,
        "classes": [
            {"id": c.id, "name": c.name, "color": c.color, "hotkey": c.hotkey}
            for c in place.classes
        ],
        "rows": [_row(place, one, items) for one in found],
    }


def _row(place: Place, one: Cluster, items: Mapping[int, ImageItem]) -> dict[str, Any]:
    known = {c.id: c for c in place.classes}
    named = [(known[i], n) for i, n in one.per_class.items() if i in known and not place.blind]
    more = "" if len(named) <= NAMED else f", {len(named) - NAMED} more classes"
    return {
        "id": one.id,
        "n": one.n,
        "clear": one.n_clear,
        "free": one.n_clear_unlabelled,
        "said": f"{one.n_labelled:,} labelled{more}" if one.n_labelled else "none labelled",
        "labelled": [{"name": c.name, "color": c.color, "n": n} for c, n in named[:NAMED]],
        "images": [
            {"url": thumb_url(i, items[i].version), "name": items[i].name}
            for i in one.previews
            if i in items
        ],
    }


def _opened() -> None:
    match getattr(st.session_state["looks_clusters"], "open", None):
        case [str(version), int(number)]:
            open_cluster((version, number))


def open_cluster(opened: tuple[str, int] | None) -> None:
    """Choose the cluster that is shown, of a version of the index; None: the list."""
    st.session_state[OPENED] = opened


def _cluster(place: Place, number: int) -> None:
    store, project_id = place.here.app.store, place.project.id
    try:
        ids = looks.cluster_images(
            store, project_id=project_id, cluster_id=number, unlabelled_only=only_unlabelled()
        )
        clear = looks.cluster_images(
            store, project_id=project_id, cluster_id=number, clear_only=True
        )
    except CnsError as error:
        open_cluster(None)
        frame.show_error(error)
        return
    st.button("All clusters", icon=":material/arrow_back:", key="looks_back", on_click=open_cluster,
              args=(None,), type="tertiary")  # fmt: skip
    border = set(ids) - set(clear)
    show_chosen(
        place, ids, what=f"in cluster {number + 1}, the most typical first",
        key="looks_cluster_grid",
        empty="Every image of this cluster has a label.",
        badges={i: Badge("border", "changed") for i in border},
    )  # fmt: skip


@cache
def _component() -> Any:
    folder = Path(__file__).parent
    style = (folder / "looks_clusters.css").read_text(encoding="utf-8")
    script = "\n".join(
        (folder / part).read_text(encoding="utf-8") for part in ("parts.js", "looks_clusters.js")
    )
    return st.components.v2.component("cnsapp_looks_clusters", css=style, js=script)
