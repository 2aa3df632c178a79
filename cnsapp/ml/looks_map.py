"""A process of its own that places rows in the plane: `python -m cnsapp.ml.looks_map IN OUT`.

UMAP compiles itself and holds what it compiled; here that ends with the map, and a map nobody wants
any more can be ended at any moment. It ends by itself when its parent is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from pathlib import Path

import numpy as np

from cnsapp.ml.looks import NEIGHBOURS, SEED, Floats, first_axes, nearest_rows

SPREAD = 0.5  # of points that are alike: with 0.1 heaps shrink to dots that no mouse can go around
EPOCHS = 200  # UMAP's own number for many rows; with 500 a map of 10,000 takes a minute


def umap_places(rows: Floats) -> Floats:
    """Return a place in the plane for each unit row (N, d), N > `NEIGHBOURS`; the same each time.

    Neighbours are exact, and the first two components are where it starts from.
    """
    with warnings.catch_warnings():  # it says that one seed means one thread, and more of the kind
        warnings.simplefilter("ignore")
        from umap import UMAP

        near, apart = nearest_rows(rows, NEIGHBOURS)
        start = first_axes(rows)
        start += np.random.default_rng(SEED).normal(0, 1e-4, start.shape).astype(np.float32)
        found = UMAP(
            n_neighbors=NEIGHBOURS,
            min_dist=SPREAD,
            n_epochs=EPOCHS,
            init=start,
            precomputed_knn=(near, apart, None),
            random_state=SEED,
            n_jobs=1,
        )
        return np.asarray(found.fit_transform(rows), np.float32)


def main(source: str, target: str) -> None:
    """Read the rows, write their places."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    places = umap_places(np.load(source))
    half = Path(target).with_suffix(".half.npy")
    np.save(half, places)
    half.replace(target)


def _end_with_parent() -> None:
    # past Python's own buffer, whose lock an interpreter that ends would wait for
    os.read(sys.stdin.fileno(), 1)  # returns when the parent closes the pipe, or dies
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
