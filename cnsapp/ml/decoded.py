"""Pictures decoded once, at the network's size, in one file that every epoch reads.

The file is a plain array on disk (`.npy`, memory-mapped), filled in parts; which rows are there is
kept beside it, so that a job that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import Cancelled, CnsError
from cnsapp.ml.bundle import write_atomically
from cnsapp.ml.preprocess import Pixels, make_view

VERSION = 1
PART = 64  # pictures between two notes of what is there
SPARE = 64 << 20  # bytes that must stay free on the disk


class DecodedPictures:
    """A file of N pictures, uint8 (N, S, S, 3), rows known by the images' keys.

    Parameters
    ----------
    folder
        Where such files are kept (a folder of the job's, or a cache).
    keys
        (N,) what each image is: its SHA-256 and the sign of its reading rule. The order is the
        order of the rows.
    size
        Side S in pixels.

    Raises
    ------
    CnsError
        The disk has no room for it.
    """

    def __init__(self, folder: Path, keys: Sequence[str], size: int) -> None:
        said = json.dumps([VERSION, "squash", size, list(keys)])
        self.id = hashlib.sha256(said.encode()).hexdigest()[:24]
        self.keys, self.size = list(keys), size
        self.file, self.note = folder / f"{self.id}.npy", folder / f"{self.id}.rows"
        folder.mkdir(parents=True, exist_ok=True)
        if not self._is_whole():
            self._make()
        self.there = self._read_note()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        return (len(self.keys), self.size, self.size, 3)

    @property
    def missing(self) -> NDArray[np.int64]:
        """Row numbers that are not decoded yet."""
        return np.flatnonzero(~self.there)

    def fill(
        self,
        pictures: Iterable[tuple[int, Pixels]],
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Write pictures into their rows.

        Parameters
        ----------
        pictures
            `(row, pixels)` of any size, usually of `missing` rows; resized here. A row whose file
            cannot be read is left out by the caller and stays missing.
        progress
            Called as `progress(done, total)`, in rows that are there, after every part.
        cancelled
            Asked for every picture; what is decoded so far is kept.
        """
        array = np.load(self.file, mmap_mode="r+")
        fresh: list[int] = []
        try:
            for row, pixels in pictures:
                if cancelled is not None and cancelled():
                    raise Cancelled
                array[row] = make_view(pixels, self.size)
                fresh.append(row)
                if len(fresh) == PART:
                    self._keep(array, fresh, progress)
        finally:
            self._keep(array, fresh, progress)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the pictures, read-only, mapped from the disk; rows still missing are black."""
        array: NDArray[np.uint8] = np.load(self.file, mmap_mode="r")
        return array

    def forget(self) -> None:
        """Delete the file."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _keep(
        self,
        array: np.memmap[tuple[int, ...], np.dtype[np.uint8]],
        fresh: list[int],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Bring the rows to the disk first, then the note that says they are there."""
        if not fresh:
            return
        array.flush()
        self.there[fresh] = True
        fresh.clear()
        write_atomically(self.note, np.packbits(self.there).tobytes())
        if progress is not None:
            progress(int(self.there.sum()), len(self.there))

    def _is_whole(self) -> bool:
        try:
            return bool(np.load(self.file, mmap_mode="r").shape == self.shape)
        except (OSError, ValueError):
            return False

    def _make(self) -> None:
        """Make the file with its full length: a disk that is full says so now."""
        self.note.unlink(missing_ok=True)
        need = int(np.prod(self.shape))
        free = shutil.disk_usage(self.file.parent).free
        if free < need + SPARE:
            raise CnsError(
                f"The decoded pictures take {need / 1e6:,.0f} MB; {free / 1e6:,.0f} MB are free.",
                "Training reads every picture in every epoch, so it is decoded only once.",
                "Free some space on the disk of the data folder, or choose a smaller image size.",
            )
        temporary = self.file.with_name(f"{self.file.name}.tmp-{os.getpid()}")
        try:
            array = np.lib.format.open_memmap(
                temporary, mode="w+", dtype=np.uint8, shape=self.shape
            )
            array.flush()
            del array
            temporary.replace(self.file)
        finally:
            temporary.unlink(missing_ok=True)

    def _read_note(self) -> NDArray[np.bool_]:
        n = len(self.keys)
        try:
            bits = np.frombuffer(self.note.read_bytes(), np.uint8)
        except OSError:
            return np.zeros(n, bool)
        there = np.unpackbits(bits)[:n].astype(bool)
        return there if len(there) == n else np.zeros(n, bool)
