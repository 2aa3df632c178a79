"""Where fine-tuning starts: the pretrained network with the quick head, or one that knows nothing.

Also how it will run: which stages stay still, in which number format, how many images a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cnsapp.domain.backbones import FACTS, check_size
from cnsapp.domain.recipe import Recipe
from cnsapp.errors import CnsError
from cnsapp.ml.backbones import Backbone, StageNet, build_backbone, fused
from cnsapp.ml.device import Device
from cnsapp.ml.features import pool_stages
from cnsapp.ml.finetune_plan import choose_frozen
from cnsapp.ml.finetune_types import FitData, Floats, Ints
from cnsapp.ml.heads import LinearHead, class_weights, fit_head, standardiser
from cnsapp.ml.held_out import QuickOptions, view_shares
from cnsapp.ml.preprocess import CLEAN, TRAIN_VIEWS, Preprocessing, make_view, pixels_key
from cnsapp.ml.streams import run_batches

START_STRENGTH = 0.01  # of a head that is fitted here: strongly regularised, as a quick model's
MOST_IMAGES_A_STEP = {"cpu": 32, "cuda": 64, "mps": 32}
FEWEST_STEPS = 8  # an epoch should have


@dataclass(frozen=True)
class Base:
    """A network before any learning.

    Attributes
    ----------
    row
        Of the backbone.
    net
        Its stages up to the last that a head reads, batch norms not folded, on the CPU.
    still
        The first stages, fused, that stay as they are; None when all learn.
    n_still
        How many they are.
    weights_hash
        Of the pretrained weights.
    pretrained
        False for a network from scratch.
    lead_autocast, autocast
        Number formats of the still and the learning stages; None is float32.
    norms_learn
        Whether batch norms follow the images of the run.
    """

    row: Backbone
    net: StageNet
    still: StageNet | None
    n_still: int
    weights_hash: str
    pretrained: bool
    lead_autocast: torch.dtype | None
    autocast: torch.dtype | None
    norms_learn: bool

    @cached_property
    def width(self) -> int:
        """How many columns a head reads."""
        side = probe_side(self.row)
        with torch.inference_mode():
            maps = self.net(torch.zeros(1, 3, side, side))
        pairs = zip(self.net.names, maps, strict=True)
        return int(pool_stages([m for name, m in pairs if name in self.row.head_stages]).shape[1])

    @property
    def precision(self) -> str:
        """The number format of the learning stages, as the dial calls it."""
        return str(self.autocast or torch.float32).removeprefix("torch.")

    def prepare(self, size: int) -> Preprocessing:
        """Return how pictures of a size become its input."""
        return replace(self.row.preprocessing, size=size)


def load_base(
    backbone_id: str, recipe: Recipe, device: Device, size: int, weights_dir: Path | None
) -> Base:
    """Build the network of a run.

    Raises
    ------
    CnsError
        Weights that are not there, pictures below the network's smallest size, more frozen stages
        than there are, a number format that the device has not.
    """
    facts = FACTS.get(backbone_id)
    if facts is not None:
        check_size(facts, size)
    pretrained = facts is None or facts.weights != "none"
    loaded = build_backbone(backbone_id, weights_dir, fuse=False)
    net = loaded.net.until(loaded.row.head_stages)
    if not pretrained:
        begin_afresh(net, recipe.seed)
    on_cpu = device.name == "cpu"
    wish = max(0, recipe.frozen_stages) if net.in_one_piece else recipe.frozen_stages
    n_still = choose_frozen(wish, net.names, pretrained=pretrained, on_cpu=on_cpu)
    still = None
    if n_still:
        still = fused(net.until(net.names[:n_still]).eval(), probe_side(loaded.row))
        still = still.to(device.torch).requires_grad_(False)
    lead_autocast, autocast = number_formats(recipe.precision, device, net, n_still)
    return Base(
        loaded.row, net, still, n_still, loaded.weights_hash, pretrained, lead_autocast, autocast,
        norms_learn=not pretrained or recipe.batch_norms == "learn",
    )  # fmt: skip


def probe_side(row: Backbone) -> int:
    """Return the side in pixels of a small input that the network can read."""
    return row.only_size or 2 * row.min_size


def begin_afresh(net: nn.Module, seed: int) -> None:
    """Give every layer new random weights that follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in net.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def number_formats(
    wish: str, device: Device, net: StageNet, n_still: int
) -> tuple[torch.dtype | None, torch.dtype | None]:
    """Return the number formats of the still and of the learning stages.

    `auto` takes the device's own for the still stages. On a CPU the learning stages stay in 32 bits
    where they hold depthwise convolutions, whose gradients are slower in 16 bits (43 against 39
    images a second with EfficientNet-Lite0; dense ones gain 1.7 times).
    """
    if wish == "float32":
        return None, None
    if wish == "float16" and not device.name.startswith("cuda"):
        raise CnsError(
            f"The precision float16 was asked for, and the device is {device.name}.",
            "Only CUDA GPUs learn in float16.",
            "Set the precision to auto.",
        )
    if wish in ("float16", "bfloat16"):
        dtype = torch.float16 if wish == "float16" else torch.bfloat16
        return dtype, dtype
    slow = device.name == "cpu" and any(
        isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1
        for stage in list(net.stages)[n_still:]
        for m in stage.modules()
    )
    return device.autocast, None if slow else device.autocast


def start_head(
    base: Base,
    data: FitData,
    recipe: Recipe,
    device: Device,
    given: LinearHead | None,
    cancelled: Callable[[], bool] | None = None,
) -> LinearHead:
    """Return the head that learning starts from.

    Parameters
    ----------
    given
        The quick model's, if its columns are those of this network; else one is fitted here to the
        training rows. With `start_from` scratch it knows nothing: all classes alike.
    """
    width = base.width
    n_classes = data.n_classes
    if base.pretrained and recipe.start_from == "quick":
        own_size = data.size == base.row.preprocessing.size
        if given is not None and own_size and given.weight.shape == (n_classes, width):
            return given
        return _fitted(base, data, device, cancelled)
    mean, std = np.zeros(width, np.float32), np.ones(width, np.float32)
    if base.pretrained:
        mean, std = standardiser(columns_of(base, data, data.train, device, cancelled))
    return LinearHead(
        mean, std, np.zeros((n_classes, width), np.float32), np.zeros(n_classes, np.float32)
    )


def averages_with_start(base: Base, recipe: Recipe) -> bool:
    """Say whether the weights end half way to the start: only where the start knows something."""
    return recipe.average_with_quick and base.pretrained and recipe.start_from == "quick"


def head_pull(base: Base, data: FitData, recipe: Recipe) -> float:
    """Return how strongly the head is pulled to zero while it learns.

    A head that starts as the quick model's goes on with its penalty, |W|^2 / (2 C n) beside the
    mean loss, so that it stays where it was as long as the features do.
    """
    if not base.pretrained or recipe.start_from != "quick":
        return 0.0
    return 1 / (START_STRENGTH * len(data.train))


def _fitted(
    base: Base, data: FitData, device: Device, cancelled: Callable[[], bool] | None
) -> LinearHead:
    """Fit a head to the training rows and their jittered copies, as a quick model does."""
    n_views, y = len(TRAIN_VIEWS), data.labels[data.train]
    views = [columns_of(base, data, data.train, device, cancelled, view) for view in TRAIN_VIEWS]
    x = np.stack(views, axis=1).reshape(len(y) * n_views, -1)
    shares = view_shares(n_views, QuickOptions().extra_view_share)
    weight = (class_weights(y, data.n_classes)[:, None] * shares).ravel()
    return fit_head(x, np.repeat(y, n_views), weight, START_STRENGTH, data.n_classes)


def columns_of(
    base: Base,
    data: FitData,
    rows: Ints,
    device: Device,
    cancelled: Callable[[], bool] | None = None,
    view: str = CLEAN,
) -> Floats:
    """Return what a head reads of a view of rows of pictures, (n, D)."""
    net = fused(base.net, probe_side(base.row)).to(device.torch)
    prepare = base.prepare(data.size)
    read = [name in base.row.head_stages for name in net.names]

    def work(part: Ints) -> Floats:
        seen = [make_view(p, data.size, view, pixels_key(p)) for p in data.pixels[part]]
        pixels = torch.from_numpy(np.stack(seen))
        with device.inference():
            maps = net(prepare.normalise(pixels.to(device.torch)))
            found: Floats = (
                pool_stages([m for m, is_read in zip(maps, read, strict=True) if is_read])
                .cpu().numpy()
            )  # fmt: skip
        return found

    def parts() -> Iterator[Ints]:
        for start in range(0, len(rows), device.batch_size):
            yield rows[start : start + device.batch_size]

    return np.concatenate(list(run_batches(work, parts(), device, cancelled)))


def first_batch_size(wish: int, n_train: int, device: Device) -> int:
    """Return how many images a step takes, before memory has its say.

    `wish` 0 finds it: as many as the kind of device likes, but few enough that an epoch has
    `FEWEST_STEPS` steps, and at least 8 (or all there are).
    """
    if wish > 0:
        return min(wish, n_train)
    most = MOST_IMAGES_A_STEP[device.torch.type]
    size = most
    while size > 8 and n_train // size < FEWEST_STEPS:
        size //= 2
    return min(size, n_train)
