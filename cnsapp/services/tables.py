"""Tables for spreadsheets: UTF-8 with a mark, and no cell that runs as a formula."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol


class RowWriter(Protocol):
    """What `csv.writer` returns."""

    def writerow(self, row: Iterable[object], /) -> object:
        """Write one line."""


def safe_cell(text: str) -> str:
    """Return the text so that no spreadsheet takes it for a formula.

    File names and class names come from anywhere. Excel, LibreOffice and Sheets run cells that
    begin with ``= + - @`` or a tab; a leading apostrophe makes them text. Reading the table with
    a program, strip one leading apostrophe where one of these signs follows.

    Examples
    --------
    >>> safe_cell("=1+1.png")
    "'=1+1.png"
    >>> safe_cell("liver.png")
    'liver.png'
    """
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


@contextmanager
def whole_file(target: Path, mode: str = "w") -> Iterator[IO[str]]:
    """Yield a text file that takes its name only when all was written; an error leaves nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open(mode, encoding="utf-8-sig", newline="") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def csv_file(target: Path, columns: Sequence[str]) -> Iterator[RowWriter]:
    """Yield a writer of a CSV with these columns; the file appears whole or not at all."""
    with whole_file(target) as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        yield writer
