"""Which files of a folder may be images: listed by name, without reading them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# files that lie beside images in every lab and that nobody takes for images
NOT_IMAGES = frozenset((
    ".csv", ".tsv", ".txt", ".md", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".ini", ".log",
    ".py", ".r", ".m", ".ipynb", ".html", ".htm", ".toml", ".sha256", ".md5", ".lnk", ".db",
    ".bat", ".sh",
))  # fmt: skip
NOT_IMAGE_NAMES = frozenset(("thumbs.db", "desktop.ini", "readme", "license", "__macosx"))


@dataclass(frozen=True)
class Candidate:
    """A file that may be an image."""

    path: Path
    name: str  # relative to the imported folder, with "/"

    @property
    def folder(self) -> str:
        """The folder it lies in, relative to the imported one; empty at the top."""
        parent = str(PurePosixPath(self.name).parent)
        return "" if parent == "." else parent


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is plainly no image: hidden, or a table or text.

    Examples
    --------
    >>> [is_ignored(name) for name in ("labels.csv", ".DS_Store", "a.jpg", "scan", "notes.doc")]
    [True, True, False, False, False]
    """
    low = name.casefold()
    return low.startswith(".") or low in NOT_IMAGE_NAMES or Path(low).suffix in NOT_IMAGES


def printable(name: str) -> str:
    r"""Return a file name as text that a database can hold, another text for every name.

    Names on disk need not be valid Unicode: bytes that are none are written as ``\xff``.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def iter_candidates(root: Path) -> Iterator[Candidate]:
    """Yield the files below a folder that may be images, sorted by path.

    Linked folders are not entered (they may form a ring); files that are no regular files (pipes,
    devices) are left out.
    """
    waiting = [iter(_entries(root, ""))]  # a stack, and no recursion: folders may be very deep
    while waiting:
        entry, name = next(waiting[-1], (None, ""))
        if entry is None:
            waiting.pop()
        elif not _is(entry, "dir"):
            if _is(entry, "file"):
                yield Candidate(Path(entry.path), name)
        else:
            try:
                waiting.append(iter(_entries(Path(entry.path), name + "/")))
            except OSError:  # a closed or vanished folder must not stop the rest; its name is told
                yield Candidate(Path(entry.path), name)


def _entries(folder: Path, prefix: str) -> list[tuple[os.DirEntry[str], str]]:
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    return [(e, prefix + printable(e.name)) for e in entries if not is_ignored(e.name)]


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False) if kind == "dir" else entry.is_file()
    except OSError:  # a link to itself, or a place that is gone
        return False
