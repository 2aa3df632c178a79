"""The labelling component: a grid, one by one, or the review gallery, in the browser's own hands.

Labels need no rerun: the browser sends them to `/api/labels` (see `http.py`) and calls them saved
when the answer says that the database has them. The page only decides which images are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import streamlit as st

from cnsapp.services.review import Part, Truth

Mode = Literal["grid", "single", "review"]
Tone = Literal["plain", "wrong", "changed"]
BULK_STAMP = "bulk_stamp"  # in the session: the last action that the page itself stored
PAGE_SIZE = 200  # cells a browser draws and paints without being noticed

_HERE = Path(__file__).parent
_VIEWER = (
    "elements.js", "scalebar.js", "look.js", "tiles.js", "gestures.js", "laid.js", "viewer.js",
)  # fmt: skip
_ONE = ("queue.js", "single.js")
_BESIDE = (
    "popup.js", "typeahead.js", "suggest.js", "notes.js", "history.js", "news.js", "place.js",
)  # fmt: skip
_GRID = ("cells.js", "grid.js", "big.js")
_WHY = ("why.js", "why_parts.js", "why_map.js", "why_near.js")
_PARTS = (
    *_VIEWER, "outbox.js", "undoing.js", "state.js", "chords.js", "panel.js", "sheet.js", *_BESIDE,
    *_GRID, *_WHY, *_ONE, "keys.js", "labeller.js",
)  # fmt: skip


class ShownImage(Protocol):
    """What the component needs to know of an image; `services.images.ImageItem` has it."""

    @property
    def id(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def class_id(self) -> int | None: ...
    @property
    def rev(self) -> int: ...
    @property
    def version(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def um_per_px(self) -> float | None: ...
    @property
    def channels(self) -> int: ...


class ShownClass(Protocol):
    """What the component needs to know of a class; `services.projects.ClassView` has it."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def color(self) -> str: ...
    @property
    def hotkey(self) -> str | None: ...


@dataclass(frozen=True)
class Badge:
    """A short text on an image of the review gallery, such as “liver 0.98”."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Reviewing:
    """Whose answers stand beside the large picture of the review gallery.

    Attributes
    ----------
    model_id
        The model.
    truth
        The labels that loss and right or wrong are of.
    part
        The predictions that the page lists; `test` only where the look was noted (`ui.locked`).
    only
        Blind reading: the one person whose labels, notes and history may be seen.
    """

    model_id: int
    truth: Truth = "trained"
    part: Part = "fold"
    only: str | None = None


@dataclass(frozen=True)
class Labelled:
    """What the component asks its page for."""

    opened: int | None  # review: the image to explain, for this one rerun


def labeller(
    *,
    key: str,
    mode: Mode = "grid",
    images: Sequence[ShownImage],
    classes: Sequence[ShownClass],
    project_id: int,
    annotator: str,
    counts: Any = None,
    as_of: int | None = None,
    badges: Mapping[int, Badge] | None = None,
    ask: Mapping[str, Any] | None = None,
    empty: str = "",
    height: int | None = None,
    um_per_px: float | None = None,
    blind: bool = False,
    whose: Literal["all", "mine"] = "all",
    source: str | None = None,
    review: Reviewing | None = None,
    on_like: Callable[[list[int]], None] | None = None,
    on_next: Callable[[str], None] | None = None,
) -> Labelled:
    """Draw the component and return what it asks for.

    Parameters
    ----------
    key
        Its name on the page; the browser keeps selection and scroll place while it stays.
    images
        At most `PAGE_SIZE` in a grid; none in single mode, where the browser asks the queue.
    annotator
        Who labels. Empty: the component asks for a name instead of labelling.
    counts
        `services.images.Counts` of the project, shown as progress.
    as_of
        `services.labels.high_water`, read *before* images and counts: rows of a slow rerun then
        never paint over labels that were saved meanwhile.
    badges
        Review: image id to its badge.
    ask
        Single: what the browser asks the queue for (`http_queue.py`): strategy, filter, class_id.
    empty
        What to say when there are no images.
    height
        In pixels; by default as high as the window leaves room for.
    um_per_px
        The project's micrometres a pixel, for the scale bar of files that do not say.
    blind
        Do not send what a model or other people think: not even hidden.
    whose
        `mine`: the rows tell what the annotator said alone (`own_labels.labels_of`); answers of the
        server, history and news do so too.
    source
        What labels are stored as, where that is not how they were given: `adjudication`.
    review
        Review: the large picture also shows why this model says what it says; None leaves that out.
    on_like
        Grid: offers to find images similar to the selected ones, whose ids it is called with before
        the page runs.
    on_next
        Single: called with the strategy that a button at the end of the queue asks for.
    """
    shown = badges or {}

    def liked() -> None:
        ids = getattr(st.session_state[key], "like", None)
        if on_like is not None and isinstance(ids, list):
            on_like([i for i in ids if isinstance(i, int) and not isinstance(i, bool)])

    def wished() -> None:
        strategy = getattr(st.session_state[key], "next", None)
        if on_next is not None and isinstance(strategy, str):
            on_next(strategy)

    result = _component()(
        key=key,
        data={
            "mode": mode,
            "images": [row_of(image, shown.get(image.id), blind) for image in images],
            "classes": [_choice(one) for one in classes],
            "project_id": project_id,
            "annotator": annotator,
            "counts": _counts(counts),
            "as_of": as_of,
            "ask": dict(ask or {}),
            "empty": empty,
            "height": height,
            "um_per_px": um_per_px,
            "blind": blind,
            "stamp": st.session_state.get(BULK_STAMP, ""),
            "whose": whose,
            "source": source,
            "review": None if review is None or mode != "review" else asdict(review),
            "similar": on_like is not None and mode != "single",
        },
        on_like_change=liked,
        on_open_change=_nothing,
        on_next_change=wished,
    )
    return Labelled(opened=result.open)


def closeup(
    *, key: str, image: ShownImage, um_per_px: float | None = None, height: int = 560
) -> None:
    """Draw one image that can be zoomed into, without labelling it.

    Parameters
    ----------
    um_per_px
        As for `labeller`.
    height
        In pixels; less on a low screen.
    """
    _viewer()(
        key=key,
        data={"image": row_of(image), "um_per_px": um_per_px, "height": height},
    )


@cache
def _component() -> Any:
    return st.components.v2.component(
        "cnsapp_labeller",
        css=_joined("labeller.css", "viewer.css", "beside.css", "why.css"),
        js=_joined(*_PARTS),
    )


@cache
def _viewer() -> Any:
    return st.components.v2.component(
        "cnsapp_closeup",
        css=_joined("labeller.css", "viewer.css"),
        js=_joined(*_VIEWER, "alone.js"),
    )


def _joined(*parts: str) -> str:
    # one module out of several files: a component's script cannot import its neighbours
    return "\n".join((_HERE / part).read_text(encoding="utf-8") for part in parts)


# sent where an image has them
_MORE = ("source", "disputed", "tags", "noted", "second", "reason", "as_source")


def row_of(image: ShownImage, badge: Badge | None = None, blind: bool = False) -> dict[str, Any]:
    """Return an image as the component takes it."""
    row: dict[str, Any] = {
        "id": image.id,
        "sha": image.sha256[:8],
        "version": image.version,
        "name": image.name,
        "width": image.width,
        "height": image.height,
        "um_per_px": image.um_per_px,
        "channels": image.channels,
        "state": image.state,
        "class_id": image.class_id,
        "rev": image.rev,
    }
    row |= {name: value for name in _MORE if (value := getattr(image, name, None))}
    suggestion = getattr(image, "suggestion", None)
    if blind:
        row.pop("disputed", None)
    elif suggestion is not None:
        row["suggestion"] = {
            "class_id": suggestion.class_id,
            "confidence": round(suggestion.confidence, 4),
        }
    if badge is not None:
        row["badge"] = asdict(badge)
    return row


def _choice(one: ShownClass) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "parent": one.parent,
        "color": one.color,
        "hotkey": one.hotkey,
    }


def _counts(counts: Any) -> dict[str, Any] | None:
    if counts is None:
        return None
    return {
        "images": counts.images,
        "labelled": counts.labelled,
        "skipped": counts.skipped,
        "unsure": counts.unsure,
        "waiting": counts.waiting,
        "undecided": counts.undecided,
        "per_class": {str(class_id): n for class_id, n in counts.per_class.items()},
    }


def _nothing() -> None:
    """The page reads what the component set; there is nothing to do beforehand."""
