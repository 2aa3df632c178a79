"""Any network of the timm collection as a chain of stages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from cnsapp.domain.backbones import BackboneFacts
from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.ml.backbone_chains import lite0_chain
from cnsapp.ml.preprocess import Preprocessing
from cnsapp.ml.stage_net import Stages
from cnsapp.ml.tokens import EnterTimm, LaterMap, TokenBlocks, WholeFirst

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # timm must never reach for the network

WANTED_CELLS = 14  # a side of the map that Grad-CAM shows
_ANY_SIZE: tuple[dict[str, Any], ...] = (  # how timm's networks are told to read other sizes
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"strict_img_size": False},
    {},
)
SIDES = (32, 48, 64, 80, 96, 128, 160, 192)  # tried for the smallest that a network can read
SMALLEST_READ = 10  # maps of fewer cells a side are not read by a head: they are too coarse


@dataclass(frozen=True)
class TimmCut:
    """A timm network cut into stages, with what the collection knows of it."""

    stages: Stages
    preprocessing: Preprocessing
    head_stages: tuple[str, ...]
    saliency_stage: str
    min_size: int
    only_size: int
    attention: bool


def build_timm(name: str) -> Any:
    """Return a timm network without weights and without classifier.

    Raises
    ------
    InvalidInputError
        timm has no such network (names near it are given), or it is none for colour images.
    """
    import timm

    if not timm.is_model(name.split(".")[0]):
        near = get_close_matches(name, timm.list_models(), 3)
        raise InvalidInputError(
            f"timm has no network “{name}”.",
            f"Names like it are {', '.join(near)}." if near else "",
            "Name the file after the network, or write a .json beside it that says which it is.",
        )
    for options in _ANY_SIZE:
        try:
            with torch.random.fork_rng(devices=[]):  # nobody else's chance depends on it
                net: Any = timm.create_model(name, pretrained=False, num_classes=0, **options)
            return net.eval().requires_grad_(False)
        except TypeError:  # a network that knows no such option
            continue
        except Exception as error:
            raise InvalidInputError(
                f"The timm network “{name}” can not be built ({type(error).__name__}: {error}).",
                "",
                "Choose another backbone.",
            ) from error
    raise InvalidInputError(
        f"The timm network “{name}” can not be built.", "", "Choose another backbone."
    )


def head_keys(net: Any) -> tuple[str, ...]:
    """Return how the names of a timm network's classifier begin."""
    named = net.pretrained_cfg.get("classifier") or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    return tuple(f"{name}." for name in (*names, "head", "head_dist", "fc_norm"))


def cut_timm(net: Any, facts: BackboneFacts) -> TimmCut:
    """Cut a timm network, with its weights loaded, into stages that give the maps it gives.

    Every way of cutting is compared with the network itself on one image; where none agrees, the
    network runs as a whole in the first stage.

    Raises
    ------
    CnsError
        The network has no maps to give.
    """
    cfg = net.pretrained_cfg
    size = facts.input_size or int(cfg["input_size"][-1])
    preprocessing = Preprocessing(size, tuple(cfg["mean"]), tuple(cfg["std"]))
    probe = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        stages, maps = _cut(net, probe)
    names, sides = [name for name, _ in stages], [min(m.shape[2:]) for m in maps]
    fixed = bool(cfg.get("fixed_input_size")) and not getattr(net, "dynamic_img_size", False)
    flat = len(set(sides)) == 1
    read = [n for n, side in zip(names, sides, strict=True) if side >= SMALLEST_READ] or names
    return TimmCut(
        stages,
        preprocessing,
        tuple(read[-4:]),
        names[-2] if flat and len(names) > 1 else _nearest(names, sides),
        size if fixed else _smallest(stages, size),
        size if fixed else 0,
        flat or any("Attention" in type(m).__name__ for m in net.modules()),
    )


def _smallest(stages: Stages, size: int) -> int:
    """Return the smallest of a few sides that the network can read."""
    for side in SIDES:
        if side < size:
            try:
                with torch.inference_mode():
                    _run(stages, torch.zeros(1, 3, side, side))
                return side
            except (AssertionError, RuntimeError, ValueError):
                continue
    return size


def _nearest(names: list[str], sides: list[int]) -> str:
    best = min(range(len(names)), key=lambda i: (abs(sides[i] - WANTED_CELLS), -i))
    return names[best]


def _cut(net: Any, probe: torch.Tensor) -> tuple[Stages, list[torch.Tensor]]:
    for way in (_as_tokens, _as_blocks, _as_listed):
        try:
            stages, expected = way(net, probe)
            maps = _run(stages, probe)
        except (AttributeError, AssertionError, KeyError, TypeError, RuntimeError, ValueError):
            continue  # not a network of this kind
        same = len(expected) <= len(maps) and all(
            a.shape == b.shape
            and torch.allclose(a, b, rtol=1e-3, atol=1e-4 * max(float(b.abs().max()), 1e-3))
            for a, b in zip(maps[-len(expected) :], expected, strict=True)
        )
        if same and all(m.ndim == 4 for m in maps):
            return stages, maps
    try:
        stages = _as_whole(net)
        maps = _run(stages, probe)
    except Exception as error:
        raise CnsError(
            f"The timm network {type(net).__name__} gives no maps of its stages.",
            f"({type(error).__name__}: {error})",
            "Choose another backbone.",
        ) from error
    return stages, maps


def _run(stages: Stages, x: torch.Tensor) -> list[torch.Tensor]:
    maps = []
    for _, modules in stages:
        x = nn.Sequential(*modules).eval()(x)
        maps.append(x)
    return maps


def _as_tokens(net: Any, probe: torch.Tensor) -> tuple[Stages, list[torch.Tensor]]:
    """Cut a plain vision transformer into four groups of blocks."""
    blocks, n = list(net.blocks), int(net.num_prefix_tokens)
    bounds = [round(i * len(blocks) / 4) for i in range(5)]
    groups = [blocks[a:b] for a, b in pairwise(bounds) if b > a]
    stages: Stages = [(f"blocks{i}", [TokenBlocks(g, n)]) for i, g in enumerate(groups[:-1])]
    stages.append(("last", [TokenBlocks(groups[-1], n, net.norm)]))
    stages[0] = (stages[0][0], [EnterTimm(net), *stages[0][1]])
    tokens = net.forward_features(probe)
    h, w = net.patch_embed.dynamic_feat_size(tuple(probe.shape[2:]))
    return stages, [tokens[:, n:].transpose(1, 2).reshape(len(tokens), -1, h, w)]


def _as_blocks(net: Any, probe: torch.Tensor) -> tuple[Stages, list[torch.Tensor]]:
    """Cut an EfficientNet or a MobileNet."""
    stages = lite0_chain(net)
    expected = net.forward_features(probe)
    if _run(stages[:-1], probe)[-1].shape == expected.shape:  # its last layer stands behind pooling
        stages = stages[:-1]
    return stages, [expected]


def _as_listed(net: Any, probe: torch.Tensor) -> tuple[Stages, list[torch.Tensor]]:
    """Cut a network whose layers run in the order in which they are named."""
    from timm.models._features import FeatureListNet

    n = len(net.feature_info)
    expected = net.forward_intermediates(probe, intermediates_only=True)
    listed = None
    for flat in (False, True):
        try:
            listed = FeatureListNet(net, out_indices=tuple(range(n)), flatten_sequential=flat)
            break
        except AssertionError:
            continue
    if listed is None:
        raise ValueError("layers are not in order")
    stages: Stages = []
    modules: list[nn.Module] = []
    for name, module in listed.items():
        modules.append(module)
        if name in listed.return_layers:
            stages.append((f"stage{len(stages)}", modules))
            modules = []
    return stages, expected


def _as_whole(net: Any) -> Stages:
    n = len(net.feature_info)
    indices = sorted({round((i + 1) * n / min(n, 4)) - 1 for i in range(min(n, 4))})
    if hasattr(net, "prune_intermediate_layers"):  # without what stands behind the last map
        indices = net.prune_intermediate_layers(indices, prune_norm=True, prune_head=True)
    later: Stages = [(f"stage{i}", [LaterMap(i)]) for i in range(1, len(indices))]
    return [("stage0", [WholeFirst(net, indices)]), *later]
