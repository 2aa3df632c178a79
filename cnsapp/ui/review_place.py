"""Where one is in the Review page's matrix and list, as the address has it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import streamlit as st

from cnsapp.domain.names import clean_name, name_key
from cnsapp.services.projects import ClassView
from cnsapp.services.review_filter import Cursor
from cnsapp.services.review_matrix import ReviewMatrix
from cnsapp.ui.components import Place

CELL = "cell"  # in the address: "label class-predicted class", an empty side means all
AFTER, BEFORE = "after", "before"  # "value:image" of the last or first image of a page beside
Cell = tuple[int | None, int | None]  # (label, prediction) as class ids; also of organ systems


def asked_cell() -> Cell | None:
    """Return the cell that the address names."""
    label, dash, predicted = str(st.query_params.get(CELL) or "").partition("-")
    if not dash or not all(re.fullmatch("[0-9]{0,15}", part) for part in (label, predicted)):
        return None
    cell = (int(label) if label else None, int(predicted) if predicted else None)
    return None if cell == (None, None) else cell


def take_cell(place: Place, ids: Sequence[int]) -> None:
    """Put a cell of the matrix into the address."""
    parts = ["" if at is None else str(ids[at]) for at in place]
    st.query_params[CELL] = "-".join(parts)


def leave_cell() -> None:
    """Look at the images of all cells again."""
    st.query_params.pop(CELL, None)


def row_of(class_id: int, found: ReviewMatrix, classes: Sequence[ClassView]) -> int | None:
    """Return the row of a matrix that counts a class, or None."""
    if class_id in found.ids:
        return found.ids.index(class_id)
    one = next((c for c in classes if c.id == class_id), None)
    if one is None:
        return None
    system = name_key(clean_name(one.parent or "") or one.name)
    rows = [k for k, key in enumerate(found.keys) if isinstance(key, str)]
    return next((k for k in rows if name_key(str(found.keys[k])) == system), None)


def as_place(cell: Cell | None, found: ReviewMatrix, classes: Sequence[ClassView]) -> Place | None:
    """Return a cell as its row and column in the matrix; None where that has no such cell."""
    if cell is None:
        return None
    rows = [None if i is None else row_of(i, found, classes) for i in cell]
    if any(row is None and i is not None for row, i in zip(rows, cell, strict=True)):
        return None
    return rows[0], rows[1]


def asked_page() -> tuple[Cursor | None, Cursor | None]:
    """Return behind and before which place of the list the address wants a page."""
    return _cursor(st.query_params.get(AFTER)), _cursor(st.query_params.get(BEFORE))


def turn_to(*, after: Cursor | None = None, before: Cursor | None = None) -> None:
    """Name another page of the list in the address; without a place: the first."""
    for name, at in ((AFTER, after), (BEFORE, before)):
        if at is not None:
            st.query_params[name] = f"{at[0]!r}:{at[1]}"
        elif name in st.query_params:
            del st.query_params[name]


def _cursor(said: str | None) -> Cursor | None:
    value, colon, image_id = (said or "").rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,15}", image_id):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else (number, int(image_id))
