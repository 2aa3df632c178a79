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

    def as_json(self) -> dict[str, Any]:
        """Return the report as commands and job results show it."""
        return asdict(self)


@dataclass(frozen=True)
class Preview:
    """A quick look at a folder before its import."""

    n_files: int
    folders: list[tuple[str, int]]  # class folders and their numbers of files
    groups: list[tuple[str, str | None]]  # some files and the group each would get
    n_groups: int
    n_without_group: int
    refused: list[Skipped]
