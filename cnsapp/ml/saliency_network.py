"""A look at a loaded network: which non-linearities it has, and so which maps are valid for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from cnsapp.domain.backbones import BackboneFacts
from cnsapp.domain.maps import Offer, check_offered, offered
from cnsapp.ml.head_kinds import kind_of
from cnsapp.ml.network import QuickNet
from cnsapp.ml.predict import Predictor

_RELU = "ReluBackward"
_OTHERS = (
    "Hardtanh", "Silu", "Gelu", "Hardswish", "Hardsigmoid", "Sigmoid", "Tanh", "Softmax", "Elu",
    "LeakyRelu", "Prelu", "Mish", "Softplus", "Threshold", "ScaledDot", "Clamp",
)  # fmt: skip
_looks: WeakKeyDictionary[Predictor, NetworkLook] = WeakKeyDictionary()


@dataclass(frozen=True)
class NetworkLook:
    """What a network is made of.

    Attributes
    ----------
    others
        Non-linearities that are no ReLU, as torch calls their gradients, sorted.
    n_relu_layers, n_relu_calls, n_relu_functions
        `torch.nn.ReLU` layers that are used, how often they are called in one pass, and ReLUs that
        are calls of a function, which no method can find.
    """

    others: tuple[str, ...]
    n_relu_layers: int
    n_relu_calls: int
    n_relu_functions: int

    @property
    def relu_layers_only(self) -> bool:
        """Whether every non-linearity is a ReLU layer, and there is one."""
        return not self.others and not self.n_relu_functions and self.n_relu_layers > 0

    @property
    def relu_layers_shared(self) -> bool:
        """Whether a ReLU layer is called more than once in a pass."""
        return self.n_relu_calls > self.n_relu_layers


def look_at(net: QuickNet, side: int) -> NetworkLook:
    """Find the non-linearities of the stages of a network, by what they do and not by their names.

    One image is sent through the network; every operation that gradients would pass is looked at.

    Parameters
    ----------
    side
        Of the input, in pixels.
    """
    calls: list[nn.Module] = []

    def count(module: nn.Module, *_: Any) -> None:
        calls.append(module)

    relus = [module for module in net.body.modules() if type(module) is nn.ReLU]
    hooks = [module.register_forward_hook(count) for module in relus]
    device = next(iter(net.parameters())).device
    try:
        with torch.enable_grad():
            x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
            x = x.to(device).requires_grad_()
            maps = []
            for stage in net.body:
                x = stage(x)
                maps.append(x)
            names = _gradients(maps)
    finally:
        for hook in hooks:
            hook.remove()
    n_relu = sum(name.startswith(_RELU) for name in names)
    others = {name.partition("Backward")[0] for name in names if name.startswith(_OTHERS)}
    n_functions = max(n_relu - len(calls), 0)
    return NetworkLook(tuple(sorted(others)), len(set(calls)), len(calls), n_functions)


def _gradients(maps: list[torch.Tensor]) -> list[str]:
    """Return the name of every operation that the maps came from."""
    waiting = [m.grad_fn for m in maps if m.grad_fn is not None]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions if before is not None]
    return [node.name() for node in seen]


def look_at_model(predictor: Predictor) -> NetworkLook:
    """Return the look at a model's network; it is taken once a model."""
    if predictor not in _looks:
        row = predictor.backbone.row
        side = row.only_size or max(row.min_size, min(64, predictor.preprocessing.size))
        _looks[predictor] = look_at(predictor.net, side)
    return _looks[predictor]


def offered_for(predictor: Predictor) -> list[Offer]:
    """Say of every kind of map whether it is valid for a loaded model, and if not, why."""
    return offered(*_known(predictor))


def check_valid(predictor: Predictor, method: str) -> None:
    """Raise InvalidInputError, with the reason, when a kind of map is not valid for a model."""
    check_offered(method, *_known(predictor))


def _known(predictor: Predictor) -> tuple[BackboneFacts, str, bool, bool]:
    look, head = look_at_model(predictor), kind_of(predictor.bundle.head)
    return predictor.backbone.row.facts, head, look.relu_layers_only, look.relu_layers_shared
