"""The folder of originals and thumbnails: a file's name is the SHA-256 of its bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from cnsapp.errors import StoreError, UnreadableImageError

BLOCK = 1 << 20
DAY = 86_400.0
PART = ".part-"  # .part-<host>-<pid>-<random> in images/ and thumbs/: files not complete yet


@dataclass(frozen=True)
class Part:
    """A copy on its way into the store."""

    path: Path
    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class ImageFolder:
    """Where the originals and thumbnails of an installation lie, below its data folder."""

    root: Path

    def original_name(self, sha256: str, suffix: str) -> str:
        """Return the path of an original relative to the data folder."""
        return f"images/{sha256[:2]}/{sha256}{suffix}"

    def thumb_path(self, sha256: str, seen: str = "") -> Path:
        """Return the path of the 256 px thumbnail; `seen` as in `ImageFacts`."""
        return self.root / "thumbs" / sha256[:2] / f"{_seen(sha256, seen)}.jpg"

    def view_path(self, sha256: str, seen: str = "") -> Path:
        """Return the path of the display-size picture; small images have none."""
        return self.root / "thumbs" / sha256[:2] / f"{_seen(sha256, seen)}.view.jpg"

    def copy_in(self, source: Path) -> Part:
        """Copy a file into the store under a passing name, and hash it on the way.

        Raises
        ------
        UnreadableImageError
            The source cannot be read.
        StoreError
            The data folder cannot take it.
        """
        folder = self.root / "images"
        part = folder / own_name(PART)
        digest, n_bytes = hashlib.sha256(), 0
        try:
            with _opened(source) as reading, part.open("wb") as writing:
                while block := _read(reading):
                    digest.update(block)
                    writing.write(block)
                    n_bytes += len(block)
                writing.flush()
                os.fsync(writing.fileno())
        except OSError as error:
            part.unlink(missing_ok=True)
            raise _cannot_write(folder, error) from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return Part(part, digest.hexdigest(), n_bytes)

    def settle(self, part: Path, name: str) -> None:
        """Give a copy its final name (see `original_name`); the same bytes may be there already."""
        target = self.root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
        except OSError as error:
            raise _cannot_write(target.parent, error) from error

    def clean_leftovers(self) -> int:
        """Remove half files that a killed import left behind; return how many."""
        parts = [p for name in ("images", "thumbs") for p in (self.root / name).glob(f"{PART}*")]
        left = [part for part in parts if is_abandoned(part, PART)]
        for part in left:
            part.unlink(missing_ok=True)
        return len(left)


def _seen(sha256: str, seen: str) -> str:
    # the same 16-bit file looks different in two projects whose windows differ
    return f"{sha256}_{seen}" if seen else sha256


def hash_file(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file; raise UnreadableImageError if it is unreadable."""
    digest, n_bytes = hashlib.sha256(), 0
    with _opened(path) as reading:
        while block := _read(reading):
            digest.update(block)
            n_bytes += len(block)
    return digest.hexdigest(), n_bytes


class _opened:
    def __init__(self, path: Path) -> None:
        try:
            self.handle = path.open("rb", buffering=0)
        except OSError as error:
            raise _cannot_read(error) from error

    def __enter__(self) -> _opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()


def _read(reading: _opened) -> bytes:
    try:
        return reading.handle.read(BLOCK)
    except OSError as error:
        raise _cannot_read(error) from error


def _cannot_read(error: OSError) -> UnreadableImageError:
    return UnreadableImageError(
        f"The file cannot be read: {error.strerror or error}.",
        "",
        "Check that it is there and that you may read it.",
    )


def _cannot_write(folder: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            f"The disk that holds {folder} is full.",
            "What was imported so far is kept.",
            "Free some space and import again: it goes on where it stopped.",
        )
    return StoreError(
        f"The data folder {folder} cannot be written: {error.strerror or error}.",
        "What was imported so far is kept.",
        "Give yourself write access to it and import again.",
    )


def _host() -> str:
    return socket.gethostname().replace("-", "_")[:40] or "host"


def own_name(prefix: str) -> str:
    """Return a passing name that says which process on which computer uses it."""
    return f"{prefix}{_host()}-{os.getpid()}-{uuid.uuid4().hex}"


def is_abandoned(part: Path, prefix: str) -> bool:
    """Return whether the process that made this file or folder (see `own_name`) is gone."""
    fields = part.name.removeprefix(prefix).split("-")
    try:
        age = time.time() - part.stat().st_mtime
    except OSError:
        return False
    if len(fields) == 3 and fields[0] == _host() and fields[1].isdigit() and os.name == "posix":
        return not _is_alive(int(fields[1]))
    return age > DAY


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
