"""Things that tell the label without showing it: a scanner, a date, the size of a file.

Here they are put into cells that can be counted, and compared with the label directly. How well
they tell it: `cnsapp.domain.guessing`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.names import name_key
from cnsapp.domain.resampling import Ints

MOST_BINS = 16
PER_BIN = 10  # images
THE_LABEL = 0.9  # share of each class that a folder tells: it is the label by another name
MOST_VALUES = 60  # texts that are told apart; the rarer ones are one cell
AGREES, DISAGREES = "the cue fits the label", "the cue speaks against it"
GAP = timedelta(minutes=30)  # without a new image: what comes then is another import


def cells_of_numbers(values: NDArray[np.floating]) -> Ints:
    """Put numbers into equally filled cells (N,), as many as 10 images a cell allow, at most 16.

    Equal numbers share a cell; NaN has one of its own. Labels take no part.
    """
    x = np.asarray(values, np.float64)
    known = np.isfinite(x)
    found = np.zeros(len(x), np.int64)
    if not known.any():
        return found
    distinct = np.unique(x[known])
    n_bins = int(np.clip(known.sum() // PER_BIN, 2, MOST_BINS))
    if len(distinct) <= n_bins:
        edges = distinct[1:]
    else:
        shares = np.arange(1, n_bins) / n_bins
        edges = np.unique(np.quantile(x[known], shares, method="nearest"))
    found[known] = np.searchsorted(edges, x[known], side="right")
    found[~known] = found.max() + 1
    return found


def cells_of_texts(values: Sequence[str | None]) -> Ints:
    """Number texts from 0 (N,), the commonest first; beyond 60 they share a cell, None too."""
    counts = Counter(value for value in values if value is not None)
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    number = {value: min(i, MOST_VALUES) for i, value in enumerate(ranked)}
    return np.array(
        [MOST_VALUES + 1 if value is None else number[value] for value in values], np.int64
    )


def inseparable(labels: NDArray[np.integer], values: Sequence[str | None]) -> list[tuple[int, str]]:
    """Return the labels that cannot be told apart from a value, with that value.

    All images of the label have this value, and no image of another label has it: nothing in these
    images can show whether a model learns the label or the value.

    Parameters
    ----------
    labels
        (N,) class indices.
    values
        (N,) of a column; None where nothing is noted.

    Returns
    -------
    Label and value, by label; empty where fewer than two values or two labels are there.
    """
    of_label: dict[int, set[str | None]] = {}
    of_value: dict[str | None, set[int]] = {}
    for label, value in zip(np.asarray(labels).tolist(), values, strict=True):
        of_label.setdefault(label, set()).add(value)
        of_value.setdefault(value, set()).add(label)
    if len(of_label) < 2 or len(of_value) < 2:
        return []
    return [
        (label, str(value))
        for label, (value, *more) in sorted((k, list(v)) for k, v in of_label.items())
        if not more and value is not None and of_value[value] == {label}
    ]


def folder_values(names: Sequence[str], labels: NDArray[np.integer]) -> list[str | None]:
    """Return the folders of each file, without the levels that are the label by another name.

    Labels are often taken from folders (`site1/01_TUMOR/a.png`), which no model reads. A level
    whose names tell the label of 90 in 100 images, classes counting alike, is such a one, and is
    left out: what is left (`site1`) may stand for how the images were made.

    Parameters
    ----------
    names
        (N,) file names with their folders.
    labels
        (N,) class indices.
    """
    parts = [PurePosixPath(name).parent.parts for name in names]
    kept: list[list[str]] = [[] for _ in names]
    for level in range(max((len(p) for p in parts), default=0)):
        values = [p[level] if level < len(p) else None for p in parts]
        if _told(labels, values) < THE_LABEL:
            for mine, value in zip(kept, values, strict=True):
                mine += [value] if value is not None else []
    return ["/".join(mine) or None for mine in kept]


def _told(labels: NDArray[np.integer], values: Sequence[str | None]) -> float:
    """Return the mean recall, 0 to 1, where each value says the class that it holds most of.

    Classes count alike: where nine images in ten are of one class, any folder would else tell it.
    0 with one value.
    """
    names = {value: i for i, value in enumerate(dict.fromkeys(values))}
    if len(names) < 2:
        return 0.0
    classes, of = np.unique(np.asarray(labels), return_inverse=True)
    place = np.array([names[value] for value in values], np.int64)
    flat = np.bincount(place * len(classes) + of, minlength=len(names) * len(classes))
    shares = flat.reshape(len(names), len(classes)) / np.bincount(of)
    said = shares.argmax(1)
    return float(shares[np.arange(len(names)), said].sum() / len(classes))


def prefix_values(groups: Sequence[str | None]) -> list[str | None]:
    """Return the letters that each group begins with: of `HospA_07` it is `hospa`."""
    found = [re.match(r"[^\W\d_]+", group or "") for group in groups]
    return [None if match is None else name_key(match.group()) for match in found]


def batch_values(moments: Sequence[datetime]) -> list[str | None]:
    """Return in which import each image came: a new one after half an hour without images.

    Named by its first moment, as `2026-11-28 21:05`.
    """
    found: list[str | None] = [None] * len(moments)
    last: datetime | None = None
    name = ""
    for i in sorted(range(len(moments)), key=lambda i: moments[i]):
        if last is None or moments[i] - last > GAP:
            name = f"{moments[i]:%Y-%m-%d %H:%M}"
        found[i], last = name, moments[i]
    return found
