"""A model as one network, from input to calibrated logits, for prediction, maps and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnsapp.domain.backbones import TIMM
from cnsapp.ml.backbone_timm import build_timm, cut_timm
from cnsapp.ml.backbones import Backbone, LoadedBackbone, get_backbone
from cnsapp.ml.features import pool_stages
from cnsapp.ml.head_kinds import Head, head_module
from cnsapp.ml.stage_net import StageNet, fused
from cnsapp.weights_files import get_facts

Floats = NDArray[np.float32]
COUNTED = "num_batches_tracked"  # of batch normalisation: only training looks at it


class QuickNet(nn.Module):
    """Backbone stages, pooling, standardisation, head and temperature in one module.

    It gives the same logits as the head on cached features. Stages after the last one that the head
    reads are not computed.

    Parameters
    ----------
    backbone
        A backbone, or its chain of stages alone; the layers are shared, not copied.
    stages
        Names of the stages that the head reads.
    head
        Of the columns of these stages, in network order.
    temperature
        Positive number that the logits are divided by.

    Attributes
    ----------
    names
        The stages that are computed, in order.
    body, head
        Modules: the stages, and what reads their pooled maps.
    """

    def __init__(
        self,
        backbone: LoadedBackbone | StageNet,
        stages: Sequence[str],
        head: Head,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        net = backbone if isinstance(backbone, StageNet) else backbone.net
        last = max(net.names.index(stage) for stage in stages)
        self.names = net.names[: last + 1]
        self.read = [name in stages for name in self.names]
        self.body = nn.ModuleList(_bare(net.stages[i]) for i in range(last + 1))
        self.head = head_module(head)
        self.temperature = temperature
        self.eval().requires_grad_(False)

    def stage(self, name: str) -> nn.Module:
        """Return the module whose output is the stage's map."""
        return self.body[self.names.index(name)]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the head reads (B, D), float32, of normalised input (B, 3, S, S)."""
        maps = []
        for read, stage in zip(self.read, self.body, strict=True):
            x = stage(x)
            if read:
                maps.append(x)
        return pool_stages(maps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return calibrated logits (B, K) of normalised input (B, 3, S, S)."""
        pooled = self.features(x)
        with torch.autocast(pooled.device.type, enabled=False):
            logits: torch.Tensor = self.head(pooled) / self.temperature
        return logits

    def probabilities(self, x: torch.Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Return class probabilities (B, K) of normalised input, as a float32 array."""
        out: np.ndarray[tuple[int, int], np.dtype[np.float32]] = self(x).softmax(1).cpu().numpy()
        return out


def body_arrays(net: StageNet, stages: Sequence[str]) -> dict[str, Floats]:
    """Return the weights up to the last of `stages` for a model file, named `stage.parameter`.

    16-bit numbers become float32. Take them of a network whose batch normalisation is not folded.
    """
    found = {}
    for name, stage in _needed(net, stages):
        for key, value in stage.state_dict().items():
            if not key.endswith(COUNTED):
                found[f"{name}.{key}"] = value.detach().float().cpu().contiguous().numpy().copy()
    return found


def tuned_backbone(
    architecture: str, stages: Sequence[str], arrays: Mapping[str, Floats], weights_hash: str = ""
) -> LoadedBackbone:
    """Build the stages up to the last that a head reads, with weights from a model file.

    Nothing else is needed: no weights file of the backbone. Batch normalisation is folded.

    Parameters
    ----------
    architecture
        A key of `BACKBONES` or `timm:NAME`.
    stages
        That the head reads.
    arrays
        From `body_arrays`.
    weights_hash
        Of the weights that fine-tuning started from.

    Raises
    ------
    RuntimeError
        The arrays are those of another network.
    """
    row, net = _without_weights(architecture)
    unused = set(arrays)
    for name, stage in _needed(net, stages):
        mine = {key for key in arrays if key.startswith(f"{name}.")}
        unused -= mine
        state = {k.removeprefix(f"{name}."): torch.from_numpy(np.array(arrays[k])) for k in mine}
        fit = stage.load_state_dict(state, strict=False)
        lacking = [key for key in fit.missing_keys if not key.endswith(COUNTED)]
        for key in [*lacking, *fit.unexpected_keys]:
            raise RuntimeError(f"the stage {name} does not fit at {key}")
    if unused:
        raise RuntimeError(f"there is no place for {min(unused)}")
    net = net.until(stages).eval().requires_grad_(False)
    net = fused(net, row.only_size or 2 * row.min_size).to(memory_format=torch.channels_last)
    return LoadedBackbone(row, net, weights_hash)


def _without_weights(architecture: str) -> tuple[Backbone, StageNet]:
    """Return a network of the registry or of timm, its weights still to come."""
    if not architecture.startswith(TIMM):
        row = get_backbone(architecture)
        return row, StageNet(row.chain(row.builder()), row.title, row.min_size, row.only_size)
    name, facts = architecture.removeprefix(TIMM), get_facts(architecture)
    whole = build_timm(name)
    found = cut_timm(whole, facts)
    row = Backbone(
        facts, lambda: build_timm(name), lambda _: found.stages, found.preprocessing,
        found.head_stages, found.saliency_stage, only_size=found.only_size,
    )  # fmt: skip
    return row, StageNet(found.stages, row.title, row.min_size, row.only_size)


def _needed(net: StageNet, stages: Sequence[str]) -> list[tuple[str, nn.Module]]:
    last = max(net.names.index(stage) for stage in stages)
    return [(net.names[i], _bare(net.stages[i])) for i in range(last + 1)]


def _bare(stage: nn.Module) -> nn.Module:
    """Take the wrappers of one off a stage, so that names of weights do not depend on its cut."""
    while isinstance(stage, nn.Sequential) and len(stage) == 1:
        stage = stage[0]
    return stage
