"""The quick model as one network, from input to calibrated logits, for prediction and maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from cnsapp.ml.backbones import LoadedBackbone
from cnsapp.ml.features import pool_stages
from cnsapp.ml.heads import LinearHead


class QuickNet(nn.Module):
    """Backbone stages, pooling, standardisation, linear head and temperature in one module.

    It gives the same logits as the head on cached features. Stages after the last one that the head
    reads are not computed.

    Parameters
    ----------
    backbone
        A frozen backbone.
    stages
        Names of the stages that the head reads.
    head
        Of the columns of these stages, in network order.
    temperature
        Positive number that the logits are divided by.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: LoadedBackbone,
        stages: Sequence[str],
        head: LinearHead,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        names = backbone.net.names
        last = max(names.index(stage) for stage in stages)
        self.names = names[: last + 1]
        self.read = [name in stages for name in self.names]
        self.body = nn.ModuleList(backbone.net.stages[i] for i in range(last + 1))
        self.register_buffer("mean", torch.from_numpy(head.mean))
        self.register_buffer("std", torch.from_numpy(head.std))
        self.linear = nn.Linear(*reversed(head.weight.shape))
        self.linear.load_state_dict(
            {"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}
        )
        self.temperature = temperature
        self.eval().requires_grad_(False)

    def stage(self, name: str) -> nn.Module:
        """Return the module whose output is the stage's map."""
        return self.body[self.names.index(name)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return calibrated logits (B, K) of normalised input (B, 3, S, S)."""
        maps = []
        for read, stage in zip(self.read, self.body, strict=True):
            x = stage(x)
            if read:
                maps.append(x)
        z = (pool_stages(maps) - self.mean) / self.std  # (B, D)
        with torch.autocast(z.device.type, enabled=False):
            logits: torch.Tensor = self.linear(z) / self.temperature
        return logits

    def probabilities(self, x: torch.Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Return class probabilities (B, K) of normalised input, as a float32 array."""
        out: np.ndarray[tuple[int, int], np.dtype[np.float32]] = self(x).softmax(1).cpu().numpy()
        return out
