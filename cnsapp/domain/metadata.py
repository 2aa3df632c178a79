"""Columns of a lab's table that say something of an image beside its label: stain, age, batch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

PREFIX = "meta_"  # what an export puts before the names of these columns
NOT_META = frozenset(("file", "sha256", "label", "group"))  # these have a meaning of their own
MAX_KEY, MAX_VALUE = 100, 400  # characters

Value = tuple[str, float | None]  # as written, and as a number where it is one


def meta_columns(head: Iterable[str]) -> dict[str, str]:
    """Return which columns of a table are metadata, and the name of each.

    In a table that this app exported these are the columns that begin with ``meta_``; in others
    all that have no meaning of their own.

    Examples
    --------
    >>> meta_columns(["file", "label", "stain", "age"])
    {'stain': 'stain', 'age': 'age'}
    >>> meta_columns(["file", "annotator", "meta_stain"])
    {'meta_stain': 'stain'}
    """
    columns = [name for name in head if name and name not in NOT_META]
    exported = [name for name in columns if name.startswith(PREFIX) and name != PREFIX]
    if exported:
        return {name: name.removeprefix(PREFIX)[:MAX_KEY] for name in exported}
    return {name: name[:MAX_KEY] for name in columns}


def read_values(
    rows: Sequence[Mapping[str, str]], columns: Mapping[str, str]
) -> list[dict[str, Value]]:
    """Return for each row its values by name, without the empty ones.

    Numbers may have a decimal comma where the whole column reads so.
    """
    commas = {c for c in columns if _has_decimal_commas(row.get(c, "") for row in rows)}
    return [
        {
            key: (row[column][:MAX_VALUE], to_number(row[column], column in commas))
            for column, key in columns.items()
            if row.get(column)
        }
        for row in rows
    ]


def to_number(text: str, decimal_comma: bool = False) -> float | None:
    """Return a finite number, or None for what is none.

    Examples
    --------
    >>> to_number("1.5e3"), to_number("0,25", decimal_comma=True), to_number("nan"), to_number("A")
    (1500.0, 0.25, None, None)
    """
    plain = text.strip()
    if decimal_comma:
        plain = plain.replace(",", ".")
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", plain):
        return None
    value = float(plain)
    return value if math.isfinite(value) else None


def _has_decimal_commas(values: Iterable[str]) -> bool:
    filled = [value.strip() for value in values if value.strip()]
    with_comma = [value for value in filled if "," in value]
    return (
        bool(with_comma)
        and all(re.fullmatch(r"[+-]?\d+(,\d+)?", value) for value in filled)
        # 1,250 alone may be a thousand
        and any(not re.fullmatch(r"[+-]?\d{1,3},\d{3}", value) for value in with_comma)
    )
