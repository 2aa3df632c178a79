"""Clusters of images that look alike: what is in them, and which of them are clear.

Whole clusters hold wrong images: labelled as one they made 10 to 27 % wrong labels on real tissue.
Their clear images, far nearer to their own middle than to any other, hold hardly any where looks
tell the classes apart. So a cluster is shown by some of these, from the most typical to the least
clear, and what is labelled by one key is just what they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cnsapp.errors import NotFoundError
from cnsapp.services.looks_files import Ints, LooksIndex, get_index
from cnsapp.services.looks_use import in_use, labels_in_use
from db.session import Store

PREVIEWS = 6


@dataclass(frozen=True)
class Cluster:
    """Images that look alike.

    Attributes
    ----------
    n, n_looked_at, n_labelled
        Images in use; those labelled, skipped or unsure; those with a label.
    n_clear, n_clear_unlabelled
        Images far nearer to this cluster than to any other; those nobody looked at yet.
    per_class, purity
        Labels of each class, the commonest first; the share of the commonest.
    previews
        Images spread over the clear ones to label, from the most typical to the least clear.
    """

    id: int
    n: int
    n_looked_at: int
    n_labelled: int
    n_clear: int
    n_clear_unlabelled: int
    per_class: dict[int, int]
    purity: float | None
    previews: list[int]


def clusters(store: Store, *, project_id: int, also_labelled: bool = False) -> list[Cluster]:
    """Return the clusters that have images in use, those with most clear ones to label first.

    Where none is left to label, the previews stand for all clear ones; where none is clear, for
    the whole cluster.

    Parameters
    ----------
    also_labelled
        The previews stand for all clear ones, labelled or not.

    Raises
    ------
    NotFoundError
        No index was made yet.
    """
    index = get_index(store, project_id=project_id)
    ids, looked_at, classes = labels_in_use(store, project_id)
    known = np.isin(ids, index.ids)
    rows, looked_at, classes = index.rows_of(ids), looked_at[known], classes[known]
    mine, clear = np.asarray(index.clusters[rows], np.int64), index.clear[rows]
    n_all = int(index.clusters.max(initial=-1)) + 1

    def count(which: Any) -> Ints:
        return np.bincount(mine[which], minlength=n_all)

    n, seen, n_clear, free = (
        count(slice(None)), count(looked_at), count(clear), count(clear & ~looked_at)
    )  # fmt: skip
    shown = np.where((n_clear > 0)[mine], clear, True)
    if not also_labelled:
        shown &= ~looked_at | (free == 0)[mine]
    per_class = _per_class(mine, classes, n_all)
    previews = _previews(index, rows[shown], mine[shown], n_all)
    order = np.lexsort((seen - n, -n_clear if also_labelled else -free))
    return [
        _cluster(i, (n[i], seen[i], n_clear[i], free[i]), per_class[i], previews[i])
        for i in order.tolist()
        if n[i]
    ]


def _cluster(
    number: int, counts: tuple[int, ...], per_class: dict[int, int], previews: list[int]
) -> Cluster:
    n, seen, n_clear, free = map(int, counts)
    total = sum(per_class.values())
    purity = max(per_class.values()) / total if total else None
    return Cluster(number, n, seen, total, n_clear, free, per_class, purity, previews)


def _per_class(mine: Ints, classes: Ints, n_all: int) -> list[dict[int, int]]:
    found: list[dict[int, int]] = [{} for _ in range(n_all)]
    labelled = classes > 0
    pairs, counts = np.unique(
        np.stack([mine[labelled], classes[labelled]]), axis=1, return_counts=True
    )
    for at in np.argsort(-counts, kind="stable"):
        found[pairs[0, at]][int(pairs[1, at])] = int(counts[at])
    return found


def _previews(index: LooksIndex, rows: Ints, mine: Ints, n_all: int) -> list[list[int]]:
    """Return for each cluster some of these images, spread from the most to the least typical."""
    order = np.lexsort((index.ratio[rows], mine))
    rows = rows[order]
    ends = np.searchsorted(mine[order], np.arange(n_all + 1))
    return [
        index.ids[rows[start:end][spread(end - start, PREVIEWS)]].tolist()
        for start, end in pairwise(ends)
    ]


def spread(n: int, most: int) -> Ints:
    """Return at most `most` of the numbers 0 to n - 1: first, last, and evenly between them."""
    if n <= most:
        return np.arange(n)
    return np.linspace(0, n - 1, most).round().astype(np.int64)


def cluster_images(
    store: Store,
    *,
    project_id: int,
    cluster_id: int,
    unlabelled_only: bool = False,
    clear_only: bool = False,
) -> list[int]:
    """Return the images in use of a cluster, the most typical first, those on its border last.

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
    if clear_only:
        mine = mine[index.clear[mine]]
    ids = index.ids[mine[np.argsort(index.ratio[mine], kind="stable")]].tolist()
    used = in_use(store, project_id, ids, unlabelled_only)
    return [i for i in ids if i in used]
