"""Tables for spreadsheets: UTF-8 with a mark, and no cell that runs as a formula."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from cnsapp.domain.names import clean_name
from cnsapp.errors import InvalidInputError


class RowWriter(Protocol):
    """What `csv.writer` returns."""

    def writerow(self, row: Iterable[object], /) -> object:
        """Write one line."""


def safe_cell(text: str) -> str:
    """Return the text so that no spreadsheet takes it for a formula.

    File names and class names come from anywhere. Excel, LibreOffice and Sheets run cells that
    begin with ``= + - @`` or a tab; a leading apostrophe makes them text. Reading the table with
    a program, strip one leading apostrophe where one of these signs follows (`plain_cell`).

    Examples
    --------
    >>> safe_cell("=1+1.png")
    "'=1+1.png"
    >>> safe_cell("liver.png")
    'liver.png'
    """
    return "'" + text if re.match("'*[=+@\t\r-]", text) else text


def plain_cell(text: str) -> str:
    """Return what `safe_cell` was given.

    Examples
    --------
    >>> plain_cell("'=1+1.png"), plain_cell("'quoted'")
    ('=1+1.png', "'quoted'")
    """
    return text[1:] if re.match("'+[=+@\t\r-]", text) else text


def read_csv(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Read a CSV as spreadsheets write it: the names of its columns, and its rows by these names.

    Commas, semicolons and tabs all separate; the text is UTF-8, UTF-16, or what Excel writes in
    Western Europe. Column names come in lower case, cells without blanks around them (but those of
    `file`) and as they were before `safe_cell`, missing cells as "". Rows without any cell are
    left out.

    Raises
    ------
    InvalidInputError
        It cannot be read, or is no CSV table.
    """
    try:
        text = _decode(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror or error}.", "", "Check the path."
        ) from error
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        if "\0" in text:
            raise csv.Error("it is no text")
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InvalidInputError(
            f"{path.name} is not a proper CSV table: {error}.", "", "Save it as CSV again."
        ) from error
    head = tuple(clean_name(cell).casefold() for cell in lines[0]) if lines else ()
    rows = []
    for line in lines[1:]:
        cells = [plain_cell(cell.strip()) for cell in line]
        if any(cells):
            row = dict.fromkeys(head, "") | dict(zip(head, cells, strict=False))
            if row.get("file"):  # a blank may be part of the name
                row["file"] = plain_cell(line[head.index("file")])
            rows.append(row)
    return head, rows


def _decode(raw: bytes) -> str:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")  # what Excel writes in Western Europe


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
