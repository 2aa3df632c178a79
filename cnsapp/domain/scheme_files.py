"""Class schemes as files, JSON or CSV: a lab agrees on its classes once and takes them along."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cnsapp.domain.hotkeys import clean_hotkey, find_conflict
from cnsapp.domain.names import clean_name, name_key
from cnsapp.domain.schemes import ClassSpec, clean_color
from cnsapp.errors import InvalidInputError

FORMAT = "cnsapp class scheme"
VERSION = 1
COLUMNS = ("name", "parent", "color", "key", "description")
OTHER_WORDS = {"class": "name", "colour": "color", "hotkey": "key", "group": "parent"}
LARGEST = 1_000_000  # bytes: a scheme of thousands of classes is smaller
MOST_CLASSES = 2000
LONGEST_NAME = 200
LONGEST_DESCRIPTION = 2000


@dataclass(frozen=True)
class Scheme:
    """Classes as a file gives them.

    Attributes
    ----------
    classes
        In the file's order; one or more.
    name
        What the scheme is called; empty in a CSV.
    ignored
        Columns or entries of the file that mean nothing here.
    """

    classes: tuple[ClassSpec, ...]
    name: str = ""
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """One class of a file before it is checked, and where it stands: `line 3` or `class 2`."""

    where: str
    cells: Mapping[str, str]


def read_scheme(data: bytes, file_name: str = "the file") -> Scheme:
    """Return the class scheme that a file holds; JSON and CSV are told apart by their content.

    CSV: a head with the column `name` and, wanted or not, parent, color, key and description;
    comma, semicolon or tab between the cells; UTF-8, UTF-16 or what Excel writes in Western Europe
    (Windows-1252).

    Parameters
    ----------
    data
        The file's bytes, at most `LARGEST`.
    file_name
        For the messages.

    Raises
    ------
    InvalidInputError
        The file is no class scheme, or a class cannot be as it says: a name that is empty, too long
        or the same as another but for case, blanks or Unicode form (names both lines), a bad
        colour, a key that is reserved or conflicts with another (names both).
    """
    if len(data) > LARGEST:
        raise InvalidInputError(
            f"{file_name} has {len(data):,} bytes; a class scheme has at most {LARGEST:,}.",
            "It is probably another file.",
            "Choose a class scheme.",
        )
    text = _decode(data, file_name)
    is_json = text.lstrip()[:1] in ("{", "[")
    name, rows, ignored = (_json_rows if is_json else _csv_rows)(text, file_name)
    if not rows:
        raise InvalidInputError(
            f"{file_name} names no class.", "", "Put one class on each line below the head."
        )
    if len(rows) > MOST_CLASSES:
        raise InvalidInputError(
            f"{file_name} names {len(rows):,} classes; {MOST_CLASSES:,} is the most.",
            "It is probably another file.",
            "Choose a class scheme.",
        )
    return Scheme(tuple(_checked(rows)), name, ignored)


def write_csv(classes: Iterable[ClassSpec]) -> bytes:
    """Return the classes as CSV (UTF-8 with a mark, for Excel); `read_scheme` gives them back.

    Cells that a spreadsheet would run as formulas begin with an apostrophe.
    """
    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(COLUMNS)
    for spec in classes:
        table.writerow([_safe(cell) for cell in _cells(spec).values()])
    return out.getvalue().encode("utf-8-sig")


def write_json(classes: Iterable[ClassSpec], name: str = "") -> bytes:
    """Return the classes as JSON (UTF-8); `read_scheme` gives them back."""
    rows = [{key: cell for key, cell in _cells(spec).items() if cell} for spec in classes]
    whole = {"format": FORMAT, "version": VERSION, "name": name, "classes": rows}
    return (json.dumps(whole, ensure_ascii=False, indent=2) + "\n").encode()


def _cells(spec: ClassSpec) -> dict[str, str]:
    values = (spec.name, spec.parent, spec.color, spec.hotkey, spec.description)
    return {column: value or "" for column, value in zip(COLUMNS, values, strict=True)}


def _decode(data: bytes, file_name: str) -> str:
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InvalidInputError(
        f"{file_name} is not a text file.", "", "Save it as CSV (UTF-8) or as JSON."
    )


def _csv_rows(text: str, file_name: str) -> tuple[str, list[_Row], tuple[str, ...]]:
    lines = _csv_lines(text, file_name)
    if not lines:
        return "", [], ()
    line_of_head, cells = lines[0]
    head = [_column(cell) for cell in cells]
    if "name" not in head:
        raise InvalidInputError(
            f"{file_name} has no column “name” in line {line_of_head}.",
            f"The columns of a class scheme are {', '.join(COLUMNS)}; only name must be there.",
            "Write them into the first line.",
        )
    known = [column for column in head if column in COLUMNS]
    if twice := [column for column in COLUMNS if known.count(column) > 1]:
        raise InvalidInputError(
            f"{file_name} has the column “{twice[0]}” twice.", "", "Keep one of the two."
        )
    rows = []
    for line, row in lines[1:]:
        if any(cell.strip() for cell in row[len(head) :]):
            raise InvalidInputError(
                f"Line {line} of {file_name} has {len(row)} cells, the head {len(head)}.",
                "Which cell is meant for which column cannot be told.",
                "Put a text that holds the separator into double quotes.",
            )
        pairs = zip(head, row, strict=False)
        rows.append(_Row(f"line {line}", {c: _plain(v.strip()) for c, v in pairs if c in COLUMNS}))
    ignored = tuple(c.strip() for c, col in zip(cells, head, strict=True) if col not in COLUMNS)
    return "", rows, tuple(c for c in ignored if c)


def _csv_lines(text: str, file_name: str) -> list[tuple[int, list[str]]]:
    """Return the rows that are not blank, each with the number of its first line in the file."""
    mark = re.match(r"sep=([,;\t])\r?\n", text)  # a line of Excel's own
    first = text[mark.end() if mark else 0 :].lstrip("\r\n").split("\n", 1)[0]
    delimiter = mark[1] if mark else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, begins = [], 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row) and not (mark and begins == 1):
                rows.append((begins, row))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InvalidInputError(
            f"{file_name} is not a proper CSV table: {error} (line {begins}).",
            "",
            "Save it as CSV again.",
        ) from error
    return rows


def _column(cell: str) -> str:
    word = clean_name(cell).casefold()
    return OTHER_WORDS.get(word, word)


def _json_rows(text: str, file_name: str) -> tuple[str, list[_Row], tuple[str, ...]]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidInputError(
            f"{file_name} is not proper JSON{place}.", "", "Export the scheme again."
        ) from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise InvalidInputError(
            f"{file_name} is JSON, but no class scheme: its format is not “{FORMAT}”.",
            "",
            "Choose a file that a project exported, or use a CSV.",
        )
    version = whole.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InvalidInputError(
            f"{file_name} does not say the version of its format.", "", "Export the scheme again."
        )
    if version > VERSION:
        raise InvalidInputError(
            f"{file_name} has version {version} of the format; this program knows {VERSION}.",
            "A newer program wrote it, and parts of it could be misread.",
            "Update this program, or export the scheme as CSV.",
        )
    entries = whole.get("classes")
    if not isinstance(entries, list):
        raise InvalidInputError(f"{file_name} has no list “classes”.", "", "Export it again.")
    rows = [_json_row(i, entry, file_name) for i, entry in enumerate(entries, 1)]
    extra = {str(key) for entry in entries for key in entry if key not in COLUMNS}
    name = whole.get("name")
    return clean_name(name) if isinstance(name, str) else "", rows, tuple(sorted(extra))


def _json_row(number: int, entry: object, file_name: str) -> _Row:
    if not isinstance(entry, dict):
        raise InvalidInputError(
            f"Class {number} of {file_name} is not an object with a name.", "", "Export it again."
        )
    for column in COLUMNS:
        if not isinstance(entry.get(column) or "", str):
            raise InvalidInputError(
                f"“{column}” of class {number} in {file_name} is not a text.", "", "Quote it."
            )
    return _Row(f"class {number}", {column: entry.get(column) or "" for column in COLUMNS})


def _checked(rows: Sequence[_Row]) -> list[ClassSpec]:
    specs = [_spec(row) for row in rows]
    _refuse_alike([(row.where, spec.name) for row, spec in zip(rows, specs, strict=True)])
    _refuse_spelt_otherwise(
        [(row.where, s.parent) for row, s in zip(rows, specs, strict=True) if s.parent]
    )
    where = {spec.name: row.where for row, spec in zip(rows, specs, strict=True)}
    keys = {spec.name: spec.hotkey for spec in specs}
    if found := find_conflict(keys):
        one, other = found
        raise InvalidInputError(
            f"“{one}” ({where[one]}) has the key {keys[one]} and “{other}” ({where[other]}) the "
            f"key {keys[other]}.",
            "After one press nobody could say which of the two is meant.",
            "Give one of them a key that begins with another letter or digit.",
        )
    return specs


def _spec(row: _Row) -> ClassSpec:
    name = _name(row, "name")
    if not name:
        raise InvalidInputError(
            f"The class in {row.where} has no name.", "", "Give it a name, or remove it."
        )
    color, key = row.cells.get("color", "").strip(), row.cells.get("key", "").strip()
    return ClassSpec(
        name=name,
        parent=_name(row, "parent") or None,
        color=_placed(row, name, clean_color, color) if color else None,
        hotkey=_placed(row, name, clean_hotkey, key) if key else None,
        description=_description(row, name),
    )


def _name(row: _Row, column: str) -> str:
    """Return a class or parent name as it is stored; refuse one that cannot be."""
    shown = clean_name(row.cells.get(column, ""))
    if len(shown) > LONGEST_NAME:
        raise InvalidInputError(
            f"The {column} in {row.where} has {len(shown)} characters; {LONGEST_NAME} is the most.",
            "",
            "Shorten it; the description has room.",
        )
    if not shown.isprintable():
        raise InvalidInputError(
            f"The {column} {shown!r} in {row.where} holds characters that cannot be seen.",
            "Two such names would look the same.",
            "Type it again without them.",
        )
    return shown


def _placed(row: _Row, name: str, clean: Callable[[str], str], cell: str) -> str:
    """Return the cleaned cell; an error says where it stands."""
    try:
        return clean(cell)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"“{name}” ({row.where}): {error.what}", error.why, error.remedy
        ) from None


def _description(row: _Row, name: str) -> str:
    text = unicodedata.normalize("NFC", row.cells.get("description", ""))
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text) > LONGEST_DESCRIPTION:
        raise InvalidInputError(
            f"The description of “{name}” ({row.where}) has {len(text):,} characters; "
            f"{LONGEST_DESCRIPTION:,} is the most.",
            "",
            "Shorten it.",
        )
    # an unseen character is no reason to refuse a text that only people read
    return "".join(ch for ch in text if ch == "\n" or ch.isprintable()).strip()


def _refuse_alike(names: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for where, name in names:
        first, there = seen.setdefault(name_key(name), (where, name))
        if first != where:
            raise InvalidInputError(
                f"“{there}” ({first}) and “{name}” ({where}) are the same class name: they differ "
                "at most by case, blanks or Unicode form.",
                "Two classes that read alike would be mixed up in labels and results.",
                "Keep one of them, or choose a name that reads differently.",
            )


def _refuse_spelt_otherwise(parents: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for where, parent in parents:
        first, there = seen.setdefault(name_key(parent), (where, parent))
        if there != parent:
            raise InvalidInputError(
                f"The parents “{there}” ({first}) and “{parent}” ({where}) differ only by case, "
                "blanks or Unicode form.",
                "They would be two groups that read alike.",
                "Write them the same way.",
            )


def _safe(cell: str) -> str:
    return "'" + cell if re.match("'*[=+@\t\r-]", cell) else cell


def _plain(cell: str) -> str:
    """Return what `_safe` was given."""
    return cell[1:] if re.match("'+[=+@\t\r-]", cell) else cell
