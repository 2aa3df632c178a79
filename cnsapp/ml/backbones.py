"""The pretrained networks: one registry row each, read by features, prediction and saliency alike.

A backbone is a chain of stages; each stage's output map is kept, and a head reads the mean and
the standard deviation of some of them. Weights are files: they are never downloaded behind the
user's back. What the app says of a network before it is loaded stands in `cnsapp.domain.backbones`.

Fine-tuning starts here too: `build_backbone(..., fuse=False)` gives the same chain with its batch
normalisation intact, ready to be trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnsapp.domain.backbones import DEFAULT_BACKBONE, FACTS, TIMM, BackboneFacts, split_id
from cnsapp.errors import CnsError
from cnsapp.ml.backbone_chains import (
    Chain,
    cut,
    densenet_chain,
    inception_chain,
    lite0_chain,
    rename_densenet,
    rename_lite0,
    resnet_chain,
    small_cnn,
    swin_chain,
    vit_chain,
)
from cnsapp.ml.backbone_timm import build_timm, cut_timm, head_keys
from cnsapp.ml.preprocess import Preprocessing
from cnsapp.ml.stage_net import StageNet, Stages, fused
from cnsapp.ml.weights import StateDict, digest_of, digest_of_state, load_body, read_state
from cnsapp.weights_files import find_weights, get_facts, read_card, require_weights

__all__ = [
    "BACKBONES", "DEFAULT_BACKBONE", "Backbone", "LoadedBackbone", "StageNet", "Stages",
    "build_backbone", "find_weights", "fused", "get_backbone",
]  # fmt: skip

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Backbone:
    """A registry row: how to build a network and how it is read.

    Attributes
    ----------
    facts
        What is known of it without loading it: id, title, weights file, licence, sizes.
    builder
        Returns the whole network without weights.
    chain
        Cuts that network into named stages, in order.
    preprocessing
        Input size in pixels, mean and standard deviation.
    head_stages
        Stages whose statistics a quick model reads.
    saliency_stage
        Stage whose map Grad-CAM shows: one with about 14 x 14 cells. For Lite0, insertion minus
        deletion on 16 colorectal tiles was 0.17 at block3 and 0.11 at block4 (standard errors 0.04
        and 0.03; random maps 0.02).
    head_keys
        How the names of the classifier begin, which is left out.
    rename
        Gives the layers of the published file the names of the builder.
    only_size
        The one input side it can read; 0 when any from `min_size` up will do.
    """

    facts: BackboneFacts
    builder: Callable[[], nn.Module]
    chain: Chain
    preprocessing: Preprocessing
    head_stages: tuple[str, ...]
    saliency_stage: str
    head_keys: tuple[str, ...] = ("classifier.",)
    rename: Callable[[StateDict], StateDict] = dict
    only_size: int = 0

    @property
    def id(self) -> str:
        """Name in files and commands."""
        return self.facts.id

    @property
    def title(self) -> str:
        """Name on the screen."""
        return self.facts.title

    @property
    def licence(self) -> str:
        """Of the weights."""
        return self.facts.licence

    @property
    def weights_file(self) -> str:
        """File name of the published weights; empty when they come with a package or lack."""
        return self.facts.weights_file

    @property
    def min_size(self) -> int:
        """Smallest input side in pixels."""
        return self.facts.min_size


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone ready to run: frozen, in eval mode.

    Attributes
    ----------
    row, net
        Its row; its stages.
    weights_hash
        First 16 hexadecimal digits of the SHA-256 of the weights file.
    left_out
        Layers in that file that were not used: those of its classifier.
    """

    row: Backbone
    net: StageNet
    weights_hash: str
    left_out: tuple[str, ...] = ()


def _lite0() -> nn.Module:
    import timm

    net: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    return net


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision.models

        net: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        return net

    return build


def _row(
    name: str, chain: Chain, head_stages: str, saliency_stage: str, head: str = "classifier.",
    **others: Any,
) -> Backbone:  # fmt: skip
    """Return a row; what torchvision's networks share is filled in."""
    colours = others.pop("colours", IMAGENET)
    builder = others.pop("builder", None) or _torchvision(name)
    preprocessing = Preprocessing(FACTS[name].input_size, *colours)
    stages = tuple(head_stages.split())
    return Backbone(
        FACTS[name], builder, chain, preprocessing, stages, saliency_stage, tuple(head.split()),
        **others,
    )  # fmt: skip


BACKBONES: dict[str, Backbone] = {
    row.id: row
    for row in (
        _row(DEFAULT_BACKBONE, lite0_chain, "block0 block1 block2 block3 block4", "block3",
             builder=_lite0, colours=HALVES, rename=rename_lite0),
        _row("resnet18", resnet_chain, "layer1 layer2 layer3", "layer3", "fc."),
        _row("resnet50", resnet_chain, "layer1 layer2 layer3", "layer3", "fc."),
        _row("densenet121", densenet_chain, "stage0 stage1 stage2", "stage2",
             rename=rename_densenet),
        _row("vgg16", cut(5, 10, 17, 24, 31), "stage1 stage2 stage3", "stage3"),
        _row("inception_v3", inception_chain, "stem1 mixed5 mixed6", "mixed6", "fc. AuxLogits.",
             colours=HALVES,  # the published weights expect them; torchvision converts inside
             builder=_torchvision("inception_v3", aux_logits=False, init_weights=False)),
        _row("mobilenet_v3_large", cut(2, 4, 7, 13, 17), "stage0 stage1 stage2 stage3", "stage3"),
        _row("mobilenet_v3_small", cut(1, 2, 4, 9, 13), "stage0 stage1 stage2 stage3", "stage3"),
        _row("efficientnet_b0", cut(2, 3, 4, 6, 9), "stage0 stage1 stage2 stage3", "stage3"),
        _row("convnext_tiny", cut(2, 4, 6, 8), "stage0 stage1 stage2", "stage2"),
        _row("vit_b_16", vit_chain, "blocks1 blocks2 last", "blocks2", "heads."),
        _row("swin_t", swin_chain, "stage0 stage1 stage2", "stage2", "head."),
        _row("small_cnn", cut(1, 2, 3, 4), "stage0 stage1 stage2 last", "last",
             builder=small_cnn, colours=HALVES),
    )
}  # fmt: skip


def get_backbone(backbone_id: str) -> Backbone:
    """Return a registry row, or raise CnsError naming those that exist."""
    kind, name = split_id(backbone_id)
    if kind != "row":
        raise CnsError(f"The backbone “{backbone_id}” has no row: it is known once it is built.")
    return BACKBONES[name]


def build_backbone(
    backbone_id: str = DEFAULT_BACKBONE, weights_dir: Path | None = None, *, fuse: bool = True
) -> LoadedBackbone:
    """Build a backbone from weights that are on this machine.

    Parameters
    ----------
    backbone_id
        A key of `BACKBONES`, `timm:NAME`, or `file:NAME` for weights of a lab's own.
    weights_dir
        Folder with weights files (`CNS_HOME/weights`). The torch hub cache is searched as well.
    fuse
        Fold batch normalisation into the convolutions, and activations where the processor's
        library can: the same outputs (checked here). False keeps the layers apart for fine-tuning.

    Raises
    ------
    CnsError
        Unknown backbone; weights not found (says which file to put where); file damaged, holding
        program code, or for another network (says which layer).
    """
    facts = get_facts(backbone_id, weights_dir)
    path = require_weights(backbone_id, weights_dir).path
    architecture = facts.architecture or facts.id
    if architecture.startswith(TIMM):
        row, parts, left_out = _from_timm(facts, architecture.removeprefix(TIMM), path)
    else:
        row, parts, left_out = _from_row(facts, BACKBONES[architecture], path)
    if facts.id.startswith("file:"):
        row = _as_the_card_says(row, weights_dir)
    stages = StageNet(parts, row.title, row.min_size, row.only_size)
    stages = stages.eval().requires_grad_(False)
    digest = digest_of(path) if path is not None else digest_of_state(stages.state_dict())
    if fuse:
        stages = fused(stages, row.only_size or row.min_size * 2)
    stages = stages.to(memory_format=torch.channels_last)
    return LoadedBackbone(row, stages, digest, tuple(left_out))


def _from_row(
    facts: BackboneFacts, row: Backbone, path: Path | None
) -> tuple[Backbone, Stages, list[str]]:
    """Return row, stages and what was left out of the file, for a network of the registry."""
    row = replace(row, facts=facts)
    if path is None:
        return row, row.chain(row.builder()), []
    state = row.rename(read_state(path))
    with torch.device("meta"):  # no first weights that are thrown away, no memory for the head
        net = row.builder()
    left_out = load_body(net, state, row.head_keys, row.title, path)
    return row, row.chain(net), left_out


def _from_timm(
    facts: BackboneFacts, name: str, path: Path | None
) -> tuple[Backbone, Stages, list[str]]:
    net = build_timm(name)
    if path is None:
        raise CnsError(f"The weights of {facts.title} are not on this machine.")
    left_out = load_body(net, read_state(path), head_keys(net), facts.title, path)
    found = cut_timm(net, facts)
    known = replace(
        facts, input_size=found.preprocessing.size, min_size=found.min_size,
        attention=found.attention,
    )  # fmt: skip
    row = Backbone(
        known, lambda: build_timm(name), lambda n: cut_timm(n, facts).stages, found.preprocessing,
        found.head_stages, found.saliency_stage, head_keys(net), only_size=found.only_size,
    )  # fmt: skip
    return row, found.stages, left_out


def _as_the_card_says(row: Backbone, weights_dir: Path | None) -> Backbone:
    """Return the row with the input that a lab's own weights were trained on."""
    card = read_card(split_id(row.id)[1], weights_dir)
    given = row.preprocessing
    size = row.only_size or card.size or given.size
    preprocessing = Preprocessing(size, card.mean or given.mean, card.std or given.std)
    return replace(row, preprocessing=preprocessing)
