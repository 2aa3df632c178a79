"""Images by looks: similar ones, clusters, a map; from an index that the worker makes.

Numpy alone, on arrays that are mapped from the disk: 100,000 images are compared in a few
milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.looks_clusters import PREVIEWS, Cluster, cluster_images, clusters
from cnsapp.services.looks_files import Floats, Ints, get_index
from cnsapp.services.looks_label import label_clear, take_back
from cnsapp.services.looks_points import COLORED_BY, MapKey, MapPoints, map_points
from cnsapp.services.looks_status import Status, follow_features, queue_looks, status
from cnsapp.services.looks_use import in_use
from db.models import Image
from db.session import Store

__all__ = [
    "COLORED_BY",
    "PREVIEWS",
    "Cluster",
    "MapKey",
    "MapPoints",
    "Match",
    "Status",
    "cluster_images",
    "clusters",
    "find_image",
    "follow_features",
    "in_use",
    "label_clear",
    "list_items",
    "map_points",
    "queue_looks",
    "similar",
    "status",
    "take_back",
    "vectors",
]

STEP = 1000  # images asked for in one look whether they are still in use


@dataclass(frozen=True)
class Match:
    """An image with its similarity to what was asked for: 1 is the same picture, 0 unrelated."""

    image_id: int
    similarity: float


def vectors(store: Store, *, project_id: int) -> tuple[Ints, Floats]:
    """Return image ids (N,), ascending, and their unit rows (N, d), read-only, from the disk.

    Excluded images and those that were read again since may be among them.

    Raises
    ------
    NotFoundError
        No index was made yet.
    """
    index = get_index(store, project_id=project_id)
    return index.ids, index.rows


def similar(
    store: Store,
    *,
    project_id: int,
    image_ids: Sequence[int],
    n: int = 200,
    unlabelled_only: bool = False,
) -> list[Match]:
    """Return the images that look most like one image, or like the middle of several.

    Parameters
    ----------
    image_ids
        What to look like; they are not among the answer. Those not in the index do not count.
    n
        How many at most.
    unlabelled_only
        Leave out images that somebody looked at already.

    Raises
    ------
    NotFoundError
        No index was made yet, or none of the images is in it.
    InvalidInputError
        No image is named, or `n` is below 1.
    """
    if not image_ids or n < 1:
        raise InvalidInputError("Similar to what? Name at least one image, and ask for one.")
    index = get_index(store, project_id=project_id)
    asked = index.rows_of(np.unique(np.asarray(image_ids, np.int64)))
    if not len(asked):
        raise NotFoundError(
            f"Image {image_ids[0]} is not among the images sorted by looks.",
            "It came later, was taken away, or could not be read.",
            "Sort the images by looks again, then try once more.",
        )
    middle = np.asarray(index.rows[asked], np.float32).mean(axis=0)
    closeness = index.rows @ (middle / max(float(np.linalg.norm(middle)), 1e-9))
    closeness[asked] = -np.inf
    found: list[Match] = []
    for part in _best_first(closeness, n + STEP):
        part = part[np.isfinite(closeness[part])]
        used = in_use(store, project_id, index.ids[part].tolist(), unlabelled_only)
        found += [
            Match(int(index.ids[at]), round(min(float(closeness[at]), 1.0), 6))
            for at in part
            if int(index.ids[at]) in used
        ]
        if len(found) >= n:
            break
    return found[:n]


def _best_first(closeness: Floats, first: int) -> Iterator[Ints]:
    """Yield rows in parts, the closest first; equals in the order of their ids."""
    if first < len(closeness):
        best = np.argpartition(-closeness, first - 1)[:first]
        bound = closeness[best].min()
        best = np.flatnonzero(closeness > bound)  # equals of the last one come with the rest
        yield best[np.argsort(-closeness[best], kind="stable")]
        rest = np.flatnonzero(closeness <= bound)
    else:
        rest = np.arange(len(closeness))
    rest = rest[np.argsort(-closeness[rest], kind="stable")]
    for start in range(0, len(rest), 10 * STEP):
        yield rest[start : start + 10 * STEP]


def find_image(
    store: Store, *, project_id: int, name: str, sha256: str | None = None
) -> int | None:
    """Return the image in use with these bytes, else this file name, else this number, or None.

    The last part of a file name is enough where one image alone ends so.
    """
    mine = select(Image.id).where(Image.project_id == project_id, Image.status == "ok")
    ways = [Image.sha256 == sha256] if sha256 else []
    ways.append(Image.file_name == name)
    if name.isascii() and name.isdigit() and len(name) < 10:
        ways.append(Image.id == int(name))
    with store.reading() as session:
        for way in ways:
            found = session.scalar(mine.where(way).order_by(Image.id).limit(1))
            if found is not None:
                return found
        ends = Image.file_name.endswith(f"/{name}", autoescape=True)
        few = session.scalars(mine.where(ends).limit(2)).all() if name else []
    return few[0] if len(few) == 1 else None


def list_items(store: Store, *, image_ids: Sequence[int]) -> list[ImageItem]:
    """Return these images as grids show them, in this order."""
    with store.reading() as session:
        return items_in_order(session, image_ids)
