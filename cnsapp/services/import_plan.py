"""What an import was told about its files: the label, the group and the metadata of each."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import regex

from cnsapp.domain.matching import match_names
from cnsapp.domain.metadata import Value, meta_columns, read_values
from cnsapp.domain.names import clean_name
from cnsapp.errors import InvalidInputError
from cnsapp.imaging.candidates import Candidate
from cnsapp.services.tables import read_csv

FOLDERS, FOLDER = "folders", "folder"
SIDECAR = "labels.csv"  # a table of this name in the imported folder gives the groups
PATTERN_SECONDS = 0.25  # a pattern takes microseconds a name, or for ever

Find = Callable[[Candidate, str], str | None]  # (file, its SHA-256) -> label or group


@dataclass(frozen=True)
class Table:
    """A CSV file about images: a row for each, named by its file or its SHA-256."""

    path: Path
    key: str  # "file" or "sha256"
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


class TableRows:
    """The rows of a table by the files of an import that they are about.

    A file is named as `match_names` describes. `strangers` are the names of rows without a file;
    which rows by SHA-256 have none is known only when all files were read.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self.table = table
        self.strangers: tuple[str, ...] = ()
        self._of: dict[str, dict[str, str]] = {}
        if table.key == "sha256":
            self._of = {row["sha256"].lower(): row for row in table.rows if row["sha256"]}
            return
        written = [row["file"] for row in table.rows if row["file"]]
        meant = match_names(written, names)
        self.strangers = tuple(dict.fromkeys(name for name in written if name not in meant))
        for row in table.rows:
            name = meant.get(row["file"])
            if name is not None and self._of.setdefault(name, row) != row:
                raise _two_rows(table.path, row["file"])

    def row(self, candidate: Candidate, sha256: str) -> dict[str, str] | None:
        """Return the row of a file, None when there is none."""
        return self._of.get(sha256 if self.table.key == "sha256" else candidate.name)

    def has(self, name: str, sha256: str) -> bool:
        """Return whether there is a row for a file."""
        return (sha256 if self.table.key == "sha256" else name) in self._of

    def unused(self, seen: Container[str]) -> list[str]:
        """Return the rows by SHA-256 that are about none of the files that were seen."""
        return [sha for sha in self._of if self.table.key == "sha256" and sha not in seen]

    def value(self, candidate: Candidate, sha256: str, column: str) -> str | None:
        """Return the cell of a file in a column, None when there is none or it is empty."""
        return (self.row(candidate, sha256) or {}).get(column) or None

    def metadata(self) -> Mapping[str, dict[str, Value]]:
        """Return the metadata of the rows, by the name or SHA-256 of their files."""
        columns = meta_columns(self.table.columns)
        values = read_values(list(self._of.values()), columns)
        return dict(zip(self._of, values, strict=True))


@dataclass(frozen=True)
class ImportPlan:
    """How an import finds the label, the group and the metadata of each file."""

    label_of: Find
    group_of: Find
    labels: bool
    tables: tuple[TableRows, ...] = ()  # the table of labels, the table of metadata
    meta: Mapping[str, dict[str, Value]] = field(default_factory=dict)
    meta_key: str = "file"

    def meta_of(self, candidate: Candidate, sha256: str) -> dict[str, Value]:
        """Return the metadata of a file."""
        return self.meta.get(sha256 if self.meta_key == "sha256" else candidate.name, {})


def make_plan(
    root: Path,
    labels: str | None,
    group_from: str | None,
    may_read: Callable[[Path], bool] = lambda _: True,
    *,
    names: Sequence[str] = (),
    metadata: str | None = None,
) -> ImportPlan:
    """Understand `labels` ("folders", a CSV file, None) and `group_from` (see `import_folder`).

    `may_read` is asked about the resolved path of every table before it is opened; `names` are
    the names of the files.

    Raises
    ------
    InvalidInputError
        A CSV cannot be used or may not be read, or `group_from` is neither "folder", a column,
        nor a pattern with one group in parentheses that can be searched in time.
    """
    table = meta = None
    if labels not in (None, FOLDERS):
        table = _open_table(root, str(labels), names, may_read)
    if table is not None and "label" not in table.table.columns:
        raise InvalidInputError(
            f"{table.table.path.name} has no column “label”; it has "
            f"{', '.join(table.table.columns)}.",
            "",
            "Name the column with the labels “label”.",
        )
    if metadata:
        meta = _open_table(root, metadata, names, may_read)
        if not meta_columns(meta.table.columns):
            raise InvalidInputError(
                f"{meta.table.path.name} has no column besides {', '.join(meta.table.columns)}.",
                "Each further column becomes a filter.",
                "Add columns, such as stain or age, or leave the table out.",
            )
    tables = tuple(rows for rows in (table, meta) if rows is not None)
    return ImportPlan(
        _label_finder(labels, table),
        _group_finder(root, labels, group_from, tables, may_read, names),
        bool(labels),
        tables,
        meta.metadata() if meta is not None else {},
        meta.table.key if meta is not None else "file",
    )


def _open_table(
    root: Path, named: str, names: Sequence[str], may_read: Callable[[Path], bool]
) -> TableRows:
    return TableRows(read_table(_allowed(_find_csv(root, named), may_read)), names)


def _label_finder(labels: str | None, table: TableRows | None) -> Find:
    if table is not None:
        found = table
        return lambda file, sha256: clean_name(found.value(file, sha256, "label") or "") or None
    if labels == FOLDERS:
        return lambda file, _: clean_name(PurePosixPath(file.folder).name) or None
    return _nothing


def _nothing(_file: Candidate, _sha256: str) -> str | None:
    return None


def _group_finder(
    root: Path,
    labels: str | None,
    group_from: str | None,
    tables: Sequence[TableRows],
    may_read: Callable[[Path], bool],
    names: Sequence[str],
) -> Find:
    if not group_from:
        return _column("group", tables or _sidecar(root, may_read, names)) or _nothing
    if group_from == FOLDER:
        return _folder_above_label if labels == FOLDERS else lambda file, _: file.folder or None
    column = group_from.strip().casefold()
    if not tables and (root / SIDECAR).is_file() and column.isidentifier():
        tables = [TableRows(read_table(_allowed(root / SIDECAR, may_read)), names)]
    return _column(column, tables) or _pattern(group_from, tables, names)


def _column(column: str, tables: Sequence[TableRows]) -> Find | None:
    with_it = next((rows for rows in tables if column in rows.table.columns), None)
    if with_it is None:
        return None
    return lambda file, sha256: with_it.value(file, sha256, column)


def _sidecar(root: Path, may_read: Callable[[Path], bool], names: Sequence[str]) -> list[TableRows]:
    """Return the table that an export put beside its folders; what cannot be used is no such."""
    path = root / SIDECAR
    try:
        return [TableRows(read_table(_allowed(path, may_read)), names)] if path.is_file() else []
    except InvalidInputError:
        return []


def _folder_above_label(file: Candidate, _sha256: str) -> str | None:
    # the lowest folder is the class: what lies above it is the patient
    above = str(PurePosixPath(file.folder).parent) if file.folder else ""
    return above if above not in ("", ".") else None


def _pattern(group_from: str, tables: Sequence[TableRows], names: Sequence[str]) -> Find:
    columns = "".join(
        f" The columns of {rows.table.path.name} are {', '.join(rows.table.columns)}."
        for rows in tables
    )
    try:
        pattern = regex.compile(group_from)
    except (regex.error, RecursionError, OverflowError) as error:
        raise InvalidInputError(
            f"The group pattern “{group_from}” is no valid regular expression: {error}.{columns}",
            "",
            "For example, (case_\\d+) takes “case_005” out of “case_005_pt_1.png”.",
        ) from error
    if pattern.groups < 1:
        raise InvalidInputError(
            f"“{group_from}” is not a column, and as a pattern it has no part in parentheses."
            f"{columns}",
            "The part in parentheses says what of the file name is the group.",
            "For example, (case_\\d+) takes “case_005” out of “case_005_pt_1.png”.",
        )
    # all names at once, before anything is imported: a pattern that takes for ever says so now
    found = {name: _search(pattern, name) for name in names}
    return lambda file, _: found[file.name] if file.name in found else _search(pattern, file.name)


def _search(pattern: regex.Pattern[str], name: str) -> str | None:
    try:
        match = pattern.search(name, timeout=PATTERN_SECONDS)
    except TimeoutError as error:
        raise InvalidInputError(
            f"The group pattern “{pattern.pattern}” takes too long on the name “{name}”.",
            "A repeated part inside a repeated part, such as (a+)+, tries every way to cut a "
            "name, and there are millions.",
            "Write it without the inner repetition: (a+) instead of (a+)+.",
        ) from error
    return next((part for part in match.groups() if part), None) if match else None


def _find_csv(root: Path, named: str) -> Path:
    given = Path(named).expanduser()
    for path in (given, root / named):
        if path.is_file():
            return path
    raise InvalidInputError(
        f"There is no file {given}.",
        "It was named as the table of labels or metadata.",
        "Check the path, or use `folders` to take the labels from the folders.",
    )


def _allowed(path: Path, may_read: Callable[[Path], bool]) -> Path:
    if not may_read(path.resolve()):
        raise InvalidInputError(
            f"The table {path} is outside the folders that this app may read.",
            "The limit keeps visitors from reading other files of this computer.",
            "Put it into the folder of the images, and give its name only.",
        )
    return path


def read_table(path: Path) -> Table:
    """Read a CSV with a column `file` or `sha256` (see `read_csv`).

    Raises
    ------
    InvalidInputError
        It cannot be read, has neither column, or names a file twice with different values.
    """
    head, rows = read_csv(path)
    key = next((name for name in ("file", "sha256") if name in head), None)
    if key is None:
        raise InvalidInputError(
            f"{path.name} has the columns {', '.join(head) or 'none'}, but neither “file” nor "
            "“sha256”.",
            "One of them must say which image a row is about.",
            "Name the columns in the first line.",
        )
    seen: dict[str, dict[str, str]] = {}
    for row in rows:
        name = row[key] if key == "file" else row[key].lower()
        if name and seen.setdefault(name, row) != row:
            raise _two_rows(path, row[key])
    return Table(path, key, head, tuple(seen.values()))


def _two_rows(path: Path, name: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path.name} has two different rows for “{name}”.",
        "One of them must be wrong.",
        "Keep one of the two.",
    )
