"""Samples of a large picture that are read a band of rows at a time, as often as asked for.

A page of 110 million pixels with 16 bits takes 220 MB before anything is made of it; band by band
only the picture itself is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 512  # rows of an array worked on at a time, so that floats of large images need little


@dataclass(frozen=True)
class Bands:
    """Samples that are not in memory: `read` yields them from the top, cut along the rows."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Iterator[NDArray[Any]]]

    @property
    def size(self) -> int:
        """Number of samples."""
        return int(np.prod(self.shape))


Samples = NDArray[Any] | Bands


def row_parts(samples: Samples) -> Iterator[NDArray[Any]]:
    """Yield samples from the top, some rows at a time."""
    if isinstance(samples, Bands):
        for band in samples.read():
            yield from row_parts(band)
        return
    for start in range(0, len(samples), ROWS):
        yield samples[start : start + ROWS]
