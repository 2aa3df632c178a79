"""Finding pictures that show the same thing: resaved, resized, turned, mirrored, recoloured.

Two steps, so that 100,000 pictures need no comparison of each with each:

1. *Candidates.* The low frequencies of a 32 x 32 gray picture (a discrete cosine transform, as in
   perceptual hashes) are scaled to length 1: brightness and contrast are gone. A turn by 90 degrees
   or a mirror only swaps (u, v) with (v, u) and changes signs, so the 35 lengths
   ``hypot(c[u, v], c[v, u])``, u <= v, are the same for all eight orientations, and the inner
   product of two such vectors is never below the correlation of the pictures. They are sorted into
   about sqrt(N) cells (k-means); each picture is compared with those of its `PROBES` nearest cells
   and its `NEIGHBOURS` best are kept, so that a thousand alike pictures make no million pairs.
2. *Proof.* Each candidate pair is compared in all eight orientations: first by its low
   frequencies, then by the normalised cross-correlation of the middle frequencies (periods of 2.7
   to 16 of the 32 pixels). Tiles of one stain or chest films share their low frequencies; the
   middle ones are a picture's own.

Cost: `PROBES` N sqrt(N) products of 35 numbers; memory 400 bytes a picture, and the 1,024 of the
signature for those alone that reach the second proof.

References
----------
Zauner, Implementation and benchmarking of perceptual image hash functions, 2010 (DCT hash).
Jegou et al., Product quantization for nearest neighbor search, TPAMI 2011 (cells and probes).
Lewis, Fast normalized cross-correlation, Vision Interface 1995.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.fft import dctn

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SIDE = 32  # pixels of the gray picture
LOW = 8  # its low frequencies: u, v < 8 without the mean
N_LOW = LOW * LOW - 1
SIGNATURE_BYTES = N_LOW + SIDE * SIDE
BAND = (4, 24)  # max(u, v) of the middle frequencies
MIN_CONTRAST = 1.5  # gray levels of 255; below it there is nothing to compare
LOW_SIMILARITY = 0.98
SIMILARITY = 0.95
NEIGHBOURS = 24
PROBES = 8
ONE_CELL = 4096  # so many pictures need no cells
TAUGHT = 64  # pictures a cell that k-means looks at
ROUNDING = 0.005  # what the bytes of a signature may take from an inner product
BLOCK = 4096  # pairs compared at once
_SPREAD = 32.0  # a standard deviation of the gray picture in steps of a byte


@dataclass(frozen=True)
class Pair:
    """Two pictures that show the same, by their places in the list; `similarity` is up to 1."""

    first: int
    second: int
    similarity: float


def signature(gray: NDArray[np.floating]) -> bytes | None:
    """Return what a picture is compared by; None where it has no structure.

    Parameters
    ----------
    gray
        (32, 32) gray levels from 0 to 255: the whole picture, squeezed to a square.

    Returns
    -------
    1,087 bytes: 63 low frequencies (int8, a vector of length 127), then the gray picture with mean
    128 and standard deviation 32 (uint8).
    """
    if gray.shape != (SIDE, SIDE):
        raise ValueError(f"gray has shape {gray.shape}, not {(SIDE, SIDE)}")
    centred = gray.astype(np.float32) - np.float32(gray.mean())
    contrast = float(centred.std())
    if contrast < MIN_CONTRAST:
        return None
    low = dctn(centred, norm="ortho")[:LOW, :LOW].ravel()[1:]
    low = np.rint(low * (127 / max(float(np.linalg.norm(low)), 1e-6))).astype(np.int8)
    picture = np.clip(np.rint(128 + _SPREAD * centred / contrast), 0, 255).astype(np.uint8)
    return bytes(low.tobytes() + picture.tobytes())


def low_frequencies(signatures: Sequence[bytes]) -> Floats:
    """Return (N, 63) unit vectors from signatures or from their first 63 bytes."""
    joined = b"".join(s[:N_LOW] for s in signatures)
    return _unit(np.frombuffer(joined, np.int8).reshape(-1, N_LOW).astype(np.float32))


def find_pairs(
    low: Floats,
    load: Callable[[Sequence[int]], Mapping[int, bytes]],
    new: NDArray[np.bool_] | None = None,
) -> list[Pair]:
    """Return the pairs that show the same picture, each once, the most similar first.

    Parameters
    ----------
    low
        (N, 63) as `low_frequencies` returns them.
    load
        Returns the whole signatures of these places; asked for few of them, block by block.
    new
        (N,) where only pairs with at least one of these are wanted; None: all.
    """
    if len(low) < 2:
        return []
    asked = np.arange(len(low)) if new is None else np.flatnonzero(new)
    found = []
    for first, second in _blocks(_candidates(low, asked)):
        close = _best(_grid(low[first]), _grid(low[second])) >= LOW_SIMILARITY
        first, second = first[close], second[close]
        if len(first):
            known = load(sorted({*first.tolist(), *second.tolist()}))
            scores = similarities(
                [known[i] for i in first.tolist()], [known[i] for i in second.tolist()]
            )
            found += [
                Pair(int(a), int(b), float(s))
                for a, b, s in zip(first, second, scores, strict=True)
                if s >= SIMILARITY
            ]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def similarities(first: Sequence[bytes], second: Sequence[bytes]) -> Floats:
    """Return the correlation of the middle frequencies pair by pair, -1 to 1, best orientation."""
    return _best(_middle(first), _middle(second))


def orientation_free(low: Floats) -> Floats:
    """Return (N, 35): the lengths that all eight orientations of a picture share."""
    grid = _grid(low)
    upper = np.triu_indices(LOW)
    swapped = grid.transpose(0, 2, 1)
    lengths = np.hypot(grid, swapped)[:, upper[0], upper[1]]
    lengths[:, upper[0] == upper[1]] /= np.float32(np.sqrt(2))  # its own mirror, counted once
    return lengths[:, 1:]  # without the mean


def _candidates(low: Floats, asked: Ints) -> tuple[Ints, Ints]:
    """Return the pairs (first < second) of places that may be the same picture."""
    points = orientation_free(low)
    centres = _centres(points)
    home = _nearest(points, centres, 1)[:, 0]
    probed = _nearest(points[asked], centres, min(PROBES, len(centres)))
    found: list[tuple[Ints, Ints, Floats]] = []
    for cell in range(len(centres)):
        members = np.flatnonzero(home == cell)
        queries = asked[(probed == cell).any(axis=1)]
        for start in range(0, len(queries), BLOCK):
            found.append(_close(points, queries[start : start + BLOCK], members))
    query, member, score = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((-score, query))
    query, member = query[order], member[order]
    begins = np.r_[0, np.flatnonzero(np.diff(query)) + 1][: len(query)]
    rank = np.arange(len(query)) - np.repeat(begins, np.diff(np.r_[begins, len(query)]))
    query, member = query[rank < NEIGHBOURS], member[rank < NEIGHBOURS]
    keys = np.unique(np.minimum(query, member) * len(low) + np.maximum(query, member))
    return keys // len(low), keys % len(low)


def _centres(points: Floats) -> Floats:
    if len(points) <= ONE_CELL:
        return points[:1]
    n = round(len(points) ** 0.5)
    rng = np.random.default_rng(0)
    taught = rng.choice(len(points), min(len(points), n * TAUGHT), replace=False)
    centres, _ = kmeans2(points[taught], n, iter=5, minit="points", missing="warn", rng=rng)
    return np.asarray(centres, np.float32)


def _nearest(points: Floats, centres: Floats, n: int) -> Ints:
    """Return the places (N, n) of the nearest centres, in no order."""
    out = np.empty((len(points), n), np.int64)
    half = (centres * centres).sum(axis=1) / 2
    for start in range(0, len(points), BLOCK):
        far = half - points[start : start + BLOCK] @ centres.T
        out[start : start + BLOCK] = np.argpartition(far, n - 1, axis=1)[:, :n]
    return out


def _close(points: Floats, queries: Ints, members: Ints) -> tuple[Ints, Ints, Floats]:
    """Return query, member and inner product of the close ones, the best of each query."""
    products = points[queries] @ points[members].T
    products[queries[:, None] == members[None, :]] = -1
    if len(members) > NEIGHBOURS:
        kth = len(members) - NEIGHBOURS
        crowded = (products >= LOW_SIMILARITY - ROUNDING).sum(axis=1) > NEIGHBOURS
        rows = products[crowded]
        least = np.partition(rows, kth, axis=1)[:, kth, None]
        products[crowded] = np.where(rows >= least, rows, -1)
    q, m = np.nonzero(products >= LOW_SIMILARITY - ROUNDING)
    return queries[q], members[m], products[q, m]


def _blocks(pairs: tuple[Ints, Ints]) -> Iterator[tuple[Ints, Ints]]:
    for start in range(0, len(pairs[0]), BLOCK):
        part = slice(start, start + BLOCK)
        yield pairs[0][part], pairs[1][part]


def _grid(low: Floats) -> Floats:
    grid = np.zeros((len(low), LOW * LOW), np.float32)
    grid[:, 1:] = low
    return grid.reshape(-1, LOW, LOW)


def _middle(signatures: Sequence[bytes]) -> Floats:
    """Return the middle frequencies (N, 32, 32), all others 0, of length 1 each."""
    pictures = np.stack([np.frombuffer(s, np.uint8, offset=N_LOW) for s in signatures])
    waves = dctn(pictures.reshape(-1, SIDE, SIDE).astype(np.float32), axes=(1, 2), norm="ortho")
    order = np.maximum.outer(np.arange(SIDE), np.arange(SIDE))
    waves *= (order >= BAND[0]) & (order < BAND[1])
    return _unit(waves.reshape(len(waves), -1)).reshape(waves.shape)


def _best(a: Floats, b: Floats) -> Floats:
    """Return the largest of the eight inner products of `a` (N, S, S) with turned `b`."""
    n, side = len(a), a.shape[1]
    sign = np.where(np.arange(side) % 2, -1.0, 1.0).astype(np.float32)
    signs = np.stack(
        [np.ones((side, side)), np.outer(sign, np.ones(side)), np.outer(np.ones(side), sign),
         np.outer(sign, sign)]
    ).reshape(4, -1).astype(np.float32)  # fmt: skip
    straight = (a * b).reshape(n, -1) @ signs.T  # (N, 4)
    swapped = (a * b.transpose(0, 2, 1)).reshape(n, -1) @ signs.T
    best: Floats = np.maximum(straight.max(axis=1), swapped.max(axis=1))
    return best


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floats = rows / np.maximum(lengths, np.float32(1e-6))
    return scaled
