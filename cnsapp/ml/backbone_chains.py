"""How the networks of torchvision are cut into stages, and the small one of our own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from cnsapp.ml.stage_net import Stages
from cnsapp.ml.tokens import EnterTokens, TokenBlocks

StateDict = dict[str, torch.Tensor]
Chain = Callable[[Any], Stages]


def cut(*ends: int) -> Chain:
    """Cut `net.features` after the given positions; the last stage is called `last`."""

    def chain(net: Any) -> Stages:
        modules: list[nn.Module] = list(net.features)
        starts = (0, *ends[:-1])
        names = [f"stage{i}" for i in range(len(ends) - 1)] + ["last"]
        return [(n, modules[a:b]) for n, a, b in zip(names, starts, ends, strict=True)]

    return chain


def lite0_chain(net: Any) -> Stages:
    """Cut timm's EfficientNet-Lite0 and its relatives into their blocks."""
    stages: Stages = [(f"block{i}", [block]) for i, block in enumerate(net.blocks)]
    stages[0] = ("block0", [net.conv_stem, net.bn1, *stages[0][1]])
    return [*stages, ("last", [net.conv_head, net.bn2])]


def resnet_chain(net: Any) -> Stages:
    """Cut a ResNet into its layers; the stem belongs to the first."""
    stem = [net.conv1, net.bn1, net.relu, net.maxpool]
    layers = [net.layer1, net.layer2, net.layer3, net.layer4]
    stages: Stages = [(f"layer{i}", [layer]) for i, layer in enumerate(layers, 1)]
    stages[0] = ("layer1", [*stem, net.layer1])
    return stages


def densenet_chain(net: Any) -> Stages:
    """Cut a DenseNet behind its transitions; its last ReLU, a function there, is a layer here."""
    stages = cut(5, 7, 9, 12)(net)
    return [*stages[:-1], ("last", [*stages[-1][1], nn.ReLU()])]


def rename_densenet(state: StateDict) -> StateDict:
    """Give the layers of the published file, which is older, the names they have today."""
    old = {"norm.1": "norm1", "norm.2": "norm2", "conv.1": "conv1", "conv.2": "conv2"}
    renamed = {}
    for key, value in state.items():
        for before, after in old.items():
            key = key.replace(before, after)
        renamed[key] = value
    return renamed


def inception_chain(net: Any) -> Stages:
    """Cut an Inception v3 where its maps shrink; the classifier at its side takes no part.

    Its ReLUs are functions; here they are layers, which saliency methods can find and which run in
    one step with their convolutions.
    """
    _relus_as_layers(net)
    return [
        ("stem0", [net.Conv2d_1a_3x3, net.Conv2d_2a_3x3, net.Conv2d_2b_3x3]),  # 147 x 147
        ("stem1", [net.maxpool1, net.Conv2d_3b_1x1, net.Conv2d_4a_3x3]),  # 71 x 71
        ("mixed5", [net.maxpool2, net.Mixed_5b, net.Mixed_5c, net.Mixed_5d]),  # 35 x 35
        ("mixed6", [net.Mixed_6a, net.Mixed_6b, net.Mixed_6c, net.Mixed_6d, net.Mixed_6e]),  # 17
        ("mixed7", [net.Mixed_7a, net.Mixed_7b, net.Mixed_7c]),  # 8 x 8
    ]


def _relus_as_layers(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if type(child).__name__ == "BasicConv2d":
            parts = OrderedDict(conv=child.conv, bn=child.bn, relu=nn.ReLU(inplace=True))
            setattr(module, name, nn.Sequential(parts))  # type: ignore[arg-type]
        else:
            _relus_as_layers(child)


def vit_chain(net: Any) -> Stages:
    """Cut torchvision's ViT into four groups of three blocks; every map has 14 x 14 places."""
    blocks: list[nn.Module] = list(net.encoder.layers)
    step = len(blocks) // 4
    groups = [blocks[i : i + step] for i in range(0, len(blocks), step)]
    stages: Stages = [
        (f"blocks{i}", [TokenBlocks(group, 1)]) for i, group in enumerate(groups[:-1])
    ]
    stages[0] = ("blocks0", [EnterTokens(net), *stages[0][1]])
    return [*stages, ("last", [TokenBlocks(groups[-1], 1, net.encoder.ln)])]


class _Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(self.order)


def swin_chain(net: Any) -> Stages:
    """Cut a Swin transformer into its four stages; its layers keep the channels last."""
    parts: list[nn.Module] = list(net.features)  # patches, stage, merge, stage, merge, ...
    groups = [parts[0:2], parts[2:4], parts[4:6], [*parts[6:8], net.norm]]
    stages: Stages = []
    for i, group in enumerate(groups):
        inward: list[nn.Module] = [_Permute(0, 2, 3, 1)] if i else []
        name = "last" if i == 3 else f"stage{i}"
        stages.append((name, [*inward, *group, _Permute(0, 3, 1, 2)]))
    return stages


def small_cnn() -> nn.Module:
    """Return four stages of two 3 x 3 convolutions, with first weights that are always the same."""
    widths = (3, 32, 64, 128, 256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Module()
        net.features = nn.Sequential(*(_two_convolutions(a, b) for a, b in pairwise(widths)))
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _two_convolutions(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )  # fmt: skip


def rename_lite0(state: StateDict) -> StateDict:
    """Map the layer names of the Python package to timm's, name by name."""
    depth = (1, 2, 2, 3, 3, 4, 1)
    place = [f"blocks.{s}.{i}" for s, n in enumerate(depth) for i in range(n)]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
             "_fc": "classifier"}  # fmt: skip
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inner = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
             "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            names = first if parts[1] == "0" else inner
            new = [place[int(parts[1])], names.get(parts[2], parts[2]), *parts[3:]]
        else:
            new = [outer.get(parts[0], parts[0]), *parts[1:]]
        renamed[".".join(new)] = value
    return renamed
