"""Which pixels spoke for a class: Grad-CAM and integrated gradients, aligned with the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from cnsapp.errors import CnsError
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import Pixels, make_view

Map = NDArray[np.float32]


@dataclass(frozen=True)
class Saliency:
    """A saliency map and what is known about it.

    Attributes
    ----------
    map
        (H, W) float32 in 0 to 1 at the image's own size: evidence for the class, 1 = strongest.
        All zeros when no place speaks for the class.
    raw
        (h, w) float32, signed, before scaling: at cell size for Grad-CAM, at network size for
        integrated gradients. Negative cells speak against the class.
    method
        `gradcam` or `integrated_gradients`.
    layer
        The stage shown, or `input`.
    target_index
        The class explained, in the order of the model's outputs.
    probability
        The model's probability for that class on this image (clean view).
    has_positive
        Whether any place speaks for the class.
    delta
        Integrated gradients only: how far the attributions miss the change in the logit (0 is
        exact); None for Grad-CAM.
    """

    map: Map
    raw: Map
    method: str
    layer: str
    target_index: int
    probability: float
    has_positive: bool
    delta: float | None = None


def grad_cam(predictor: Predictor, image: Pixels, target_index: int) -> Saliency:
    """Explain one class by Grad-CAM at the backbone's saliency stage.

    Parameters
    ----------
    predictor
        A loaded model.
    image
        uint8 (H, W, 3).
    target_index
        Class to explain, in the order of the model's outputs: the predicted or any other.

    Raises
    ------
    CnsError
        No such class.

    References
    ----------
    Selvaraju et al., Grad-CAM: visual explanations from deep networks, ICCV 2017; Adebayo et al.,
    Sanity checks for saliency maps, NeurIPS 2018.
    """
    x = _input(predictor, image, target_index)
    layer = saliency_layer(predictor)
    cam = LayerGradCam(predictor.net, predictor.net.stage(layer))
    with torch.enable_grad():
        x.requires_grad_()
        raw = cam.attribute(x, target=target_index)[0, 0].detach().float().cpu()  # (h, w)
    return _result(predictor, image, raw, "gradcam", layer, target_index)


def saliency_layer(predictor: Predictor) -> str:
    """Return the stage Grad-CAM shows: the backbone's choice, or the last that the head reads."""
    wanted, names = predictor.backbone.row.saliency_stage, predictor.net.names
    return wanted if wanted in names else names[-1]


def integrated_gradients(
    predictor: Predictor, image: Pixels, target_index: int, n_steps: int = 20
) -> Saliency:
    """Explain one class by integrated gradients from a mid-gray image.

    The signed attributions are summed over the colours; the map shows the positive ones, smoothed
    over about 1 / 32 of the image, since single pixels mean nothing to a reader.

    Parameters
    ----------
    predictor, image, target_index
        As for `grad_cam`.
    n_steps
        Points on the path, 2 or more; more make `delta` smaller.

    References
    ----------
    Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017.
    """
    x = _input(predictor, image, target_index)
    method = IntegratedGradients(predictor.net)
    attribution, delta = method.attribute(
        x, baselines=0.0, target=target_index, n_steps=n_steps,
        internal_batch_size=predictor.device.batch_size, return_convergence_delta=True,
    )  # fmt: skip
    raw = attribution[0].sum(0).detach().float().cpu()  # (S, S)
    return _result(
        predictor, image, raw, "integrated_gradients", "input", target_index, float(delta[0])
    )


def _input(predictor: Predictor, image: Pixels, target_index: int) -> torch.Tensor:
    n_classes = len(predictor.bundle.class_ids)
    if not 0 <= target_index < n_classes:
        raise CnsError(f"The model has no class number {target_index}.", f"It has {n_classes}.")
    return predictor.input_tensor([make_view(image, predictor.preprocessing.size)])


def _result(
    predictor: Predictor,
    image: Pixels,
    raw: torch.Tensor,
    method: str,
    layer: str,
    target_index: int,
    delta: float | None = None,
) -> Saliency:
    with torch.inference_mode():
        x = predictor.input_tensor([make_view(image, predictor.preprocessing.size)])
        probability = float(predictor.net(x).softmax(1)[0, target_index])
    return Saliency(
        map=_to_image_size(raw, image.shape[0], image.shape[1]),
        raw=raw.numpy(),
        method=method,
        layer=layer,
        target_index=target_index,
        probability=probability,
        has_positive=bool((raw > 0).any()),
        delta=delta,
    )


def _to_image_size(raw: torch.Tensor, height: int, width: int) -> Map:
    """Scale the positive part to (height, width) and to 0 to 1."""
    positive = raw.clamp_min(0)[None, None]
    if raw.shape[0] > 64:  # pixels: smooth to a size that an eye can read
        cells = raw.shape[0] // 32
        positive = torch.nn.functional.avg_pool2d(positive, cells)
    sized = interpolate(positive, size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    top = float(sized.max())
    return (sized / top if top > 0 else sized).numpy()
