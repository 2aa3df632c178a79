"""The index of looks on the disk: a folder a version, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import NotFoundError
from db.session import Store

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
HALF = ".half-"
FACTS = "looks.json"
ARRAYS = ("ids", "signs", "rows", "clusters", "ratio", "places", "unread")
CLEAR_SHARE = 0.5  # of a project's images, those surest to be in the right cluster


@dataclass(frozen=True)
class LooksIndex:
    """What a project's images looked like when the index was made; the arrays lie on the disk.

    Attributes
    ----------
    ids
        (N,) image ids, ascending.
    signs
        (N,) what `sign_of` says of each image's picture then: another one was read again since.
    rows
        (N, d) unit rows: their product is the similarity.
    clusters, places
        (N,) cluster of each image; (N, 2) its place on the map.
    ratio
        (N,) distance to the middle of its cluster over that to the second nearest middle.
    unread
        Ids of images that could not be read.
    """

    version: str
    made_at: datetime
    map_method: str  # umap | pca
    ids: Ints
    signs: Ints
    rows: Floats
    clusters: NDArray[np.int32]
    ratio: Floats
    places: Floats
    unread: Ints

    @cached_property
    def clear(self) -> NDArray[np.bool_]:
        """Which images (N,) are clear: far nearer to their own cluster than to any other.

        One bound for the whole project, so that a cluster that lies apart has many clear images,
        and one amid others few. Where there is one cluster alone, nothing is clear.
        """
        if not len(self.ids):
            return np.zeros(0, bool)
        return np.asarray((self.ratio <= np.quantile(self.ratio, CLEAR_SHARE)) & (self.ratio < 1))

    def rows_of(self, image_ids: Ints) -> Ints:
        """Return where these images are; those that are not in the index are left out."""
        if not len(self.ids):
            return np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(self.ids, image_ids), len(self.ids) - 1)
        return np.asarray(at[self.ids[at] == image_ids], np.int64)


_kept: dict[tuple[str, int], LooksIndex] = {}  # of each project the version read last


def sign_of(sha256: str, seen: str) -> int:
    """Return a number for the picture that a file gives when the rule touches it so."""
    if seen:
        sha256 = hashlib.sha256(f"{sha256}{seen}".encode()).hexdigest()
    return int(sha256[:15], 16)


def folder_of(store: Store, project_id: int) -> Path:
    """Return where the versions of a project's index lie."""
    return store.path("features", "looks", str(project_id))


def write_index(
    store: Store,
    *,
    project_id: int,
    arrays: Mapping[str, NDArray[Any]],
    facts: Mapping[str, Any],
) -> str:
    """Write a version that is on the disk as a whole before it has its name; return its name.

    Older versions are removed afterwards; who reads one just then keeps what is open.
    """
    parent = folder_of(store, project_id)
    parent.mkdir(parents=True, exist_ok=True)
    half = parent / f"{HALF}{uuid.uuid4().hex}"
    half.mkdir()
    try:
        for name in ARRAYS:
            with (half / f"{name}.npy").open("wb") as handle:
                np.save(handle, arrays[name])
                handle.flush()
                os.fsync(handle.fileno())
        now = datetime.now(UTC)
        with (half / FACTS).open("w", encoding="utf-8") as handle:
            json.dump({**facts, "made_at": now.isoformat()}, handle)
            handle.flush()
            os.fsync(handle.fileno())
        _sync(half)
        version = f"{now:%Y%m%dT%H%M%S%f}-{half.name[-8:]}"
        half.rename(parent / version)
        _sync(parent)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    for old in parent.iterdir():
        if old.name.startswith(HALF) or old.name < version:
            shutil.rmtree(old, ignore_errors=True)  # Windows: next time, when nobody reads it
    return version


def _sync(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def find_index(store: Store, *, project_id: int) -> LooksIndex | None:
    """Return the newest index of a project, or None when none was made yet."""
    parent = folder_of(store, project_id)
    key = (str(store.root), project_id)
    for _ in range(3):  # a new version may take the place of the one that was just listed
        newest = _newest(parent)
        if newest is None:
            return None
        kept = _kept.get(key)
        if kept is not None and kept.version == newest:
            return kept
        try:
            found = _read(parent / newest)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError):
            return None  # damaged or of an older form: it is made again
        _kept[key] = found
        return found
    return None


def has_unreadable_index(store: Store, *, project_id: int) -> bool:
    """Return whether there is an index that cannot be read: damaged, or of an older form."""
    there = _newest(folder_of(store, project_id)) is not None
    return there and find_index(store, project_id=project_id) is None


def get_index(store: Store, *, project_id: int) -> LooksIndex:
    """Return the index of a project; raise NotFoundError when none was made yet."""
    found = find_index(store, project_id=project_id)
    if found is None:
        raise NotFoundError(
            "The images of this project were not sorted by looks yet.",
            "Similar images, clusters and the map come from that.",
            "It follows the features of new images by itself; `looks` starts it now.",
        )
    return found


def _newest(parent: Path) -> str | None:
    try:
        names = [path.name for path in parent.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return None
    return max(names, default=None)


def _read(folder: Path) -> LooksIndex:
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in ARRAYS}
    n = len(arrays["ids"])
    if any(len(arrays[name]) != n for name in ("signs", "rows", "clusters", "ratio", "places")):
        raise ValueError("the arrays are not of one length")
    return LooksIndex(
        version=folder.name,
        made_at=datetime.fromisoformat(facts["made_at"]),
        map_method=str(facts["map_method"]),
        **arrays,
    )
