"""Which places of an image spoke for a class: any kind of map, aligned with the image's pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from cnsapp.domain.maps import DEFAULT_METHOD, MAGNITUDE, POSITIVE, SIGNED, clean_settings, sign_of
from cnsapp.errors import CnsError
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.ml.saliency_inputs import to_input_size
from cnsapp.ml.saliency_methods import INPUT, Attribution, attribute, grad_cam_layer
from cnsapp.ml.saliency_network import check_valid

Map = NDArray[np.float32]
GRID = 14  # cells a side in which maps are compared
READABLE = 32  # places a side to which maps of single pixels are averaged


@dataclass(frozen=True)
class Saliency:
    """A saliency map and what is known about it.

    Attributes
    ----------
    map
        (H, W) float32 at the image's own size. By `sign`: `positive` 0 to 1, evidence for the
        class, 1 = strongest, all zeros when no place speaks for the class; `signed` -1 to 1, below
        zero speaks against it; `magnitude` 0 to 1, influence in either direction.
    raw
        (h, w) float32, before scaling: at cell size for Grad-CAM, else at network size. Negative
        values speak against the class, except in methods without a sign. All zeros where the image
        is what it is compared with, as empty glass and its blur.
    method
        A key of `cnsapp.domain.maps.METHODS`.
    layer
        The stage shown, or `input`.
    target_index
        The class explained, in the order of the model's outputs.
    probability
        The model's probability for that class on this image (clean view).
    has_positive
        Whether any place speaks for the class.
    delta
        How far the values miss the change in the logit that they should add up to (0 is exact);
        None where a method makes no such promise.
    change
        That change: logit of the image minus logit of the baseline.
    sign
        `positive`, `signed` or `magnitude`.
    scale
        The value that 1 of the map stands for, in logits a cell or pixel; 0 for an empty map.
    cells
        (14, 14) float32, -1 to 1: the map in the network's square view, for comparisons.
    ranking
        (196,) int64: these cells from the strongest to the weakest, row by row.
    settings
        All settings of the method.
    """

    map: Map
    raw: Map
    method: str
    layer: str
    target_index: int
    probability: float
    has_positive: bool
    delta: float | None = None
    change: float | None = None
    sign: str = POSITIVE
    scale: float = 0.0
    cells: Map = field(default_factory=lambda: np.zeros((GRID, GRID), np.float32))
    ranking: NDArray[np.int64] = field(default_factory=lambda: np.arange(GRID * GRID))
    settings: dict[str, Any] = field(default_factory=dict)


def explain(
    predictor: Predictor,
    image: Pixels,
    target_index: int,
    method: str = DEFAULT_METHOD,
    settings: Mapping[str, Any] | None = None,
) -> Saliency:
    """Make a map of one image for one class. The model is not changed.

    Parameters
    ----------
    predictor
        A loaded model.
    image
        uint8 (H, W, 3).
    target_index
        Class to explain, in the order of the model's outputs: the predicted or any other.
    method, settings
        See `cnsapp.domain.maps.METHODS`.

    Raises
    ------
    CnsError
        No such class, method or setting, or the method is not valid for this network (says why).

    References
    ----------
    The papers of `METHODS`; Kokhlikyan et al., Captum, arXiv 2009.07896, 2020.
    """
    chosen = clean_settings(method, settings)
    check_valid(predictor, method)
    x = _input(predictor, image, target_index)
    with torch.inference_mode():
        probability = float(predictor.net(x).softmax(1)[0, target_index])
    found = attribute(predictor, x, target_index, method, chosen)
    sign = sign_of(method, chosen)
    shown, scale = shown_map(predictor, found.raw, sign, x.shape[-1])
    cells = adaptive_avg_pool2d(shown[None, None], GRID)[0, 0]
    sized = interpolate(
        shown[None, None], size=image.shape[:2], mode="bilinear", align_corners=False
    )[0, 0]
    top = float(sized.abs().max())
    return Saliency(
        map=(sized / top if top > 0 else sized).numpy(),
        raw=found.raw.numpy(),
        method=method,
        layer=found.layer,
        target_index=target_index,
        probability=probability,
        has_positive=bool((found.raw > 0).any()),
        delta=found.delta,
        change=found.change,
        sign=sign,
        scale=scale,
        cells=cells.numpy(),
        ranking=_ranking(predictor, found, cells, x.shape[-1]),
        settings=chosen,
    )


def grad_cam(predictor: Predictor, image: Pixels, target_index: int) -> Saliency:
    """Explain one class by Grad-CAM at the backbone's saliency stage.

    Parameters, errors as for `explain`.

    References
    ----------
    Selvaraju et al., Grad-CAM: visual explanations from deep networks, ICCV 2017; Adebayo et al.,
    Sanity checks for saliency maps, NeurIPS 2018.
    """
    return explain(predictor, image, target_index, "gradcam")


def saliency_layer(predictor: Predictor) -> str:
    """Return the stage Grad-CAM shows: the backbone's choice, or the last that the head reads."""
    return grad_cam_layer(predictor)


def integrated_gradients(
    predictor: Predictor, image: Pixels, target_index: int, n_steps: int = 20
) -> Saliency:
    """Explain one class by integrated gradients from a mid-gray image.

    The signed attributions are summed over the colours; the map shows the positive ones, smoothed
    over about 1 / 32 of the image, since single pixels mean nothing to a reader.

    Parameters
    ----------
    predictor, image, target_index
        As for `explain`.
    n_steps
        Points on the path, 2 or more; more make `delta` smaller.

    References
    ----------
    Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017.
    """
    return explain(predictor, image, target_index, "integrated_gradients", {"steps": n_steps})


def shown_map(
    predictor: Predictor, raw: torch.Tensor, sign: str, side: int
) -> tuple[torch.Tensor, float]:
    """Return what a reader is shown of raw values, (side, side), and the value that 1 stands for.

    Parameters
    ----------
    raw
        (h, w): cells of a stage, or pixels of the input.
    sign
        `positive` cuts values below zero off; `signed` and `magnitude` keep what there is.
    side
        Of the network's input, in pixels.
    """
    values = raw if sign in (SIGNED, MAGNITUDE) else raw.clamp_min(0)
    sized = _at_input_size(predictor, values, side)
    top = float(sized.abs().max())
    return (sized / top if top > 0 else sized), top


def _at_input_size(predictor: Predictor, values: torch.Tensor, side: int) -> torch.Tensor:
    """Return (side, side): cells enlarged, pixels averaged to a size that an eye can read."""
    if values.shape[0] != side:
        return to_input_size(values, predictor.net, side)
    if side <= 2 * READABLE:
        return values
    coarse = adaptive_avg_pool2d(values[None, None], READABLE)
    return interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)[0, 0]


def _ranking(
    predictor: Predictor, found: Attribution, cells: torch.Tensor, side: int
) -> NDArray[np.int64]:
    """Rank the cells by the map; where it says nothing, by the raw values that were cut off."""
    raw = adaptive_avg_pool2d(_at_input_size(predictor, found.raw, side)[None, None], GRID)
    order: NDArray[np.int64] = np.lexsort((-raw.flatten().numpy(), -cells.flatten().numpy()))
    return order


def _input(predictor: Predictor, image: Pixels, target_index: int) -> torch.Tensor:
    n_classes = len(predictor.bundle.class_ids)
    if not 0 <= target_index < n_classes:
        raise CnsError(f"The model has no class number {target_index}.", f"It has {n_classes}.")
    return predictor.input_tensor([make_view(image, predictor.preprocessing.size)])


__all__ = [
    "GRID", "INPUT", "Map", "Saliency", "explain", "grad_cam", "integrated_gradients",
    "saliency_layer", "shown_map",
]  # fmt: skip
