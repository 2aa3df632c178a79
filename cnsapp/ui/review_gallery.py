"""The images of the Review page's matrix: a page of a list that stays while one corrects it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import streamlit as st

from cnsapp.services import images, labels, looks, viewing
from cnsapp.services.images import ImageItem
from cnsapp.services.own_labels import labels_of
from cnsapp.services.review_filter import ORDERS, Order, ReviewFilter, Show
from cnsapp.services.review_list import Listed, ReviewPage, list_review
from cnsapp.services.review_matrix import ReviewMatrix, review_matrix
from cnsapp.ui import frame
from cnsapp.ui.labeller import PAGE_SIZE, Reviewing, labeller
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_gallery_words import badge, how_many, nothing_here, what_changed
from cnsapp.ui.review_place import Cell, asked_cell, asked_page, leave_cell, row_of, turn_to

OPENED, LIST = "review_opened", "review_list"  # in the session
SHOWS: dict[str, Show] = {
    "All": "all", "Wrong": "wrong", "Label changed": "changed", "Left out": "elsewhere",
}  # fmt: skip
ORDER_NAMES: dict[str, Order] = {
    "Most confident": "confidence",
    "Least certain: margin": "margin",
    "Least certain: entropy": "entropy",
    "Highest loss": "loss",
    "As imported": "image",
}
FIRST_ORDER = next(iter(ORDER_NAMES))
FEW, FEW_HEIGHT = 10, 470  # a gallery of a few images needs no whole window
BLIND = (
    "This project is labelled blindly: which label others gave is not told of any image, so the "
    "gallery goes by the prediction alone."
)


@dataclass(frozen=True)
class Opened:
    """A page of the list as it was when it was opened: labels given since take no image out."""

    sign: object
    page: ReviewPage


@dataclass(frozen=True)
class Asked:
    """What the gallery shows: the filters with cell and choice, and the order."""

    review: Reviewed
    wanted: ReviewFilter
    order: Order
    blind: bool

    def read(self) -> ReviewPage:
        """Return the page of the list that the address names, as it is now."""
        after, before = asked_page()
        return list_review(
            self.review.here.app.store,
            model_id=self.review.model.id,
            wanted=self.wanted,
            order=self.order,
            after=after,
            before=before,
            limit=PAGE_SIZE,
        )


@dataclass(frozen=True)
class Shown:
    """A page of the list, with what it takes to draw it."""

    asked: Asked
    page: ReviewPage
    found: ReviewMatrix
    cell: Cell | None
    as_of: int  # read before the images, see `labeller`


def open_list(asked: Reviewed, filters: ReviewFilter, *, blind: bool) -> Shown:
    """Draw what the list is called, its choices and pages; return the page that is asked for."""
    store = asked.here.app.store
    found = review_matrix(store, model_id=asked.model.id, wanted=filters)
    cell = asked_cell()
    if cell is not None and blind:
        cell = None if cell[1] is None else (None, cell[1])
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", key="review_filters"
    ):
        st.subheader(frame.plain(title_of(cell, found, asked)), anchor=False, width="content")
        if cell is not None:
            st.button(
                "All wrong ones" if not blind else "All images", key="review_all",
                type="tertiary", icon=":material/close:", on_click=_leave,
            )  # fmt: skip
        show: Show = "all" if blind else _choose_show(cell, found)
        order = _choose_order(blind=blind)
        pager = st.container(
            horizontal=True, vertical_alignment="center", gap="xsmall", width="content"
        )
    if blind:
        st.caption(BLIND)
    label, predicted = cell or (None, None)
    wanted = replace(filters, show=show, label=label, predicted=predicted)
    gallery = Asked(asked, wanted, order, blind)
    as_of = labels.high_water(store)
    page = _opened(gallery)
    with pager:
        st.caption(how_many(page), width="content")
        _turn(page)
    return Shown(gallery, page, found, cell, as_of)


def _leave() -> None:
    leave_cell()
    turn_to()


def _choose_show(cell: Cell | None, found: ReviewMatrix) -> Show:
    """Draw which images are shown; all images of one cell are right, or all are wrong."""
    whole = cell is not None and None not in cell
    offered = [name for name in SHOWS if not (whole and name == "Wrong")]
    if cell is not None or not found.n_elsewhere:
        offered.remove("Left out")
    chosen = st.segmented_control(
        "Show",
        offered,
        key="cell_show" if cell else "show",
        default="All" if cell else "Wrong",
        required=True,
        bind="query-params",
        label_visibility="collapsed",
    )
    return SHOWS[chosen or "All"]


def _choose_order(*, blind: bool) -> Order:
    offered = [name for name, order in ORDER_NAMES.items() if not (blind and order == "loss")]
    name = st.selectbox(
        "Order",
        offered,
        key="order",
        bind="query-params",
        label_visibility="collapsed",
        width=200,
        help=". ".join(ORDERS[ORDER_NAMES[one]] for one in offered) + ".",
    )
    return ORDER_NAMES[name or FIRST_ORDER]


def _opened(asked: Asked) -> ReviewPage:
    """Return the page of the address: as it was opened, with the labels of now."""
    review = asked.review
    store = review.here.app.store
    listed = (str(store.root), review.model.id, review.model.sha256, asked.wanted, asked.order)
    if st.session_state.get(LIST, listed) != listed:
        turn_to()  # another list: its first page
    st.session_state[LIST] = listed
    sign = (listed, asked_page())
    kept = st.session_state.get(OPENED)
    # without the gallery in the run before, one comes from elsewhere: nothing is under the hand
    if isinstance(kept, Opened) and kept.sign == sign and "review_labeller" in st.session_state:
        today = looks.list_items(store, image_ids=[item.id for item in kept.page.items])
        return replace(kept.page, items=as_today(kept.page.items, today))
    page = asked.read()
    if not page.items and any(asked_page()):
        turn_to()
        page = asked.read()
    st.session_state[OPENED] = Opened((listed, asked_page()), page)
    return page


def as_today(items: Sequence[Listed], today: Sequence[ImageItem]) -> list[Listed]:
    """Return the items with what their images are called now; those that are gone are left out."""
    by_id = {item.id: item for item in today}
    return [
        replace(item, **{f.name: getattr(by_id[item.id], f.name) for f in fields(ImageItem)})
        for item in items
        if item.id in by_id
    ]


def _turn(page: ReviewPage) -> None:
    """Draw the buttons to the pages beside, where there are any."""
    if page.after is None and page.before is None:
        return
    for name, icon, key, to, off in (
        ("Previous page", "left", "review_previous", {"before": page.before}, not page.before),
        ("Next page", "right", "review_next", {"after": page.after}, not page.after),
    ):
        st.button(
            "",
            help=name,
            icon=f":material/chevron_{icon}:",
            key=key,
            disabled=off,
            on_click=turn_to,
            kwargs=to,
        )


def say_what_changed(shown: Shown) -> None:
    """Say whether labels given since changed the list; its room is kept, so that nothing jumps."""
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", height=34, border=False
    ):
        said = what_changed(shown.page, shown.asked.read())
        if said:
            st.caption(f":material/sync: {said}", width="content")
            st.button("Show it anew", key="review_anew", type="tertiary", on_click=_anew)


def _anew() -> None:
    st.session_state.pop(OPENED, None)
    st.rerun()


def draw_images(shown: Shown) -> None:
    """Draw the images of the page, to be looked at and corrected."""
    asked, page, found = shown.asked, shown.page, shown.found
    review, blind = asked.review, asked.blind
    store, project_id, who = review.here.app.store, review.project.id, review.here.annotator
    names = dict(zip(found.keys, found.names, strict=True))
    answer = labeller(
        key="review_labeller",
        mode="review",
        images=labels_of(store, page.items, who) if blind else page.items,
        classes=review.classes,
        project_id=project_id,
        annotator=who,
        counts=images.counts(store, project_id=project_id),
        as_of=shown.as_of,
        badges={item.id: badge(item, names, asked.order, blind=blind) for item in page.items},
        empty=nothing_here(shown.cell, asked.wanted.show, found),
        height=FEW_HEIGHT if len(page.items) <= FEW else None,
        um_per_px=viewing.um_per_px(store, project_id=project_id),
        blind=blind,
        whose="mine" if blind else "all",
        review=Reviewing(review.model.id, review.truth, review.part, who if blind else None),
    )
    if answer.opened is not None:
        frame.go_to("pages/explain.py", model=review.model.id, image=answer.opened)


def title_of(cell: Cell | None, found: ReviewMatrix, asked: Reviewed) -> str:
    """Return what the gallery shows, in words."""
    if cell is None:
        return "Images"
    label, predicted = (_name(i, found, asked) for i in cell)
    if label is None:
        return f"Predicted as {predicted}"
    if predicted is None:
        return f"Labelled {label}"
    return f"Labelled {label}, predicted as {predicted}"


def _name(class_id: int | None, found: ReviewMatrix, asked: Reviewed) -> str | None:
    if class_id is None:
        return None
    row = row_of(class_id, found, asked.classes)
    return "another class" if row is None else found.names[row]
