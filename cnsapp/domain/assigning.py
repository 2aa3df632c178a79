"""Giving whole units of images to folds or parts, so that each gets its share of every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.together import Ints


def assign(
    labels: Ints, units: Ints, n_folds: int, generator: np.random.Generator
) -> tuple[Ints, int]:
    """Give whole units to folds, biggest first, each to the fold where its classes are rarest."""
    if len(labels) == 0:
        return np.zeros(0, np.int64), 0
    classes = np.unique(labels, return_inverse=True)[1]
    table = np.zeros((units.max() + 1, classes.max() + 1))  # (units, classes) counts
    np.add.at(table, (units, classes), 1)
    most_units = int((table > 0).sum(0).max())
    used = min(n_folds, most_units)
    if used < 2:
        return np.zeros(len(labels), np.int64), 0
    share = table / table.sum(0)  # each class weighs the same
    return give_out(share, np.ones(used), generator)[units], used


def give_out(
    weights: NDArray[np.float64],
    shares: NDArray[np.float64],
    generator: np.random.Generator,
    fixed: Ints | None = None,
) -> Ints:
    """Give units to parts, biggest first, each to the part where its classes are rarest.

    Parameters
    ----------
    weights
        (U, C) what share of each class a unit holds; columns sum to 1.
    shares
        (P,) how much each part is to hold, in any unit, all above 0.
    generator
        Decides ties.
    fixed
        (U,) part of a unit that is decided already, or -1.

    Returns
    -------
    (U,) part of each unit.
    """
    order = np.lexsort((generator.random(len(weights)), -weights.max(1)))
    load = np.zeros((len(shares), weights.shape[1]))
    part_of = np.full(len(weights), -1) if fixed is None else fixed.copy()
    for part in range(len(shares)):
        load[part] = weights[part_of == part].sum(0)
    for unit in order[part_of[order] < 0]:
        mine = weights[unit]
        # squared load after the unit joins: least where its own classes are rare so far
        cost = ((((load + mine) ** 2) - load**2) / shares[:, None]).sum(1) + 1e-9 * load.sum(1)
        best = np.flatnonzero(cost <= cost.min() + 1e-12)
        part_of[unit] = generator.choice(best)
        load[part_of[unit]] += mine
    return part_of
