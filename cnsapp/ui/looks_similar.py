"""Images similar to some: the third part of the view “By looks”."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cnsapp.services import looks
from cnsapp.services.images import ImageItem
from cnsapp.ui import words
from cnsapp.ui.components import Tile, gallery, thumb_url
from cnsapp.ui.labeller import PAGE_SIZE, Badge
from cnsapp.ui.looks_bulk import Place, look_like, only_unlabelled, show_chosen

STARTS = 24  # images to start from


def similar_view(place: Place) -> None:
    """Draw what is looked like, and the images most similar to it."""
    wanted = asked()
    items = [
        item
        for item in looks.list_items(place.here.app.store, image_ids=wanted)
        if item.id in looks.in_use(place.here.app.store, place.project.id, wanted)
    ]
    if not items:
        _find(place)
        _starts(place)
        return
    left, right = st.columns([1, 2], gap="medium", vertical_alignment="center")
    with left:
        _find(place)
    with right:
        gallery(
            [Tile(item.id, thumb_url(item.id, item.version), item.name) for item in items],
            key="looks_like", side=84, row=True, on_open=lambda i: look_like([i]),
        )  # fmt: skip
    what = "this image" if len(items) == 1 else f"the middle of these {len(items)}"
    found = looks.similar(
        place.here.app.store, project_id=place.project.id,
        image_ids=[item.id for item in items], n=PAGE_SIZE, unlabelled_only=only_unlabelled(),
    )  # fmt: skip
    show_chosen(
        place, [match.image_id for match in found],
        what=f"similar to {what}, the most similar first",
        key="looks_similar_grid", similar=False, empty="No other image is left.",
        badges={m.image_id: Badge(f"{m.similarity:.2f}") for m in found},
    )  # fmt: skip


def asked() -> list[int]:
    """Return the images that the address asks for."""
    return asked_for(st.query_params.get("like"))


def asked_for(given: str | None) -> list[int]:
    """Return the image numbers of an address such as `?like=12,15`; what is none is left out."""
    parts = (given or "").split(",")[:50]
    return [int(p) for p in parts if p.isascii() and p.isdigit() and 0 < len(p) < 10]


def _find(place: Place) -> None:
    with st.form("looks_find", border=False, width=400):
        field, button = st.columns([3, 1], vertical_alignment="bottom", gap="small")
        name = field.text_input(
            "Similar to which image?", key="looks_name", placeholder="File name or image number"
        )
        if button.form_submit_button("Find", key="looks_find_go") and name.strip():
            found = looks.find_image(
                place.here.app.store, project_id=place.project.id, name=name.strip()
            )
            if found is None:
                st.warning(f"No image, or more than one, is called “{words.plain(name)}”.")
            else:
                st.query_params["like"] = str(found)


def _starts(place: Place) -> None:
    """Show an image of each of the largest clusters, to start from."""
    found = looks.clusters(place.here.app.store, project_id=place.project.id)
    first = [one.previews[0] for one in found if one.previews][:STARTS]
    items: Sequence[ImageItem] = looks.list_items(place.here.app.store, image_ids=first)
    st.caption("Or start from one of these: each is typical of a cluster.")
    gallery(
        [Tile(item.id, thumb_url(item.id, item.version), item.name) for item in items],
        key="looks_starts", on_open=lambda i: look_like([i]),
    )  # fmt: skip
