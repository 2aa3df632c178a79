"""What an import was told about its files: the label and the group of each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cnsapp.domain.names import clean_name
from cnsapp.errors import InvalidInputError
from cnsapp.imaging.candidates import Candidate
from cnsapp.services.tables import read_csv

FOLDERS, FOLDER = "folders", "folder"
SIDECAR = "labels.csv"  # a table of this name in the imported folder gives the groups

Find = Callable[[Candidate, str], str | None]  # (file, its SHA-256) -> label or group


@dataclass(frozen=True)
class Table:
    """A CSV file about images: a row for each, found by path, by name or by SHA-256."""

    path: Path
    key: str  # "file" or "sha256"
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    by_base: dict[str, str] = field(default_factory=dict)  # last part of a path -> its key, if one

    def value(self, candidate: Candidate, sha256: str, column: str) -> str | None:
        """Return the cell of a file in a column, None when there is none or it is empty."""
        row = self.rows.get(sha256 if self.key == "sha256" else _path_key(candidate.name))
        if row is None and self.key == "file":
            row = self.rows.get(self.by_base.get(_base(candidate.name), ""))
        return (row or {}).get(column) or None


@dataclass(frozen=True)
class ImportPlan:
    """How an import finds the label and the group of each file."""

    label_of: Find
    group_of: Find
    labels: bool


def make_plan(
    root: Path,
    labels: str | None,
    group_from: str | None,
    may_read: Callable[[Path], bool] = lambda _: True,
) -> ImportPlan:
    """Understand `labels` ("folders", a CSV file, None) and `group_from` (see `import_folder`).

    `may_read` is asked about the resolved path of every table before it is opened.

    Raises
    ------
    InvalidInputError
        The CSV cannot be used or may not be read, or `group_from` is neither "folder", a column,
        nor a pattern with one group in parentheses.
    """
    table = None
    if labels not in (None, FOLDERS):
        table = read_table(_allowed(_find_csv(root, str(labels)), may_read))
    if table is not None and "label" not in table.columns:
        raise InvalidInputError(
            f"{table.path.name} has no column “label”; it has {', '.join(table.columns)}.",
            "",
            "Name the column with the labels “label”.",
        )
    return ImportPlan(
        _label_finder(labels, table),
        _group_finder(root, labels, group_from, table, may_read),
        bool(labels),
    )


def _label_finder(labels: str | None, table: Table | None) -> Find:
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
    table: Table | None,
    may_read: Callable[[Path], bool],
) -> Find:
    if not group_from:
        table = table or _sidecar(root, may_read)
        if table is not None and "group" in table.columns:
            with_groups = table
            return lambda file, sha256: with_groups.value(file, sha256, "group")
        return _nothing
    if group_from == FOLDER:
        return _folder_above_label if labels == FOLDERS else lambda file, _: file.folder or None
    column = group_from.strip().casefold()
    if table is None and (root / SIDECAR).is_file() and column.isidentifier():
        table = read_table(_allowed(root / SIDECAR, may_read))
    if table is not None and column in table.columns:
        found = table
        return lambda file, sha256: found.value(file, sha256, column)
    return _pattern(group_from, table)


def _sidecar(root: Path, may_read: Callable[[Path], bool]) -> Table | None:
    """Return the table that an export put beside its folders; what cannot be used is no such."""
    path = root / SIDECAR
    try:
        return read_table(_allowed(path, may_read)) if path.is_file() else None
    except InvalidInputError:
        return None


def _folder_above_label(file: Candidate, _sha256: str) -> str | None:
    # the lowest folder is the class: what lies above it is the patient
    above = str(PurePosixPath(file.folder).parent) if file.folder else ""
    return above if above not in ("", ".") else None


def _pattern(group_from: str, table: Table | None) -> Find:
    columns = f" The columns of {table.path.name} are {', '.join(table.columns)}." if table else ""
    try:
        pattern = re.compile(group_from)
    except re.error as error:
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

    def find(file: Candidate, _sha256: str) -> str | None:
        match = pattern.search(file.name)
        return next((part for part in match.groups() if part), None) if match else None

    return find


def _find_csv(root: Path, labels: str) -> Path:
    given = Path(labels).expanduser()
    for path in (given, root / labels):
        if path.is_file():
            return path
    raise InvalidInputError(
        f"There is no file {given}.",
        "It was named as the table of labels.",
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
    head, lines = read_csv(path)
    key = next((name for name in ("file", "sha256") if name in head), None)
    if key is None:
        raise InvalidInputError(
            f"{path.name} has the columns {', '.join(head) or 'none'}, but neither “file” nor "
            "“sha256”.",
            "One of them must say which image a row is about.",
            "Name the columns in the first line.",
        )
    rows: dict[str, dict[str, str]] = {}
    for row in lines:
        name = _path_key(row[key]) if key == "file" else row[key].lower()
        if name and rows.setdefault(name, row) != row:
            raise InvalidInputError(
                f"{path.name} has two different rows for “{row[key]}”.",
                "One of them must be wrong.",
                "Keep one of the two.",
            )
    return Table(path, key, head, rows, _bases(rows) if key == "file" else {})


def _path_key(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))


def _base(name: str) -> str:
    return _path_key(name).rsplit("/", 1)[-1]


def _bases(rows: dict[str, dict[str, str]]) -> dict[str, str]:
    seen: dict[str, str] = {}
    double: set[str] = set()
    for name in rows:
        base = _base(name)
        if seen.setdefault(base, name) != name:
            double.add(base)
    return {base: name for base, name in seen.items() if base not in double}
