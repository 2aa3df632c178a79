"""Does a kind of map depend on what the model learnt? A comparison with random weights.

A method whose map stays the same draws the image, not the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import avg_pool2d

from cnsapp.domain.maps import clean_settings, get_method, sign_of
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.ml.saliency import GRID, shown_map
from cnsapp.ml.saliency_methods import attribute

QUICK: dict[str, dict[str, Any]] = {  # what the check needs no more of
    "integrated_gradients": {"steps": 8},
    "smoothgrad": {"samples": 4},
    "occlusion": {"window": 0, "stride": 512},  # windows side by side
}
SAME_MAP = 0.5  # rank correlation from which on two maps count as the same drawing
DEPTHS = ("head", "last stages", "everything")


@dataclass(frozen=True)
class Randomised:
    """How like a model's maps are to those of the same network with random weights.

    Attributes
    ----------
    depths
        What was given random weights, from the answer downwards: each includes those before it.
    rank_correlations
        Mean Spearman correlation of the 14 x 14 cells, -1 to 1, by depth.
    similarities
        Mean structural similarity (SSIM) of the maps, -1 to 1, by depth.
    n_images
        How many images were compared: those of which the model has a map at all.
    is_empty
        Whether the maps of random weights show nothing at all, so that nothing was compared.
    """

    method: str
    depths: list[str]
    rank_correlations: list[float]
    similarities: list[float]
    n_images: int
    is_empty: bool = False

    @property
    def depends_on_model(self) -> bool | None:
        """Whether the map is another one when nothing of the training is left; None: not known."""
        return None if self.n_images == 0 else self.rank_correlations[-1] < SAME_MAP

    @property
    def verdict(self) -> str:
        """One sentence with the numbers."""
        last, n = self.rank_correlations[-1], self.n_images
        images = f"{n} image{'' if n == 1 else 's'}"
        if n == 0:
            return "Not known: the maps of the sample are empty, so that nothing could be compared."
        if self.is_empty:
            return f"Depends on what was learnt: with random weights the map is empty ({images})."
        if self.depends_on_model:
            return (
                f"Depends on what was learnt: rank correlation {last:.2f} with maps of random "
                f"weights ({images})."
            )
        return (
            f"Hardly depends on what was learnt: maps of random weights look the same (rank "
            f"correlation {last:.2f}, {images}). It draws the image, not the model."
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            **asdict(self), "depends_on_model": self.depends_on_model, "verdict": self.verdict,
        }  # fmt: skip


def compare_with_random(
    predictor: Predictor,
    images: Sequence[Pixels],
    method: str,
    *,
    seed: int = 0,
    check_cancelled: Callable[[], None] | None = None,
) -> Randomised:
    """Compare maps of the predicted class with those of random weights, in cascade.

    The model itself is not touched: copies are given the weights of their layers in random order,
    which keeps their size. Costly methods run with fewer steps.

    Parameters
    ----------
    predictor
        A loaded model.
    images
        uint8 (H, W, 3), at least one; two or three will do.
    method
        A kind of map that is valid for the network.
    seed
        Of the random order.
    check_cancelled
        Called before every map; raises to stop.

    References
    ----------
    Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018.
    """
    inputs = [
        predictor.input_tensor([make_view(image, predictor.preprocessing.size)]) for image in images
    ]
    with torch.inference_mode():
        targets = [int(predictor.net(x)[0].argmax()) for x in inputs]
    found = [
        (_cells(predictor, x, target, method, check_cancelled), x, target)
        for x, target in zip(inputs, targets, strict=True)
    ]
    shown = [(cells, x, target) for cells, x, target in found if cells.any()]  # else all differs
    own = [cells for cells, _, _ in shown]
    ranks, likeness, maps = [], [], own
    for depth in DEPTHS:
        other = with_random_weights(predictor, depth, seed)
        maps = [_cells(other, x, target, method, check_cancelled) for _, x, target in shown]
        ranks.append(_mean(rank_correlation, own, maps))
        likeness.append(_mean(structural_similarity, own, maps))
    is_empty = not any(m.any() for m in maps)
    return Randomised(method, list(DEPTHS), ranks, likeness, len(own), is_empty)


def with_random_weights(predictor: Predictor, depth: str = DEPTHS[-1], seed: int = 0) -> Predictor:
    """Return a copy of a model whose layers have their weights in random order.

    Parameters
    ----------
    depth
        `head`, `last stages` (and the head) or `everything`.
    """
    other = copy.copy(predictor)
    other.net = copy.deepcopy(predictor.net)
    stages = list(other.net.body)
    first = {"head": len(stages), "last stages": len(stages) // 2, "everything": 0}[depth]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in (*stages[first:], other.net.head):
            _shuffle(module, generator)
    return other


def _shuffle(module: nn.Module, generator: torch.Generator) -> None:
    for value in module.parameters():
        order = torch.randperm(value.numel(), generator=generator).to(value.device)
        value.copy_(value.flatten()[order].view(value.shape))


def rank_correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return Spearman's correlation of two maps, -1 to 1; 0 when one of them is flat."""
    from scipy.stats import rankdata

    x, y = (rankdata(m.ravel()) - (m.size + 1) / 2 for m in (a, b))
    size = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / size) if size > 0 else 0.0


def structural_similarity(
    a: NDArray[np.floating], b: NDArray[np.floating], window: int = 7
) -> float:
    """Return the mean SSIM of two maps of values in -1 to 1, over square windows.

    References
    ----------
    Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE TIP
    2004 (uniform windows, sample covariance, range 1).
    """
    x, y = (torch.from_numpy(np.asarray(m, np.float64))[None, None] for m in (a, b))

    def mean(values: torch.Tensor) -> torch.Tensor:
        return avg_pool2d(values, window, stride=1)

    mx, my, n = mean(x), mean(y), window * window / (window * window - 1)
    vx, vy = n * (mean(x * x) - mx**2), n * (mean(y * y) - my**2)
    both = n * (mean(x * y) - mx * my)
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(found.mean())


def _cells(
    predictor: Predictor,
    x: torch.Tensor,
    target: int,
    method: str,
    check_cancelled: Callable[[], None] | None,
) -> NDArray[np.float32]:
    """Return the map as a reader is shown it, in 14 x 14 cells."""
    if check_cancelled is not None:
        check_cancelled()
    known = {setting.name for setting in get_method(method).settings}
    wanted = {k: v for k, v in QUICK.get(method, {}).items() if k in known}
    settings = clean_settings(method, wanted)
    raw = attribute(predictor, x, target, method, settings).raw
    shown, _ = shown_map(predictor, raw, sign_of(method, settings), x.shape[-1])
    cells: NDArray[np.float32] = torch.nn.functional.adaptive_avg_pool2d(shown[None, None], GRID)[
        0, 0
    ].numpy()
    return cells


def _mean(
    measure: Callable[[NDArray[np.floating], NDArray[np.floating]], float],
    own: Sequence[NDArray[np.float32]],
    others: Sequence[NDArray[np.float32]],
) -> float:
    if not own:
        return 0.0
    return float(np.mean([measure(a, b) for a, b in zip(own, others, strict=True)]))
