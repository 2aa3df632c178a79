"""A fair search for the best model within a time budget: rounds, their shares, and who goes on.

Successive halving: all candidates are tried on little (some of the images, few epochs), the better
half on more, until the last ones are tried on everything. In a round every candidate is judged on
the same images in the same folds. The locked test set takes part in nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.compare import compare
from cnsapp.domain.recipe import FINE_TUNED, PRESETS

Ints = NDArray[np.int64]

FEWEST_OF_CLASS = 12  # images of each class that a part of the images must hold
FEWEST_IMAGES = 300  # below, a part of the images tells too little
TUNED_FOLDS = 2  # folds in which networks are fine-tuned in the last round: one training each
KEPT_BACK = {True: 0.3, False: 0.1}  # of the budget, for the winner: fine-tuned or not
FIRST = 0.5  # of the budget, at most, for the first and simplest one: something is to come of it
MUCH_TOO_LONG = 1.5  # an estimate so many times its allotment is not tried at all


@dataclass(frozen=True)
class Candidate:
    """A way to make a model: backbone, preset, and dials set otherwise than in the preset."""

    backbone: str
    preset: str
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_fine_tuned(self) -> bool:
        """Whether its network itself is trained."""
        return self.preset in FINE_TUNED

    @property
    def simplicity(self) -> int:
        """Smaller is simpler."""
        return list(PRESETS).index(self.preset)

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "backbone": self.backbone,
            "preset": self.preset,
            "title": self.title,
            "options": dict(self.options),
        }


@dataclass(frozen=True)
class Round:
    """What the candidates of a round are given.

    Attributes
    ----------
    share
        Part of the images, 0 to 1.
    n_folds
        Folds that are judged.
    epochs
        Part of the epochs of a fine-tuned candidate, 0 to 1.
    """

    share: float
    n_folds: int
    epochs: float

    def work(self, fine_tuned: bool, before: Round | None = None) -> float:
        """Return how much there is to do, in units of a candidate's whole training."""
        if fine_tuned:
            return self.share * self.n_folds * self.epochs
        known = before.share if before else 0.0  # features are computed once
        return max(self.share - known, 0.0) + 0.1 * self.share


def plan_rounds(
    n_candidates: int, n_folds: int, *, fine_tuned: bool, can_share: bool
) -> list[Round]:
    """Return the rounds of a search, the smallest first.

    Parameters
    ----------
    n_candidates
        At the start.
    n_folds
        Of the plan.
    fine_tuned
        Whether networks are fine-tuned among them.
    can_share
        Whether a part of the images is enough to tell candidates apart (see `FEWEST_IMAGES`).
    """
    wanted = min(3, max(1, (n_candidates - 1).bit_length()))  # 1 of 2, 2 of 4, 3 of more
    if not can_share and not fine_tuned:
        wanted = 1  # nothing would be left out of a smaller round
    rounds = []
    for step in range(wanted - 1, -1, -1):
        share = 0.5**step
        folds = n_folds
        if fine_tuned:
            folds = min(n_folds, TUNED_FOLDS if step == 0 else 1)
        rounds.append(Round(share if can_share else 1.0, folds, share))
    return rounds


def go_on(scores: Mapping[int, float | None], simplicity: Mapping[int, float]) -> list[int]:
    """Return the better half of the candidates, two at least, the best first."""
    known = [k for k, score in scores.items() if score is not None]
    known.sort(key=lambda k: (-(scores[k] or 0.0), simplicity[k], k))
    return known[: max(2, ceil(len(known) / 2))]


def allotment(
    budget: float, before: float, in_round: float, rounds_left: int, candidates_left: int
) -> float:
    """Return the seconds that the next trial may take.

    What is left before a round is shared out equally among it and those after it, and within the
    round among its candidates; what a trial does not need goes to those after it.

    Parameters
    ----------
    budget, before, in_round
        Seconds in all, spent before this round, and in it so far.
    rounds_left, candidates_left
        This one included.
    """
    part = (budget - before) / max(1, rounds_left)
    return max(0.0, part - in_round) / max(1, candidates_left)


def choose(
    true: Ints,
    answers: NDArray[np.integer],
    n_classes: int,
    groups: Sequence[str | None] | None,
    simplicity: Sequence[tuple[float, float]],
    seed: int = 0,
) -> int:
    """Return the place of the winner: the simplest that the best does not clearly beat.

    A candidate is as good as the best when it falls short of it by no more than one standard error
    of the difference on the same images (by group).

    Parameters
    ----------
    true
        (N,) class indices.
    answers
        (M, N) what each candidate says of images it did not learn from.
    simplicity
        (M,) the smaller, the simpler, then the faster.

    References
    ----------
    Breiman et al., Classification and regression trees, 1984 (one standard error), here of the
    paired difference; Jamieson and Talwalkar, Non-stochastic best arm identification, AISTATS 2016.
    """
    said = np.asarray(answers, np.int64)
    if len(said) == 1:
        return 0
    found = compare(true, said, n_classes, groups, seed=seed, n_resamples=2000)
    scores = [-1.0 if score is None else score for score in found.scores]
    best = int(np.argmax(scores))
    good = [best]
    for pair in found.pairs:
        other = pair.second if pair.first == best else pair.first
        error = pair.standard_error
        if best not in (pair.first, pair.second) or error is None:
            continue
        if scores[best] - scores[other] <= error + 1e-12:
            good.append(other)
    return min(good, key=lambda k: (simplicity[k], -scores[k], k))


def nested_answers(
    true: Ints,
    answers: NDArray[np.integer],
    n_classes: int,
    groups: Sequence[str | None] | None,
    folds: Ints,
    simplicity: Sequence[tuple[float, float]],
    seed: int = 0,
) -> Ints | None:
    """Return what the search itself would have said: each fold by who wins on the other folds.

    The score of these answers is that of choosing, free of the luck of the winner.

    Parameters
    ----------
    folds
        (N,) fold of each image.

    Returns
    -------
    (N,) class indices; None with fewer than two folds or candidates.

    References
    ----------
    Varma and Simon, Bias in error estimation when using cross-validation for model selection, BMC
    Bioinformatics 2006.
    """
    present = np.unique(folds)
    said = np.asarray(answers, np.int64)
    if len(present) < 2 or len(said) < 2:
        return None
    found = np.empty(len(true), np.int64)
    for fold in present:
        held = folds == fold
        rest = np.flatnonzero(~held)
        mine = None if groups is None else [groups[int(i)] for i in rest]
        winner = choose(true[rest], said[:, rest], n_classes, mine, simplicity, seed)
        found[held] = said[winner, held]
    return found
