"""Models on small networks with random weights, ready to be explained, without files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from cnsapp.ml.backbones import BACKBONES, Backbone, LoadedBackbone
from cnsapp.ml.bundle import Bundle
from cnsapp.ml.device import choose_device
from cnsapp.ml.features import pool_stages
from cnsapp.ml.head_kinds import Head
from cnsapp.ml.heads import LinearHead
from cnsapp.ml.network import QuickNet
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import Preprocessing
from cnsapp.ml.stage_net import StageNet, fused

CPU = choose_device("cpu")
CLASSES = 3


def random_stages(name: str) -> StageNet:
    """Return a network of the registry with random weights, as prediction runs it."""
    row = BACKBONES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "vgg16":  # its classifier alone would be half a gigabyte
            with torch.device("meta"):
                net = StageNet(row.chain(row.builder())).until(row.head_stages)
            net = net.to_empty(device="cpu")
            for module in net.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()
        else:
            net = StageNet(row.chain(row.builder())).until(row.head_stages)
    net = net.eval().requires_grad_(False)
    return fused(net, 2 * row.min_size)


def linear_head(n: int, seed: int = 0) -> LinearHead:
    rng = np.random.default_rng(seed)
    return LinearHead(
        np.zeros(n, np.float32), np.ones(n, np.float32),
        rng.normal(0, 1, (CLASSES, n)).astype(np.float32), np.zeros(CLASSES, np.float32),
    )  # fmt: skip


def make_predictor(
    net: StageNet, row: Backbone, size: int, head: Head | None = None,
    stages: tuple[str, ...] | None = None,
) -> Predictor:  # fmt: skip
    """Return a model on a network; a random linear head unless one is given."""
    read = stages or row.head_stages
    if head is None:
        with torch.inference_mode():
            maps = net.until(read)(torch.zeros(1, 3, size, size))
            kept = [m for n, m in zip(net.until(read).names, maps, strict=True) if n in read]
            head = linear_head(pool_stages(kept).shape[1])
    prepare = replace(row.preprocessing, size=size)
    made: Any = Predictor.__new__(Predictor)
    made.bundle = Bundle(
        head=head, stages=read, class_ids=[7, 8, 9], class_names=["a", "b", "c"],
        features={"backbone": row.id, "preprocessing": prepare.as_json()}, spec_id="s",
        strength=1.0, temperature=1.0,
    )  # fmt: skip
    made.backbone, made.device, made.preprocessing = LoadedBackbone(row, net, ""), CPU, prepare
    made.net = QuickNet(net, read, head)
    found: Predictor = made
    return found


def linear_predictor(size: int = 56) -> tuple[Predictor, np.ndarray[Any, Any]]:
    """Return a model whose logits are linear in the pixels, and its weights (K, 3).

    One 1 x 1 convolution that passes colours on; the head reads their means alone.
    """
    conv = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
    net = StageNet([("only", [conv])]).eval().requires_grad_(False)
    weight = np.random.default_rng(5).normal(0, 1, (CLASSES, 6)).astype(np.float32)
    weight[:, 3:] = 0  # the standard deviations do not count
    head = LinearHead(
        np.zeros(6, np.float32), np.ones(6, np.float32), weight, np.zeros(CLASSES, np.float32)
    )
    row = replace(
        BACKBONES["small_cnn"], head_stages=("only",), saliency_stage="only",
        preprocessing=Preprocessing(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )  # fmt: skip
    return make_predictor(net, row, size, head), weight[:, :3]


def noise(height: int, width: int | None = None, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return a random picture, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width or height, 3), dtype=np.uint8)
