"""A network as a chain of named stages whose maps are kept; folding of its normalisation."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cnsapp.domain.backbones import too_small
from cnsapp.errors import InvalidInputError
from cnsapp.ml.convolution import ConvAct
from cnsapp.ml.tokens import WholeFirst

Stages = list[tuple[str, list[nn.Module]]]


class StageNet(nn.Module):
    """A network as a chain of named stages. `forward` returns every stage's map (B, C, h, w).

    Parameters
    ----------
    stages
        Names and modules, in order; each stage takes the map of the one before.
    title
        What errors call the network.
    min_size
        Smallest side of an input in pixels; smaller ones are refused in words.
    only_size
        The one side it can read, or 0 when any from `min_size` up will do.
    """

    def __init__(
        self, stages: Stages, title: str = "this network", min_size: int = 1, only_size: int = 0
    ) -> None:
        super().__init__()
        self.names = [name for name, _ in stages]
        self.stages = nn.ModuleList(nn.Sequential(*modules) for _, modules in stages)
        self.title, self.min_size, self.only_size = title, min_size, only_size

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Run input (B, 3, S, S) through all stages.

        Raises
        ------
        InvalidInputError
            The input is smaller than the network can read, or not of its one size.
        """
        self.check_size(min(x.shape[2:]))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def check_size(self, size: int) -> None:
        """Raise InvalidInputError when the network can not read inputs of this side in pixels."""
        if size < self.min_size:
            raise too_small(self.title, size, self.min_size)
        if self.only_size and size != self.only_size:
            raise InvalidInputError(
                f"{self.title} can not read images of {size} px.",
                f"It is built for exactly {self.only_size} px.",
                f"Leave the image size at {self.only_size}, or choose another backbone.",
            )

    @property
    def in_one_piece(self) -> bool:
        """Whether all layers are in the first stage, so that none can be frozen by itself."""
        return any(isinstance(module, WholeFirst) for module in self.modules())

    def until(self, stages: Sequence[str]) -> StageNet:
        """Return the chain up to the last of these stages; the layers are shared with this one."""
        last = max(self.names.index(name) for name in stages)
        modules = list(self.stages)[: last + 1]
        kept = StageNet(
            [(n, [m]) for n, m in zip(self.names, modules, strict=False)],
            self.title, self.min_size, self.only_size,
        )  # fmt: skip
        return kept.train(self.training)


def fused(net: StageNet, probe_size: int) -> StageNet:
    """Fold batch normalisation into convolutions, and keep the result only if outputs agree.

    Parameters
    ----------
    net
        In eval mode; it stays as it is.
    probe_size
        Side in pixels of the input on which both are compared.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        return net
    folded = copy.deepcopy(net)
    _fuse_children(folded)
    probe = torch.rand(1, 3, probe_size, probe_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pairs = list(zip(net(probe), folded(probe), strict=True))
    same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max())) for a, b in pairs)
    return folded if same else net


def _fuse_children(module: nn.Module) -> None:
    """Fold what stands side by side in every module."""
    children = [*module.named_children(), ("", nn.Identity())]
    for (name, conv), (next_name, norm), (behind, after) in zip(
        children, children[1:], children[2:], strict=False
    ):
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        act = getattr(norm, "act", None)  # timm's norm carries its activation
        if act is None and type(module) is nn.Sequential and isinstance(after, nn.ReLU):
            act = nn.ReLU()
            setattr(module, behind, nn.Identity())
        setattr(module, name, ConvAct(fuse_conv_bn_eval(conv, norm), act or nn.Identity()))
        setattr(module, next_name, nn.Identity())
    for _, child in module.named_children():
        _fuse_children(child)
