"""What the browser draws of a model's list of label errors: figures, pairs of classes, lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.services import looks
from cnsapp.services.images import ImageItem
from cnsapp.services.label_errors import Summary, Suspect, SuspectPage
from cnsapp.services.projects import ClassView
from cnsapp.ui import words
from cnsapp.ui.components import thumb_url, view_url

GRAY = "#9AA8AB"
PAGE = 60  # lines of one answer; the browser asks for more before they are used up


def page_data(app: App, page: SuspectPage, classes: Sequence[ClassView]) -> dict[str, Any]:
    """Return a page of the list, with its images and their nearest labelled neighbours."""
    near = sorted({i for one in page.items for i in one.neighbour_ids})
    items = {item.id: item for item in looks.list_items(app.store, image_ids=near)}
    by_id = {c.id: c for c in classes}
    return {
        "rows": [_row(one, items, by_id) for one in page.items],
        "next": None if page.next_after is None else list(page.next_after),
        "n": page.n,
    }


def _row(
    one: Suspect, items: Mapping[int, ImageItem], classes: Mapping[int, ClassView]
) -> dict[str, Any]:
    image = one.image
    return {
        "id": image.id,
        "sha": image.sha256[:8],
        "rev": image.rev,
        "name": image.name,
        "group": image.group or "",
        "thumb": thumb_url(image.id, image.version),
        "view": view_url(image.id, image.version),
        "label": _called(one.label_class_id, one.label, classes),
        "to": _called(one.suggested_class_id, one.suggested, classes),
        "score": round(one.score, 4),
        "sure": one.flagged,
        "reason": one.reason,
        "near": [_near(items[i], classes) for i in one.neighbour_ids if i in items],
    }


def _called(class_id: int, name: str, classes: Mapping[int, ClassView]) -> dict[str, Any]:
    known = classes.get(class_id)
    return {"id": class_id, "name": name, "color": known.color if known else GRAY}


def _near(item: ImageItem, classes: Mapping[int, ClassView]) -> dict[str, Any]:
    known = classes.get(item.class_id) if item.class_id is not None else None
    said = known.name if known else words.STATES.get(item.state) or "no label"
    return {
        "url": thumb_url(item.id, item.version),
        "name": item.name,
        "label": said,
        "color": known.color if known else "",
    }


def summary_data(found: Summary) -> dict[str, Any]:
    """Return the figures above the list, what to do next, and the pairs of classes."""
    return {
        "figures": figures(found),
        "advice": advice(found),
        "stop": not found.doubt and (found.progress.enough or not found.n_open),
        "doubted": bool(found.doubt),
        "n_open": found.n_open,
        "pairs": [
            {
                "label": pair.label_class_id,
                "to": pair.suggested_class_id,
                "said": f"{pair.label} that look like {pair.suggested}",
                "n": pair.n_open,
            }
            for pair in found.pairs
        ],
    }


def figures(found: Summary) -> list[tuple[str, str, str]]:
    """Return name, value and what stands under it, of the figures above the list."""
    so_far = found.progress
    less = found.n_open - found.n_open_flagged
    share, under = words.NONE, "nothing decided yet"
    if so_far.precision is not None:
        low, high = so_far.interval or (0.0, 1.0)
        share = words.percent(so_far.precision)
        under = (
            f"{so_far.n_wrong:,} of {so_far.n_looked:,} wrong · 95 % interval "
            f"{100 * low:.0f} to {100 * high:.0f} %"
        )
    called = "Called wrong" if found.doubt else "Probably wrong"
    left = so_far.expected_left
    expected = (
        "fewer than 1" if left < 1 else f"about {left:,.0f}",
        f"of {words.plural(so_far.n_open, 'label')} not looked at",
    )
    if found.doubt:
        expected = words.NONE, "this model cannot tell"
    aside = f", {found.n_set_aside:,} set aside" if found.n_set_aside else ""
    return [
        (called, f"{found.n_open_flagged:,}", f"and {less:,} less sure, below them"),
        ("Wrong among those decided", share, under),
        ("Expected wrong, still there", *expected),
        ("Decided", f"{so_far.n_looked:,}", f"of {found.n_listed:,} in the list{aside}"),
    ]


def advice(found: Summary) -> str:
    """Return whether to go on or to stop, in words."""
    if found.doubt:
        return "These are mostly the model's own errors: this list is not worth working through."
    if not found.n_open:
        return "Done: nothing is left in the list. Train again; the next list begins better."
    n, wrong = found.progress.n_next, found.progress.expected_next
    if found.progress.enough:
        return (
            f"A good place to stop: of the next {n:,} fewer than one is expected to be wrong. "
            "Train again with the labels put right."
        )
    return f"Go on: of the next {n:,} about {wrong:,.0f} are expected to be wrong."
