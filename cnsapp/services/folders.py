"""Walking the folders that this installation may read images from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.services.import_source import find_source, is_allowed

MOST = 300  # sub-folders shown at once


@dataclass(frozen=True)
class Folder:
    """A folder, where one can go from it, and how many files lie in it."""

    path: Path
    parent: Path | None  # None at the top of what may be read
    subfolders: list[str]
    n_files: int
    n_hidden: int  # sub-folders beyond the first `MOST`


def list_folder(app: App, *, path: Path) -> Folder:
    """Return what is in a folder below the import roots; raise InvalidInputError elsewhere."""
    roots = app.settings.import_roots
    real = find_source(app, path, roots)
    if not real.is_dir():
        raise InvalidInputError(f"{real} is a file, not a folder.", "", "Choose its folder.")
    names, n_files = [], 0
    try:
        with os.scandir(real) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    names.append(entry.name)
                else:
                    n_files += 1
    except OSError as error:
        raise InvalidInputError(
            f"The folder {real} cannot be read: {error.strerror or error}.",
            "",
            "Ask for access to it, or choose another folder.",
        ) from error
    names.sort(key=str.casefold)
    parent = real.parent if real.parent != real and is_allowed(app, real.parent, roots) else None
    return Folder(real, parent, names[:MOST], n_files, max(0, len(names) - MOST))
