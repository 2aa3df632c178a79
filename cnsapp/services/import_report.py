"""What came of an import, or would come of one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Skipped:
    """A file that was not imported, and why."""

    file: str
    reason: str


@dataclass
class ImportReport:
    """What came of an import: found = imported + duplicates + skipped."""

    found: int = 0
    imported: int = 0
    duplicates: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    labelled: int = 0
    new_classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slides: int = 0  # whole slides among the imported and the duplicates
    tiles: int = 0  # images that were cut from them
    stopped: bool = False  # cancelled: the counts are of the files until then

    def as_json(self) -> dict[str, Any]:
        """Return the report as commands and job results show it."""
        return asdict(self)


MOST = 1000  # names that a list of a check holds; its count holds all


@dataclass
class CheckReport(ImportReport):
    """What would come of an import; nothing was changed. The counts are of what would be."""

    dry_run: bool = True
    n_groups: int = 0
    n_without_group: int = 0
    folders: list[tuple[str, int]] = field(default_factory=list)  # labels and their files
    rows_without_file: list[str] = field(default_factory=list)
    n_rows_without_file: int = 0
    files_without_row: list[str] = field(default_factory=list)
    n_files_without_row: int = 0
    name_clashes: list[str] = field(default_factory=list)  # sentences
    n_name_clashes: int = 0


@dataclass(frozen=True)
class Preview:
    """A quick look at a folder before its import."""

    n_files: int
    folders: list[tuple[str, int]]  # class folders and their numbers of files
    groups: list[tuple[str, str | None]]  # some files and the group each would get
    n_groups: int
    n_without_group: int
    refused: list[Skipped]
    slides: list[str] = field(default_factory=list)  # names of the whole slides among the files
