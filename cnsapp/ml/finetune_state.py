"""The state of a run: how its learner is made, and what of it a checkpoint holds."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch

from cnsapp.domain.recipe import Recipe
from cnsapp.ml.augment import Changes
from cnsapp.ml.device import Device
from cnsapp.ml.finetune_net import TrainNet
from cnsapp.ml.finetune_plan import choose_rate, image_weights
from cnsapp.ml.finetune_start import Base, head_pull
from cnsapp.ml.finetune_step import Learner, StepSettings
from cnsapp.ml.finetune_types import FitData
from cnsapp.ml.heads import LinearHead

LAYOUT = 4  # of the checkpoints; raise it when an older one can not be gone on with
NO_MATTER = ("name", "threshold", "device")  # dials that change nothing of what is learnt


def make_learner(base: Base, data: FitData, recipe: Recipe, device: Device) -> Learner:
    """Return a network that has learnt nothing yet, with a fresh optimiser and a blank head."""
    k, width = data.n_classes, base.width
    blank = LinearHead(
        np.zeros(width, np.float32), np.ones(width, np.float32),
        np.zeros((k, width), np.float32), np.zeros(k, np.float32),
    )  # fmt: skip
    net = TrainNet(
        base.still, list(base.net.stages)[base.n_still :], base.net.names,
        base.row.head_stages, blank, norms_learn=base.norms_learn,
    )  # fmt: skip
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    net = net.to(device.torch).to(memory_format=layout)
    settings = StepSettings(
        Changes.of(recipe), base.prepare(data.size),
        image_weights(data.labels[data.train], recipe.balance, k),
        recipe.label_smoothing, recipe.dropout, recipe.ema, base.lead_autocast, base.autocast,
        recipe.channels_last, head_pull(base, data, recipe), recipe.seed,
    )  # fmt: skip
    rate = choose_rate(recipe.learning_rate, data.n_independent)
    groups = net.parameter_groups(rate, recipe.body_rate, recipe.weight_decay)
    return Learner(net, data, device, settings, torch.optim.AdamW(groups))


def pack(learner: Learner, *, at_start: bool) -> dict[str, Any]:
    """Return a learner as plain tensors, numbers and lists."""
    state: dict[str, Any] = {
        "fixed": {"mean": learner.net.mean.cpu(), "std": learner.net.std.cpu()},
        "net": copied(learner.net.learning_state()),
        "n_updates": learner.n_updates,
    }
    if not at_start:
        state["average"] = copied(learner.average.learning_state())
        state["optimizer"] = learner.optimizer.state_dict()
        state["scaler"] = learner.scaler.state_dict()
    return state


def unpack(state: dict[str, Any], learner: Learner) -> None:
    """Put a state of `pack` into a learner that was just made."""
    for net in learner.networks:
        net.mean.copy_(state["fixed"]["mean"])
        net.std.copy_(state["fixed"]["std"])
        net.load_learning_state(state["net"])
    learner.average.load_learning_state(state.get("average", state["net"]))
    if "optimizer" in state:
        learner.optimizer.load_state_dict(state["optimizer"])
        learner.scaler.load_state_dict(state["scaler"])
    learner.n_updates = int(state["n_updates"])


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def run_id(backbone_id: str, base: Base, data: FitData, recipe: Recipe) -> str:
    """Return a hash of all that decides how a run goes."""
    said = {k: v for k, v in recipe.as_json().items() if k not in NO_MATTER}
    text = json.dumps(
        [LAYOUT, backbone_id, base.weights_hash, said, data.pixels.shape, data.class_ids,
         data.n_independent],
        sort_keys=True,
    )  # fmt: skip
    digest = hashlib.sha256(text.encode())
    for array in (data.labels, data.train, data.validation, data.pixels[:, ::32, ::32]):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]
