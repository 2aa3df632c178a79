"""Does a map show what the model used? Its cells are put in and taken away, and the answer watched.

A map that ranks cells no better than chance does is found out here, and is marked so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.ml.saliency_inputs import blurred
from cnsapp.ml.streams import run_batches

GRID = 14  # cells a side
N_STEPS = 10  # shares of cells: 0, 0.1, ..., 1
N_RANDOM = 4  # random rankings; each stands for its reverse too
ANOTHER = 0.5  # correlation of ranks below which a moved map is another one
TRIES = 20  # at finding such a place; maps that look alike everywhere have none
_LIMITS = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895, 8: 1.860}
"""95 % points of Student's t, one-sided, by degrees of freedom."""
FAINT = 0.01  # probability below which curves can hardly move
Ranking = NDArray[np.int64]


@dataclass(frozen=True)
class Curves:
    """How the probability of the class moves while cells are put in or taken away.

    Attributes
    ----------
    shares
        (n,) shares of cells that were put in or taken away, 0 to 1.
    insertion
        (n,) probability of the class with the strongest cells put into a blurred image.
    deletion
        (n,) the same with the strongest cells of the image blurred.
    """

    shares: list[float]
    insertion: list[float]
    deletion: list[float]

    @property
    def insertion_area(self) -> float:
        """Area under the insertion curve, 0 to 1; high is good."""
        return _area(self.insertion)

    @property
    def deletion_area(self) -> float:
        """Area under the deletion curve, 0 to 1; low is good."""
        return _area(self.deletion)

    @property
    def score(self) -> float:
        """Insertion minus deletion, -1 to 1: 0 is what random maps and reverses have on average."""
        return self.insertion_area - self.deletion_area


@dataclass(frozen=True)
class Faithfulness:
    """The check of one map.

    Attributes
    ----------
    curves
        Of the map.
    random_scores
        Insertion minus deletion of the map at random places (`Chance`).
    random_limit
        What 95 % of random rankings stay below.
    center_score
        The same of a ranking from the middle of the image outwards.
    random_insertion, random_deletion
        (n,) mean curves of the random rankings and their reverses.
    is_empty
        Whether the map shows nothing, so that its ranking is none.
    """

    curves: Curves
    random_scores: list[float]
    random_limit: float
    center_score: float
    random_insertion: list[float]
    random_deletion: list[float]
    is_empty: bool = False

    @property
    def beats_random(self) -> bool:
        """Whether the map does better than 95 % of random maps."""
        return not self.is_empty and self.curves.score > self.random_limit

    @property
    def verdict(self) -> str:
        """One sentence with the numbers."""
        if self.is_empty:
            return "No better than random: the map is empty."
        score, limit = self.curves.score, self.random_limit
        numbers = (
            f"insertion minus deletion {score:+.2f}; 95 % of random maps stay below {limit:.2f}"
        )
        if not self.beats_random:
            said = f"No better than random: {numbers}."
            if max(self.curves.insertion + self.curves.deletion) < FAINT:
                said += f" The class never gets {FAINT:.0%}, so that the curves can hardly move."
            return said
        if score <= self.center_score:
            return (
                f"Better than random ({numbers}), but no better than a spot in the middle of the "
                f"image ({self.center_score:+.2f})."
            )
        return f"Better than random: {numbers}."

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            **asdict(self.curves),
            "insertion_area": self.curves.insertion_area,
            "deletion_area": self.curves.deletion_area,
            "score": self.curves.score,
            "random_scores": self.random_scores,
            "random_limit": self.random_limit,
            "center_score": self.center_score,
            "random_insertion": self.random_insertion,
            "random_deletion": self.random_deletion,
            "beats_random": self.beats_random,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Chance:
    """What maps like one, of the same grain, do on its image and class when they know nothing.

    Attributes
    ----------
    random
        Of the map itself, moved, turned and mirrored at random. Scattered cells would be too weak
        an opponent: what they show averages out, and a fifth of all smooth maps beat 95 % of them.
    center
        Of a ranking from the middle of the image outwards.
    """

    random: list[Curves]
    center: Curves

    @property
    def limit(self) -> float:
        """What 95 % of random rankings stay below.

        Putting in by a ranking shows the same images as taking away by its reverse. So the score of
        the reverse is minus the score of the ranking, and random rankings with their reverses have
        a mean of exactly 0: only their spread is estimated.
        """
        scores = np.array([curves.score for curves in self.random])
        return float(_LIMITS[min(len(scores), 8)] * np.sqrt(np.mean(scores**2)))


def chance_on(
    predictor: Predictor,
    image: Pixels,
    target: int,
    ranking: Ranking,
    *,
    seed: int = 0,
    n_random: int = N_RANDOM,
    cancelled: Callable[[], bool] | None = None,
) -> Chance:
    """Measure a map at random places and a spot in the middle: about 110 forward passes.

    Parameters
    ----------
    predictor, image, target, ranking
        As for `measure`.
    seed
        Of the random places.
    n_random
        How many, 1 to 8.
    """
    rng = np.random.default_rng(seed)
    rankings = [moved(ranking, rng) for _ in range(n_random)]
    *random, center = curves_of(
        predictor, image, target, [*rankings, center_ranking()], cancelled=cancelled
    )
    return Chance(random, center)


def measure(
    predictor: Predictor,
    image: Pixels,
    target: int,
    ranking: Ranking,
    chance: Chance,
    *,
    is_empty: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> Faithfulness:
    """Check one map by insertion and deletion: 20 forward passes.

    Parameters
    ----------
    predictor
        A loaded model; it stays as it is.
    image
        uint8 (H, W, 3).
    target
        Class, in the order of the outputs.
    ranking
        (196,) the 14 x 14 cells of the square view from the strongest to the weakest, row by row
        (`Saliency.ranking`).
    chance
        From `chance_on`, for the same image, class and ranking.
    is_empty
        Whether the map shows nothing at all.

    Raises
    ------
    Cancelled
        When `cancelled()` says so.

    References
    ----------
    Petsiuk et al., RISE: randomized input sampling for explanation of black-box models, BMVC 2018.
    """
    (own,) = curves_of(predictor, image, target, [ranking], cancelled=cancelled)
    puts = np.array([c.insertion for c in chance.random])  # (R, n)
    takes = np.array([c.deletion for c in chance.random])
    return Faithfulness(
        curves=own,
        random_scores=[c.score for c in chance.random],
        random_limit=chance.limit,
        center_score=chance.center.score,
        random_insertion=((puts.mean(0) + takes.mean(0)[::-1]) / 2).tolist(),
        random_deletion=((takes.mean(0) + puts.mean(0)[::-1]) / 2).tolist(),
        is_empty=is_empty,
    )


def curves_of(
    predictor: Predictor,
    image: Pixels,
    target: int,
    rankings: Sequence[Ranking],
    *,
    cancelled: Callable[[], bool] | None = None,
) -> list[Curves]:
    """Return the curves of rankings of cells: 20 forward passes each, on every core.

    Parameters and errors as for `measure`.
    """
    x = predictor.input_tensor([make_view(image, predictor.preprocessing.size)])
    blank = blurred(x)
    masks = [mask for ranking in rankings for mask in _masks(ranking)]
    size = predictor.device.batch_size

    def answer(part: list[NDArray[np.bool_]]) -> NDArray[np.float32]:
        shown = torch.from_numpy(np.stack(part)).to(x.device)  # (B, 14, 14)
        with predictor.device.inference():
            kept = _enlarged(shown, x.shape[-1])
            logits = predictor.net(torch.where(kept, x, blank).contiguous(
                memory_format=torch.channels_last)).float()  # fmt: skip
            found: NDArray[np.float32] = logits.softmax(1)[:, target].cpu().numpy()
        return found

    parts = [masks[i : i + size] for i in range(0, len(masks), size)]
    p = np.concatenate(list(run_batches(answer, parts, predictor.device, cancelled)))
    rows = p.reshape(len(rankings), 2, N_STEPS + 1)
    shares = [k / N_STEPS for k in range(N_STEPS + 1)]
    return [Curves(shares, row[0].tolist(), row[1].tolist()) for row in rows.astype(float)]


def center_ranking() -> Ranking:
    """Return the cells from the middle of the image outwards."""
    rows, columns = np.indices((GRID, GRID)) - (GRID - 1) / 2
    ranking: Ranking = np.argsort((rows**2 + columns**2).ravel(), kind="stable")
    return ranking


def moved(ranking: Ranking, rng: np.random.Generator) -> Ranking:
    """Return a map at another place: shifted around the edges, turned and mirrored at random.

    Its grain is kept. Places at which it looks much like itself are passed over.

    Parameters
    ----------
    ranking
        (196,) cells from the strongest to the weakest, row by row.
    """
    place = np.empty(GRID * GRID, np.int64)
    place[ranking] = np.arange(GRID * GRID)
    for _ in range(TRIES):
        other = np.rot90(place.reshape(GRID, GRID), int(rng.integers(4)))
        other = other.T if rng.integers(2) else other
        flat = np.roll(other, rng.integers(GRID, size=2), (0, 1)).ravel()
        if np.corrcoef(place, flat)[0, 1] < ANOTHER:
            break
    found: Ranking = np.argsort(flat)
    return found


def _masks(ranking: Ranking) -> list[NDArray[np.bool_]]:
    """Return which cells show the image: for insertion at every share, then for deletion."""
    place = np.empty(GRID * GRID, np.int64)
    place[ranking] = np.arange(GRID * GRID)
    ends = [round(GRID * GRID * k / N_STEPS) for k in range(N_STEPS + 1)]
    grid = place.reshape(GRID, GRID)
    return [grid < end for end in ends] + [grid >= end for end in ends]


def _enlarged(masks: torch.Tensor, side: int) -> torch.Tensor:
    """Return (B, 1, side, side) of masks of cells (B, 14, 14)."""
    cell = (torch.arange(side, device=masks.device) * GRID) // side
    return masks[:, cell][:, :, cell][:, None]


def _area(values: Sequence[float]) -> float:
    """Return the area under a curve over 0 to 1, by trapezoids."""
    v = np.asarray(values)
    return float((v[:-1] + v[1:]).mean() / 2)
