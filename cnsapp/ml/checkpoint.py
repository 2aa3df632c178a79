"""Checkpoints of a run: whole or not at all, noticed when damaged, the last two and the best kept.

A file is a `torch.save` of plain tensors, numbers and lists (so that it loads without running
anything from it), followed by its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from cnsapp.errors import CnsError
from cnsapp.ml.bundle import write_atomically

_DIGEST = 32  # bytes of a SHA-256
_NAME = re.compile(r"epoch-(\d{3,})\.ckpt")
_LEFT_OVER = re.compile(r"epoch-\d{3,}\.ckpt\.tmp-.*")


class Checkpoints:
    """The checkpoints in one folder.

    Parameters
    ----------
    folder
        Made when the first checkpoint is written.
    run
        What the run is, as a short hash: a checkpoint of another run (other data, settings,
        backbone) is as good as none.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run

    def path(self, epoch: int) -> Path:
        """Return where an epoch's checkpoint is or would be."""
        return self.folder / f"epoch-{epoch:03d}.ckpt"

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write an epoch's state; when this returns, it is on the disk.

        Raises
        ------
        CnsError
            The file cannot be written (disk full, no permission). An earlier one is untouched.
        """
        buffer = io.BytesIO()
        torch.save({"run": self.run, "epoch": epoch, "state": state}, buffer)
        data = buffer.getvalue()
        try:
            write_atomically(self.path(epoch), data + hashlib.sha256(data).digest())
        except OSError as error:
            raise CnsError(
                f"The checkpoint of epoch {epoch} could not be written "
                f"({error.strerror or error}).",
                f"It takes {len(data) / 1e6:,.0f} MB; without it the epoch would be lost.",
                "Free some space on the disk of the data folder, then let the training go on.",
            ) from error

    def load(self, epoch: int) -> dict[str, Any] | None:
        """Return an epoch's state, or None where it is missing, damaged or of another run."""
        try:
            data = self.path(epoch).read_bytes()
        except OSError:
            return None
        body, digest = data[:-_DIGEST], data[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            return None
        try:
            kept = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            return None  # written by a torch that this one does not understand
        if not isinstance(kept, dict) or (kept.get("run"), kept.get("epoch")) != (self.run, epoch):
            return None
        state: dict[str, Any] = kept["state"]
        return state

    def epochs(self) -> list[int]:
        """Return the epochs that have a file, rising; it may yet be damaged."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def prune(self, keep: Collection[int]) -> None:
        """Delete all but these epochs, and what a killed process left half written."""
        for epoch in self.epochs():
            if epoch not in keep:
                self.path(epoch).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if _LEFT_OVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
