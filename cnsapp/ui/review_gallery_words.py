"""What the gallery of the Review page's matrix says of its list and of every image."""

from __future__ import annotations

from collections.abc import Mapping

from cnsapp.services.review_filter import Order, Show
from cnsapp.services.review_levels import ClassKey
from cnsapp.services.review_list import Listed, ReviewPage
from cnsapp.services.review_matrix import ReviewMatrix
from cnsapp.ui import words
from cnsapp.ui.labeller import Badge
from cnsapp.ui.review_place import Cell


def how_many(page: ReviewPage) -> str:
    """Return which images of the list are on this page; nothing where all are."""
    if len(page.items) >= page.n:
        return ""
    last = page.first + len(page.items) - 1
    return f"{page.first:,} to {last:,} of {words.plural(page.n, 'image')}"


def what_changed(opened: ReviewPage, now: ReviewPage) -> str:
    """Return what has become of a list since it was opened; empty: nothing."""
    shown, there = [i.id for i in opened.items], [i.id for i in now.items]
    if shown == there:
        return ""
    gone = len(set(shown) - set(there))
    if gone and now.n < opened.n:
        return (
            f"{words.plural(gone, 'image has', 'images have')} left this list since it was opened."
        )
    return "The list has changed since it was opened."


def badge(
    item: Listed, names: Mapping[ClassKey, str], order: Order = "confidence", *, blind: bool = False
) -> Badge:
    """Return what the model said of an image, how sure it was, and what it is ordered by."""
    name = "another class" if item.said is None else names.get(item.said, "another class")
    said = f"{name} {item.confidence:.2f}"
    value = None if order in ("confidence", "image") else getattr(item, order)
    if value is not None:
        said += f", {order} {value:.2f}"
    if blind:
        return Badge(said)
    if item.changed:
        return Badge(said, "changed")
    return Badge(said, "wrong" if item.right is False else "plain")


def nothing_here(cell: Cell | None, show: Show, found: ReviewMatrix) -> str:
    """Return what an empty gallery means."""
    if not found.n and show != "elsewhere":
        return "There is no image to show. Take filters away, or look under All."
    if show == "changed":
        return "No label of these images was changed since the model was trained."
    if cell is None and show == "wrong":
        return "The model agrees with every label here. Choose All to see the images."
    return "No image is here." if cell is None else "No image is in this cell."
