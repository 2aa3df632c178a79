"""Small components of our own that live in the browser: gallery, confusion matrix, heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import streamlit as st

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Tile:
    """A picture of a gallery: its address, a name, and a coloured word under it."""

    id: int
    url: str
    name: str
    label: str = ""
    color: str = ""
    note: str = ""


def gallery(
    tiles: Sequence[Tile],
    *,
    key: str,
    selected: int | None = None,
    side: int = 148,
    row: bool = False,
    checkable: bool = False,
    on_open: Callable[[int], None] | None = None,
) -> int | None:
    """Draw thumbnails; return the id of the one just opened, for this one run.

    Parameters
    ----------
    row
        One line that scrolls sideways instead of a grid.
    checkable
        Each picture can be ticked; `ticked` says which are.
    on_open
        Called with the id before the page runs, so that the page can draw what was chosen.
    """

    def opened() -> None:
        chosen = _whole(getattr(st.session_state[key], "open", None))
        if on_open is not None and chosen is not None:
            on_open(chosen)

    result = _component("gallery")(
        key=key,
        data={
            "tiles": [asdict(tile) for tile in tiles],
            "selected": selected,
            "side": side,
            "row": row,
            "checkable": checkable,
        },
        on_open_change=opened,
        on_checked_change=lambda: None,
    )
    return _whole(getattr(result, "open", None))


def ticked(key: str) -> list[int]:
    """Return the ids of the pictures that are ticked in the gallery of this key."""
    ids = getattr(st.session_state.get(key), "checked", None)
    return [i for i in ids if _whole(i) is not None] if isinstance(ids, list) else []


Cells = Literal["counts", "row", "column"]  # what stands in the cells of a matrix
Place = tuple[int | None, int | None]  # (row, column) of a matrix; None means all of them


def matrix(
    *,
    key: str,
    names: Sequence[str],
    counts: Sequence[Sequence[int]],
    selected: Place | None,
    on_choose: Callable[[Place], None],
    titles: tuple[str, str] | None = None,
    show: Cells | None = None,
) -> None:
    """Draw the confusion matrix; `on_choose` is called before the page runs again.

    Parameters
    ----------
    titles
        Whose rows and columns they are where they are not labels and predictions.
    show
        Counts, or shares of the rows or columns; None: a switch in its corner chooses.
    """

    def chosen() -> None:
        place = _place(getattr(st.session_state[key], "cell", None), len(names))
        if place is not None:
            on_choose(place)

    _component("matrix")(
        key=key,
        data={
            "names": list(names),
            "counts": [list(row) for row in counts],
            "selected": list(selected) if selected else None,
            "titles": list(titles) if titles else None,
            "show": show,
        },
        on_cell_change=chosen,
    )


def follow(*, key: str, project_id: int) -> None:
    """Run the fragment that this stands in again when labels given on this page were stored.

    It waits for a pause of the hand that labels; everything outside the fragment stays as it is.
    """
    _component("follow")(key=key, data={"project": project_id}, on_stored_change=lambda: None)


def heat_map(*, key: str, data: Mapping[str, Any]) -> None:
    """Draw a slide with its tiles' predictions over it; `data` as `slide_map.map_data` gives it."""
    _component("heatmap")(key=key, data=dict(data))


def thumb_url(image_id: int, version: str) -> str:
    """Return the address of an image's thumbnail."""
    return f"/img/thumb/{image_id}?v={version}"


def view_url(image_id: int, version: str) -> str:
    """Return the address of an image at display size."""
    return f"/img/view/{image_id}?v={version}"


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _place(value: Any, n: int) -> Place | None:
    if not isinstance(value, Mapping):
        return None
    row, column = value.get("row"), value.get("column")
    for part in (row, column):
        if part is not None and not (isinstance(part, int) and 0 <= part < n):
            return None
    return row, column


@cache
def _component(name: str) -> Any:
    style = (_HERE / f"{name}.css").read_text(encoding="utf-8")
    script = "\n".join(
        (_HERE / part).read_text(encoding="utf-8") for part in ("parts.js", f"{name}.js")
    )
    return st.components.v2.component(f"cnsapp_{name}", css=style, js=script)
