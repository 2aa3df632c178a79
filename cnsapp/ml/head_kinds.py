"""The three kinds of head, each as plain arrays and as a torch module with the same answers.

All read standardised feature rows. `linear` is one matrix; `mlp` has one hidden layer of ReLUs;
`kernel` weighs how near a row lies to some of the training rows. As modules they pass gradients
on, so that saliency maps and exports work for every kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnsapp.ml.heads import LinearHead

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class MlpHead:
    """One hidden layer: logits = relu(z @ hidden_weight.T + hidden_bias) @ weight.T + bias.

    Attributes
    ----------
    mean, std
        (D,) float32, of the training rows: z = (x - mean) / std.
    hidden_weight, hidden_bias
        (H, D) and (H,) float32.
    weight, bias
        (K, H) and (K,) float32.
    """

    mean: Floats
    std: Floats
    hidden_weight: Floats
    hidden_bias: Floats
    weight: Floats
    bias: Floats

    def logits(self, x: Floats) -> Floats:
        """Return (N, K) logits of feature rows (N, D)."""
        z = ((x - self.mean) / self.std).astype(np.float32)
        hidden = np.maximum(z @ self.hidden_weight.T + self.hidden_bias, 0)
        return np.asarray(hidden @ self.weight.T + self.bias, np.float32)


@dataclass(frozen=True)
class KernelHead:
    """Radial basis functions: logits = exp(-gamma |z - landmark|^2) @ weight.T + bias.

    Attributes
    ----------
    mean, std
        (D,) float32, of the training rows: z = (x - mean) / std.
    landmarks
        (M, D) float32, standardised training rows.
    gamma
        (1,) float32, positive.
    weight, bias
        (K, M) and (K,) float32.
    """

    mean: Floats
    std: Floats
    landmarks: Floats
    gamma: Floats
    weight: Floats
    bias: Floats

    def logits(self, x: Floats) -> Floats:
        """Return (N, K) logits of feature rows (N, D)."""
        z = ((x - self.mean) / self.std).astype(np.float32)
        near = rbf(z, self.landmarks, float(self.gamma[0]))
        return near @ self.weight.T + self.bias


Head = LinearHead | MlpHead | KernelHead
KINDS: dict[str, type[LinearHead] | type[MlpHead] | type[KernelHead]] = {
    "linear": LinearHead,
    "kernel": KernelHead,
    "mlp": MlpHead,
}
"""By name, the simplest first."""


def rbf(z: Floats, landmarks: Floats, gamma: float) -> Floats:
    """Return exp(-gamma |z - landmark|^2) of rows (N, D) and landmarks (M, D), (N, M) float32."""
    squared = (z**2).sum(1)[:, None] + (landmarks**2).sum(1) - 2 * z @ landmarks.T
    return np.asarray(np.exp(-gamma * np.maximum(squared, 0)), np.float32)


def kind_of(head: Head) -> str:
    """Return `linear`, `mlp` or `kernel`."""
    return next(name for name, kind in KINDS.items() if isinstance(head, kind))


def head_from(kind: str, arrays: Mapping[str, Floats]) -> Head:
    """Build a head of its arrays by name; KeyError when one lacks or the kind is unknown."""
    made = KINDS[kind]
    return made(**{name: np.asarray(arrays[name], np.float32) for name in made.__annotations__})


def head_module(head: Head) -> nn.Module:
    """Return the head as a torch module: feature rows (B, D) to logits (B, K)."""
    if isinstance(head, LinearHead):
        return LinearModule(head)
    return MlpModule(head) if isinstance(head, MlpHead) else KernelModule(head)


class _Standardised(nn.Module):
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Floats, std: Floats) -> None:
        super().__init__()
        self.register_buffer("mean", _tensor(mean))
        self.register_buffer("std", _tensor(std))

    def standardise(self, x: torch.Tensor) -> torch.Tensor:
        """Return (x - mean) / std, (B, D)."""
        return (x - self.mean) / self.std


class LinearModule(_Standardised):
    """A linear head as a module; `dropout` hides that share of the features while training."""

    def __init__(self, head: LinearHead, dropout: float = 0.0) -> None:
        super().__init__(head.mean, head.std)
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(head.weight, head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of feature rows (B, D)."""
        logits: torch.Tensor = self.linear(self.dropout(self.standardise(x)))
        return logits

    def as_head(self) -> LinearHead:
        """Return what the module has become, as arrays."""
        mean, std, weight, bias = (
            part.detach().float().cpu().numpy().copy()
            for part in (self.mean, self.std, self.linear.weight, self.linear.bias)
        )
        return LinearHead(mean, std, weight, bias)


class MlpModule(_Standardised):
    """A head with a hidden layer as a module."""

    def __init__(self, head: MlpHead) -> None:
        super().__init__(head.mean, head.std)
        self.hidden = _linear(head.hidden_weight, head.hidden_bias)
        self.linear = _linear(head.weight, head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of feature rows (B, D)."""
        logits: torch.Tensor = self.linear(self.hidden(self.standardise(x)).relu())
        return logits


class KernelModule(_Standardised):
    """A kernel head as a module."""

    landmarks: torch.Tensor
    gamma: torch.Tensor

    def __init__(self, head: KernelHead) -> None:
        super().__init__(head.mean, head.std)
        self.register_buffer("landmarks", _tensor(head.landmarks))
        self.register_buffer("gamma", _tensor(head.gamma))
        self.linear = _linear(head.weight, head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of feature rows (B, D)."""
        z, marks = self.standardise(x), self.landmarks
        squared = z.square().sum(1, keepdim=True) + marks.square().sum(1) - 2 * z @ marks.T
        logits: torch.Tensor = self.linear((-self.gamma * squared.clamp_min(0)).exp())
        return logits


def _tensor(array: Floats) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32))  # its own memory, whoever has the array


def _linear(weight: Floats, bias: Floats) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": _tensor(weight), "bias": _tensor(bias)})
    return layer
