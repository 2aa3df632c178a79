"""Images by looks: similar ones, clusters, a map; from an index that the worker makes.

Numpy alone, on arrays that are mapped from the disk: 100,000 images are compared in a few
milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import func, select

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.looks_files import (
    Floats,
    Ints,
    get_index,
)
from cnsapp.services.looks_points import COLORED_BY, MapKey, MapPoints, map_points
from cnsapp.services.looks_status import Status, follow_features, queue_looks, status
from db.models import Image
from db.queries import chunks
from db.session import Store

__all__ = [
    "COLORED_BY",
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
    "list_items",
    "map_points",
    "queue_looks",
    "similar",
    "status",
    "vectors",
]

PREVIEWS = 6
STEP = 1000  # images asked for in one look whether they are still in use


@dataclass(frozen=True)
class Match:
    """An image with its similarity to what was asked for: 1 is the same picture, 0 unrelated."""

    image_id: int
    similarity: float


@dataclass(frozen=True)
class Cluster:
    """Images that look alike; `purity` is the share of its labelled ones in the commonest class."""

    id: int
    n: int
    n_looked_at: int  # labelled, skipped or unsure
    n_labelled: int
    per_class: dict[int, int]
    purity: float | None
    previews: list[int]  # the images nearest to its middle


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


def in_use(
    store: Store, project_id: int, image_ids: Sequence[int], unlabelled_only: bool = False
) -> set[int]:
    """Return those of these images that are in use in the project."""
    wanted = [Image.project_id == project_id, Image.status == "ok"]
    if unlabelled_only:
        wanted.append(Image.current_state == "none")
    found: set[int] = set()
    with store.reading() as session:
        if len(image_ids) > 5 * STEP:  # quicker than twenty questions
            return set(session.scalars(select(Image.id).where(*wanted))) & set(image_ids)
        for part in chunks(image_ids):
            found.update(session.scalars(select(Image.id).where(*wanted, Image.id.in_(part))))
    return found


def clusters(store: Store, *, project_id: int) -> list[Cluster]:
    """Return the clusters that have images in use, those with most left to label first.

    Raises
    ------
    NotFoundError
        No index was made yet.
    """
    index = get_index(store, project_id=project_id)
    ids, looked_at, classes = _labels(store, project_id)
    rows = index.rows_of(ids)  # of those in use that are in the index
    known = np.isin(ids, index.ids)
    mine, looked_at, classes = index.clusters[rows], looked_at[known], classes[known]
    n = np.bincount(mine, minlength=len(index.previews))
    seen = np.bincount(mine[looked_at], minlength=len(n))
    per_class: list[dict[int, int]] = [{} for _ in n]
    labelled = classes > 0
    pairs, counts = np.unique(
        np.stack([mine[labelled], classes[labelled]]), axis=1, return_counts=True
    )
    for at in np.argsort(-counts, kind="stable"):
        per_class[pairs[0, at]][int(pairs[1, at])] = int(counts[at])
    middle = np.concatenate([np.zeros(0, np.int64), *map(np.asarray, index.previews)])
    used = set(middle[np.isin(middle, ids)].tolist())
    previews = [[i for i in near if i in used] for near in index.previews]
    return [
        _cluster(
            int(i),
            int(n[i]),
            int(seen[i]),
            per_class[i],
            previews[i],
        )
        for i in np.argsort(seen - n, kind="stable")
        if n[i]
    ]


def _cluster(
    number: int, n: int, n_seen: int, per_class: dict[int, int], previews: list[int]
) -> Cluster:
    total = sum(per_class.values())
    purity = max(per_class.values()) / total if total else None
    return Cluster(number, n, n_seen, total, per_class, purity, previews[:PREVIEWS])


def _labels(store: Store, project_id: int) -> tuple[Ints, Any, Ints]:
    """Return ids of the images in use, ascending, whether each has a label, and its class or 0."""
    with store.reading() as session:
        rows = session.execute(
            select(
                Image.id, Image.current_state != "none", func.coalesce(Image.current_class_id, 0)
            )
            .where(Image.project_id == project_id, Image.status == "ok")
            .order_by(Image.id)
        ).all()
    table = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1].astype(bool), table[:, 2]


def cluster_images(
    store: Store, *, project_id: int, cluster_id: int, unlabelled_only: bool = False
) -> list[int]:
    """Return the images in use of a cluster, the one nearest to its middle first.

    Raises
    ------
    NotFoundError
        No index was made yet, or there is no such cluster in it.
    """
    index = get_index(store, project_id=project_id)
    mine = np.flatnonzero(index.clusters == cluster_id)
    if not len(mine):
        raise NotFoundError(
            f"There is no cluster {cluster_id + 1}.",
            "The images were sorted anew meanwhile.",
            "Choose one of the list.",
        )
    rows = np.asarray(index.rows[mine])
    order = np.argsort(-(rows @ rows.mean(axis=0)), kind="stable")
    ids = index.ids[mine[order]].tolist()
    used = in_use(store, project_id, ids, unlabelled_only)
    return [i for i in ids if i in used]


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
