"""When to stop looking for label errors: how many of those looked at were wrong, how many are left.

Two sources are put together: the risk that the model and the neighbours see in each label, and what
a person has decided so far, going down the list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.resampling import Interval, wilson_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FIRST_STRETCH = 10  # images of the list, each further stretch a half longer
GROWTH = 1.5
BELIEF = 4.0  # decisions that the risk of a stretch counts as much as
NEXT = 20  # images of the list that "the next ones" are
WORTH_WHILE = 1.0  # errors expected among them, below which looking on is not

ASSUMES = (
    "This assumes that the list is in order, so that labels further down are wrong no more often "
    "than those above, and that the labels looked at are like the others near them in the list. "
    "Errors that the model and the neighbours share are not in the count: two classes that "
    "everybody mixes up, or a whole slide labelled wrong where no groups are given."
)


@dataclass(frozen=True)
class Progress:
    """How far the review of labels is.

    Attributes
    ----------
    n_looked, n_wrong
        Labels that somebody confirmed or corrected, and those corrected.
    precision, interval
        Share of the wrong ones among those looked at, 0 to 1, with its 95 % interval (Wilson); None
        before the first.
    n_open
        Labels that were not looked at.
    expected_left
        Wrong ones expected among them.
    n_next, expected_next
        The next images of the list, at most 20, and the wrong ones expected among them.
    """

    n_looked: int
    n_wrong: int
    precision: float | None
    interval: Interval | None
    n_open: int
    expected_left: float
    n_next: int
    expected_next: float

    @property
    def enough(self) -> bool:
        """Whether fewer than one of the next images is expected to be wrong."""
        return self.expected_next < WORTH_WHILE

    def looked_in_words(self) -> str:
        """Return how many of those looked at were wrong; "" before the first."""
        if self.precision is None or self.interval is None:
            return ""
        low, high = (round(100 * bound) for bound in self.interval)
        return (
            f"{self.n_wrong:,} of {self.n_looked:,} labels looked at were wrong "
            f"({100 * self.precision:.0f} %, 95 % interval {low} to {high} %)."
        )

    def in_words(self) -> str:
        """Return the same in two or three sentences."""
        looked = self.looked_in_words()
        said = [looked] if looked else []
        if not self.n_open:
            return " ".join([*said, "All labels were looked at."])
        said.append(f"Among the {self.n_open:,} not looked at {_expected(self.expected_left)}.")
        if not self.n_next:
            said.append("The list has no more to show: this is a good place to stop.")
        else:
            advice = "this is a good place to stop" if self.enough else "go on"
            said.append(
                f"Of the next {self.n_next} in the list {_expected(self.expected_next)}: {advice}."
            )
        return " ".join(said)


def review_progress(
    risk: Floats, score: Floats, looked: Bools, wrong: Bools, listed: Bools | None = None
) -> Progress:
    """Return how far a review is, and how many errors are expected to be left.

    Parameters
    ----------
    risk
        (N,) chance that each label is wrong, 0 to 1, finite.
    score
        (N,) what the list is ordered by, the highest first; ties go to the lower index.
    looked, wrong
        (N,) which labels somebody decided about, and which of these were wrong.
    listed
        (N,) which labels the list shows: the next ones are of these. None: all.

    Raises
    ------
    ValueError
        Lengths differ, a number is not finite, or a label is wrong that nobody looked at.

    Notes
    -----
    The order is cut into stretches of 10, 15, 22, ... images. In each, the rate of errors is that
    of the decisions made there, together with the mean risk, which counts as four decisions. The
    rates are then made to fall along the order (isotonic regression). See `ASSUMES`.

    References
    ----------
    Ayer, Brunk, Ewing, Reid and Silverman, An empirical distribution function for sampling with
    incomplete information, Ann. Math. Statist. 1955 (isotonic regression); Wilson, JASA 1927.
    """
    risk, score = np.asarray(risk, np.float64), np.asarray(score, np.float64)
    looked, wrong = np.asarray(looked, bool), np.asarray(wrong, bool)
    if not len(risk) == len(score) == len(looked) == len(wrong):
        raise ValueError(f"{len(risk)} risks, {len(score)} scores, {len(looked)} decisions")
    if not (np.isfinite(risk).all() and np.isfinite(score).all()):
        raise ValueError("a risk or score is not a number")
    if (wrong & ~looked).any():
        raise ValueError("a label is called wrong that nobody looked at")
    order = np.lexsort((np.arange(len(score)), -score))
    chances = _chances(risk[order], looked[order], wrong[order])
    still = ~looked[order]
    shown = still if listed is None else still & np.asarray(listed, bool)[order]
    coming = np.flatnonzero(shown)[:NEXT]
    n_looked, n_wrong = int(looked.sum()), int(wrong.sum())
    return Progress(
        n_looked=n_looked,
        n_wrong=n_wrong,
        precision=n_wrong / n_looked if n_looked else None,
        interval=wilson_interval(n_wrong, n_looked),
        n_open=int(still.sum()),
        expected_left=float(chances[still].sum()),
        n_next=len(coming),
        expected_next=float(chances[coming].sum()),
    )


def _chances(risk: Floats, looked: Bools, wrong: Bools) -> Floats:
    """Return the chance (N,) that each label is wrong, in the order of the list.

    Within a stretch the chances keep the proportions of the risks.
    """
    edges = _edges(len(risk))
    if len(edges) < 2:
        return np.zeros(len(risk))
    starts = edges[:-1]
    sizes = np.diff(edges)
    believed = np.add.reduceat(risk, starts) / sizes
    n_looked = np.add.reduceat(looked.astype(np.float64), starts)
    n_wrong = np.add.reduceat(wrong.astype(np.float64), starts)
    weight = BELIEF + n_looked
    rates = falling((BELIEF * believed + n_wrong) / weight, weight)
    stretch = np.repeat(np.arange(len(sizes)), sizes)
    scale = rates / np.maximum(believed, 1e-12)
    return np.asarray(np.minimum(risk * scale[stretch], 1.0))


def falling(values: Floats, weights: Floats) -> Floats:
    """Return the values (N,) closest to these that never rise, by weighted squares.

    References
    ----------
    Ayer et al., Ann. Math. Statist. 1955 (pool adjacent violators).
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, length = value, weight, 1
        while pools and pools[-1][0] < mean:
            before, its, n = pools.pop()
            mean = (before * its + mean * total) / (its + total)
            total, length = its + total, n + length
        pools.append((mean, total, length))
    return np.repeat([mean for mean, _, _ in pools], [length for _, _, length in pools])


def _edges(n: int) -> Ints:
    """Return where stretches begin, and the end: 0, 10, 25, 47, ... n."""
    edges, step = [0], float(FIRST_STRETCH)
    while edges[-1] < n:
        edges.append(min(n, edges[-1] + round(step)))
        step *= GROWTH
    return np.array(edges, np.int64)


def _expected(n: float) -> str:
    if n < WORTH_WHILE:
        return "fewer than one is expected to be wrong"
    return f"about {n:,.0f} {'is' if n < 1.5 else 'are'} expected to be wrong"
