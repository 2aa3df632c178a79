"""The folder of originals and thumbnails: a file's name is the SHA-256 of its bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from cnsapp.errors import StoreError, UnreadableImageError
from cnsapp.processes import process_alive

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
        digest, n_bytes = hashlib.sha256(), 0
        with _opened(source) as reading, self._new_part() as (part, writing):
            while block := _read(reading):
                digest.update(block)
                writing.write(block)
                n_bytes += len(block)
        return Part(part, digest.hexdigest(), n_bytes)

    def put_in(self, data: bytes, sha256: str) -> Part:
        """Write the bytes of a file, whose hash is known, into the store under a passing name.

        Raises
        ------
        StoreError
            The data folder cannot take them.
        """
        with self._new_part() as (part, writing):
            for start in range(0, len(data), BLOCK):  # all at once took Linux four times as long
                writing.write(memoryview(data)[start : start + BLOCK])
        return Part(part, sha256, len(data))

    @contextmanager
    def _new_part(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Open a file of a passing name; it is on the disk afterwards, or gone."""
        folder = self.root / "images"
        part = folder / own_name(PART)
        try:
            with part.open("wb") as writing:
                yield part, writing
                writing.flush()
                os.fsync(writing.fileno())
        except OSError as error:
            part.unlink(missing_ok=True)
            raise _cannot_write(folder, error) from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise

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


def read_small(path: Path, most: int) -> bytes | None:
    """Return the bytes of a file, None when there are `most` or more; errors as `hash_file`."""
    with _opened(path) as reading:
        wanted = _size(reading) + 1  # one read for all of it; what has grown meanwhile follows
        parts: list[bytes] = []
        while sum(map(len, parts)) < most:
            parts.append(_read(reading, min(wanted, most)))
            if not parts[-1]:
                return parts[0] if len(parts) == 2 else b"".join(parts)
    return None


def hash_bytes(data: bytes) -> tuple[str, int]:
    """Return the SHA-256 and the number of some bytes."""
    return hashlib.sha256(data).hexdigest(), len(data)


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


def _size(reading: _opened) -> int:
    return os.fstat(reading.handle.fileno()).st_size


def _read(reading: _opened, n_bytes: int = BLOCK) -> bytes:
    try:
        return reading.handle.read(n_bytes)
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


@lru_cache(maxsize=8)
def _sign(pid: int) -> str:
    """Return a word of this process: in a container every worker may have the same number."""
    del pid  # a forked process has another number, and so a word of its own
    return uuid.uuid4().hex[:8]


def own_name(prefix: str) -> str:
    """Return a passing name that says which process on which computer uses it."""
    pid = os.getpid()
    return f"{prefix}{_host()}-{pid}-{_sign(pid)}{uuid.uuid4().hex[:24]}"


def is_abandoned(part: Path, prefix: str) -> bool:
    """Return whether the process that made this file or folder (see `own_name`) is gone."""
    fields = part.name.removeprefix(prefix).split("-")
    try:
        changed = part.stat().st_mtime
    except OSError:
        return False
    if len(fields) != 3 or fields[0] != _host() or not fields[1].isdigit():
        return time.time() - changed > DAY
    if int(fields[1]) == os.getpid():
        return not fields[2].startswith(_sign(os.getpid()))
    return not process_alive(int(fields[1]), seen_at=changed)
