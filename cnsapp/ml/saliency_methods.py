"""Captum's methods on a model: each returns a map of raw values for one image and one class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import (
    DeepLift,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    LayerGradientXActivation,
    NoiseTunnel,
    Occlusion,
)
from captum.attr import Saliency as Gradient

from cnsapp.errors import InvalidInputError
from cnsapp.ml.predict import Predictor
from cnsapp.ml.saliency_inputs import baseline

INPUT = "input"
ROUNDING = 1e-4  # of normalised input, where one of 256 gray levels is a hundredth or more
MOST_WINDOWS = 5000  # of occlusion: minutes on one core


@dataclass(frozen=True)
class Attribution:
    """What a method gives.

    Attributes
    ----------
    raw
        (h, w) float32 on the CPU: cells of a layer, or pixels of the network's input.
    layer
        The stage that was looked at, or `input`.
    delta
        By how much the values miss the change of the logit that they should add up to; None where
        a method makes no such promise.
    change
        That change: logit of the image minus logit of the baseline.
    """

    raw: torch.Tensor
    layer: str = INPUT
    delta: float | None = None
    change: float | None = None


Settings = Mapping[str, Any]


def grad_cam_layer(predictor: Predictor) -> str:
    """Return the stage Grad-CAM shows: the backbone's choice, or the last that the head reads."""
    wanted, names = predictor.backbone.row.saliency_stage, predictor.net.names
    return wanted if wanted in names else names[-1]


def _grad_cam(predictor: Predictor, x: torch.Tensor, target: int, _: Settings) -> Attribution:
    layer = grad_cam_layer(predictor)
    cam = LayerGradCam(predictor.net, predictor.net.stage(layer))
    return Attribution(_plain(cam.attribute(x, target=target)), layer)


def _hires_cam(predictor: Predictor, x: torch.Tensor, target: int, _: Settings) -> Attribution:
    layer = grad_cam_layer(predictor)
    method = LayerGradientXActivation(predictor.net, predictor.net.stage(layer))
    return Attribution(_plain(method.attribute(x, target=target)), layer)


def _integrated(
    predictor: Predictor, x: torch.Tensor, target: int, settings: Settings
) -> Attribution:
    start = baseline(x, settings["baseline"], predictor.preprocessing).detach()
    found, delta = IntegratedGradients(predictor.net).attribute(
        x, baselines=start, target=target, n_steps=settings["steps"],
        internal_batch_size=predictor.device.batch_size, return_convergence_delta=True,
    )  # fmt: skip
    raw = _plain(found)
    return Attribution(raw, INPUT, float(delta[0]), float(raw.sum()) - float(delta[0]))


def _smooth_grad(
    predictor: Predictor, x: torch.Tensor, target: int, settings: Settings
) -> Attribution:
    low, high = x.detach().aminmax()
    spread = float(high - low) * settings["noise"]
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # the same map every time
        torch.manual_seed(0)
        found = NoiseTunnel(Gradient(predictor.net)).attribute(
            x, nt_type="smoothgrad", nt_samples=settings["samples"], stdevs=max(spread, 1e-6),
            nt_samples_batch_size=predictor.device.batch_size, target=target, abs=False,
        )  # fmt: skip
    return Attribution(_plain(found.abs()))


def _occlusion(
    predictor: Predictor, x: torch.Tensor, target: int, settings: Settings
) -> Attribution:
    side = x.shape[-1]
    window = min(settings["window"] or max(1, side // 7), side)
    stride = min(settings["stride"] or max(1, window // 2), window)
    n = (-(-(side - window) // stride) + 1) ** 2
    if n > MOST_WINDOWS:
        raise InvalidInputError(
            f"Windows of {window} pixels in steps of {stride} are {n:,} on {side} x {side} pixels.",
            f"Each is a look of the network; the most is {MOST_WINDOWS:,}.",
            "Choose a larger step.",
        )
    with torch.inference_mode():
        found = Occlusion(predictor.net).attribute(
            x.detach(), sliding_window_shapes=(x.shape[1], window, window),
            strides=(x.shape[1], stride, stride), target=target,
            baselines=baseline(x.detach(), settings["baseline"], predictor.preprocessing),
            perturbations_per_eval=predictor.device.batch_size,
        )  # fmt: skip
    return Attribution(found[0, 0].float().cpu().clone())  # the same in every channel


def _input_x_gradient(
    predictor: Predictor, x: torch.Tensor, target: int, _: Settings
) -> Attribution:
    return Attribution(_plain(InputXGradient(predictor.net).attribute(x, target=target)))


def _deeplift(
    predictor: Predictor, x: torch.Tensor, target: int, settings: Settings
) -> Attribution:
    start = baseline(x, settings["baseline"], predictor.preprocessing).detach()
    with _quiet():
        found, delta = DeepLift(predictor.net).attribute(
            x, baselines=start, target=target, return_convergence_delta=True
        )
    raw, missed = _plain(found), float(delta.detach()[0])
    return Attribution(raw, INPUT, missed, float(raw.sum()) - missed)


def _guided(predictor: Predictor, x: torch.Tensor, target: int, _: Settings) -> Attribution:
    with _quiet():
        found = GuidedBackprop(predictor.net).attribute(x, target=target)
    return Attribution(_plain(found.abs()))


def _guided_cam(predictor: Predictor, x: torch.Tensor, target: int, _: Settings) -> Attribution:
    layer = grad_cam_layer(predictor)
    with _quiet():
        method = GuidedGradCam(predictor.net, predictor.net.stage(layer))
        found = method.attribute(x, target=target, interpolate_mode="bilinear")
    return Attribution(_plain(found.abs()), layer)


_CALLS: dict[str, Callable[[Predictor, torch.Tensor, int, Settings], Attribution]] = {
    "gradcam": _grad_cam,
    "hirescam": _hires_cam,
    "integrated_gradients": _integrated,
    "smoothgrad": _smooth_grad,
    "occlusion": _occlusion,
    "input_x_gradient": _input_x_gradient,
    "deeplift": _deeplift,
    "guided_backprop": _guided,
    "guided_gradcam": _guided_cam,
}


def attribute(
    predictor: Predictor, x: torch.Tensor, target: int, method: str, settings: Settings
) -> Attribution:
    """Run one method; the network is in eval mode and stays as it is.

    Parameters
    ----------
    x
        Normalised input (1, 3, S, S).
    target
        Class, in the order of the outputs.
    method
        A key of `cnsapp.domain.maps.METHODS` that is valid for the network.
    settings
        All settings of the method (`clean_settings`).
    """
    if "baseline" in settings and _is_baseline(predictor, x, settings["baseline"]):
        promised = None if method == "occlusion" else 0.0
        return Attribution(torch.zeros(x.shape[2:]), INPUT, promised, promised)
    with torch.enable_grad():
        given = x.detach().clone().requires_grad_()
        return _CALLS[method](predictor, given, target, settings)


def _is_baseline(predictor: Predictor, x: torch.Tensor, kind: str) -> bool:
    """Say whether an image differs from its baseline by rounding alone, as empty glass does.

    Scaled to its largest value, rounding would look like evidence.
    """
    start = baseline(x.detach(), kind, predictor.preprocessing)
    return float((x.detach() - start).abs().max()) < ROUNDING


def _plain(found: torch.Tensor) -> torch.Tensor:
    """Return (1, C, h, w) as one map (h, w): summed over colours, float32, on the CPU."""
    return found[0].detach().sum(0).float().cpu()


def _quiet() -> warnings.catch_warnings[None]:
    """Captum announces its hooks every time; it removes them again."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
