"""What images look like, in few numbers: for similar images, clusters, and a map of a project."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SEED = 0
DIMENSIONS = 64
WHITENING = 0.25  # power of a component's variance that it is divided by; 0.5 would be the whole
FITTED_ON = 20_000  # rows: more change neither axes, clusters nor map that one could see
AT_ONCE = 4096
STARTS, ROUNDS = 3, 100  # of k-means
MOST_CLUSTERS = 150
NEIGHBOURS = 15  # of each image that the map keeps beside it
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Projection:
    """Turns feature rows into unit rows whose product is the similarity of two images.

    Each column is standardised, then principal components are taken and divided by their variance
    to the power of `WHITENING`. Of the 10 nearest images, this share had the same class (balanced;
    other groups only, where there are any): colorectal tiles 0.87, against 0.85 standardised alone
    and 0.82 whitened wholly; smears 0.41, 0.39, 0.37; blood cells 0.39, 0.38, 0.35; bladder
    frames 0.34, 0.36, 0.28.
    """

    mean: Floats  # (D,)
    scale: Floats  # (D,)
    axes: Floats  # (D, d)
    explained: float  # share of the variance that the d axes hold

    @classmethod
    def fit(cls, rows: Floats) -> Projection:
        """Learn the axes from feature rows (N, D), N >= 1."""
        from sklearn.decomposition import PCA

        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        scale = np.where(spread > 1e-6, spread, 1.0)  # a constant column says nothing
        n = min(DIMENSIONS, rows.shape[1], max(1, len(rows) - 1))
        found = PCA(n, svd_solver="full" if len(rows) < rows.shape[1] else "covariance_eigh")
        with np.errstate(invalid="ignore", divide="ignore"):  # images that are all the same
            found.fit((rows - mean) / scale)
        variance = np.maximum(np.nan_to_num(found.explained_variance_), 0.0)
        held = variance > 1e-9 * max(float(variance.max(initial=0.0)), 1e-9)
        weight = np.where(held, np.where(held, variance, 1.0) ** -WHITENING, 0.0)
        axes = np.nan_to_num(found.components_.T * weight)
        explained = float(np.nan_to_num(found.explained_variance_ratio_).sum())
        mean, scale, axes = (np.asarray(part, np.float32) for part in (mean, scale, axes))
        return cls(mean, scale, axes, explained)

    def apply(self, rows: Floats) -> Floats:
        """Return unit rows (N, d) for feature rows (N, D)."""
        placed = ((rows - self.mean) / self.scale) @ self.axes
        length = np.linalg.norm(placed, axis=1, keepdims=True)
        return np.asarray(placed / np.maximum(length, 1e-9), np.float32)


def sample_of(n: int, most: int = FITTED_ON) -> Ints:
    """Return which of `n` rows things are learnt from, in order: all, or a seeded sample."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(SEED).choice(n, most, replace=False))


def n_clusters(n: int) -> int:
    """Return into how many clusters `n` images go: the root of n, at most 150.

    Many more than there are classes, on purpose: a class in several clusters costs a click each,
    two classes in one cluster cost wrong labels. 1,000 images make 32 clusters, 10,000 make 100.
    """
    return int(np.clip(round(n**0.5), 1, MOST_CLUSTERS))


def cluster(
    rows: Floats, k: int | None = None, seed: int = SEED
) -> tuple[NDArray[np.int32], Floats]:
    """Cluster unit rows by k-means.

    Parameters
    ----------
    rows
        (N, d), N >= 1.
    k
        How many; None: `n_clusters`.
    seed
        Of the places where k-means starts.

    Returns
    -------
    The cluster of each row (N,), the largest one being 0, and how far each row is from the middle
    of its cluster, divided by how far it is from the second nearest middle (N,): 0 in the middle,
    1 on the border to another cluster, and 1 where there is no other.
    """
    middles = _middles(rows, min(k or n_clusters(len(rows)), len(rows)), seed)
    given, ratio = _given(rows, middles)
    filled, sizes = np.unique(given, return_counts=True)
    if len(filled) < len(middles):  # same pictures under many names: middles that nobody has
        given, ratio = _given(rows, middles[filled])
        sizes = np.bincount(given, minlength=len(filled))
    number = np.empty(len(sizes), np.int32)
    number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return number[given], ratio


def _middles(rows: Floats, k: int, seed: int) -> Floats:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer pictures than clusters
        found = KMeans(k, random_state=seed, n_init=STARTS, max_iter=ROUNDS)
        found.fit(rows[sample_of(len(rows))])
    return np.asarray(found.cluster_centers_, np.float32)


def _given(rows: Floats, middles: Floats) -> tuple[Ints, Floats]:
    """Return the nearest middle of each row, and its distance over that of the second nearest."""
    from sklearn.metrics import euclidean_distances

    given, ratio = np.empty(len(rows), np.int64), np.ones(len(rows), np.float32)
    for part, some in parts_of(rows):
        apart = euclidean_distances(some, middles)
        given[part] = apart.argmin(axis=1)
        if len(middles) > 1:
            near = np.partition(apart, 1, axis=1)
            ratio[part] = near[:, 0] / np.maximum(near[:, 1], 1e-9)
    return given, ratio


def parts_of(rows: Floats) -> Iterator[tuple[slice, Floats]]:
    """Yield rows in parts that fit into memory beside each other."""
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        yield part, rows[part]


def make_map(rows: Floats, check: Callable[[], None]) -> tuple[Floats, str]:
    """Return a place in the plane for each unit row (N, 2), and how they were found.

    UMAP [1]_ places a sample of at most `FITTED_ON` rows; it runs in a process of its own, so that
    a cancelled job ends at once and its memory is given back. The others go between the places of
    their five nearest rows of the sample, where UMAP's own `transform` would start from.

    Parameters
    ----------
    rows
        (N, d) float32.
    check
        Called a few times a second; what it raises ends the work.

    Returns
    -------
    Places, and "umap" or "pca": the first two components, where UMAP is not installed, fails, or
    has too few images to work with.

    References
    ----------
    .. [1] McInnes, Healy, Melville: UMAP: Uniform Manifold Approximation and Projection for
       Dimension Reduction. arXiv:1802.03426 (2018).
    """
    some = sample_of(len(rows))
    placed = _umap_apart(rows[some], check) if len(rows) > NEIGHBOURS else None
    if placed is None:
        return first_axes(rows), "pca"
    return place_others(rows, some, placed, check), "umap"


def first_axes(rows: Floats) -> Floats:
    """Return the first two components of each row, (N, 2)."""
    places = np.zeros((len(rows), 2), np.float32)
    places[:, : min(2, rows.shape[1])] = rows[:, :2]
    return places


def _umap_apart(rows: Floats, check: Callable[[], None]) -> Floats | None:
    """Run `looks_map` on the rows in a child process; None when that fails."""
    with tempfile.TemporaryDirectory(prefix="cnsapp-map-") as name:
        source, target = Path(name, "rows.npy"), Path(name, "places.npy")
        np.save(source, rows)
        command = [sys.executable, "-m", "cnsapp.ml.looks_map", str(source), str(target)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            while child.poll() is None:
                check()
                time.sleep(LOOK_SECONDS)
        finally:
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        if child.returncode != 0 or not target.is_file():
            return None
        placed = np.load(target)
    return placed if placed.shape == (len(rows), 2) and np.isfinite(placed).all() else None


def place_others(rows: Floats, some: Ints, placed: Floats, check: Callable[[], None]) -> Floats:
    """Return places for all rows, given those of the rows `some`."""
    places = np.empty((len(rows), 2), np.float32)
    known = rows[some]
    others = np.ones(len(rows), bool)
    others[some] = False
    for part in np.array_split(np.flatnonzero(others), max(1, -(-int(others.sum()) // 1024))):
        check()
        closeness = rows[part] @ known.T
        near = np.argpartition(-closeness, min(5, len(some) - 1), axis=1)[:, :5]
        weight = np.maximum(np.take_along_axis(closeness, near, axis=1), 0.0) ** 4 + 1e-6
        weight /= weight.sum(axis=1, keepdims=True)
        places[part] = np.einsum("ij,ijk->ik", weight, placed[near])
    places[some] = placed
    return places


def nearest_rows(rows: Floats, n: int) -> tuple[Ints, Floats]:
    """Return the `n` nearest rows of every unit row, itself first, and their distances."""
    near = np.empty((len(rows), n), np.int64)
    apart = np.empty((len(rows), n), np.float32)
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        closeness = rows[part] @ rows.T
        own = np.arange(start, start + len(closeness))
        closeness[np.arange(len(own)), own] = 2.0  # itself first, also among same pictures
        found = np.argpartition(-closeness, n - 1, axis=1)[:, :n]
        order = np.argsort(-np.take_along_axis(closeness, found, axis=1), axis=1, kind="stable")
        near[part] = np.take_along_axis(found, order, axis=1)
        similarity = np.clip(np.take_along_axis(closeness, near[part], axis=1), -1, 1)
        apart[part] = np.sqrt(2 - 2 * similarity)
    return near, apart
