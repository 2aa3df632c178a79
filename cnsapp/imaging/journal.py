"""What an import is about to put into the store, so that nothing stays of one that was killed.

An original and its thumbnails get their final names before their row is written. A process that is
killed in between would leave files that no row knows. So an import first writes the SHA-256 of
each file into a journal, `images/.import-<host>-<pid>-<random>`, and removes the journal at its
end. The journal of a dead process names all that can be left over: no sweep through a million
files is needed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cnsapp.imaging.store import ImageFolder, is_abandoned, own_name

JOURNAL = ".import-"
RECENT = 0.1  # seconds: clocks of file systems are that coarse
CHUNK = 500  # names asked about at once

Known = Callable[[Sequence[str]], set[str]]  # which of these SHA-256 have a row


class Journal:
    """The journal of one import."""

    def __init__(self, folder: ImageFolder) -> None:
        self._folder = folder
        self._path = folder.root / "images" / own_name(JOURNAL)
        self._lock = threading.Lock()
        self._handle: int | None = None

    def note(self, sha256: str) -> None:
        """Say that files of these bytes are about to be made. Thread-safe."""
        with self._lock:
            if self._handle is None:
                self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.write(self._handle, sha256.encode() + b"\n")

    def close(self, known: Known) -> None:
        """End the import: remove files that got no row, then the journal."""
        with self._lock:
            if self._handle is None:
                return
            os.close(self._handle)
            self._handle = None
            _end(self._folder, self._path, known)


def clean_orphans(folder: ImageFolder, known: Known) -> int:
    """Remove the files without a row that killed imports left; return how many."""
    journals = list((folder.root / "images").glob(f"{JOURNAL}*"))
    return sum(_end(folder, path, known) for path in journals if is_abandoned(path, JOURNAL))


def _end(folder: ImageFolder, journal: Path, known: Known) -> int:
    removed = _settle(folder, journal, known)
    if journal.exists():  # the last files were too young to be told from another's
        time.sleep(2 * RECENT)
        removed += _settle(folder, journal, known)
    return removed


def _settle(folder: ImageFolder, journal: Path, known: Known) -> int:
    names = sorted(_read(journal))
    removed, all_gone = 0, True
    for start in range(0, len(names), CHUNK):
        part = names[start : start + CHUNK]
        began = time.time()  # an import that begins to write them now makes files younger than this
        spared = _of_others(folder, journal) | known(part)
        for path in _files_of(folder, {sha256 for sha256 in part if sha256 not in spared}):
            if _age(path, began) > RECENT:
                path.unlink(missing_ok=True)
                removed += 1
            else:
                all_gone = False
    if all_gone:
        journal.unlink(missing_ok=True)
    return removed


def _of_others(folder: ImageFolder, journal: Path) -> set[str]:
    """Return what imports that run have noted."""
    found: set[str] = set()
    for other in (folder.root / "images").glob(f"{JOURNAL}*"):
        if other != journal and not is_abandoned(other, JOURNAL):
            found |= _read(other)
    return found


def _read(journal: Path) -> set[str]:
    try:
        lines = journal.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return {line for line in lines if len(line) == 64 and line.isalnum()}


def _files_of(folder: ImageFolder, shas: set[str]) -> Iterable[Path]:
    for place in sorted({sha256[:2] for sha256 in shas}):
        for name in ("images", "thumbs"):
            below = folder.root / name / place
            files = below.iterdir() if below.is_dir() else ()
            yield from [file for file in files if file.name[:64] in shas]


def _age(path: Path, now: float) -> float:
    try:
        facts = path.stat()
        return now - max(facts.st_mtime, facts.st_ctime)  # a rename counts
    except OSError:
        return 0.0
