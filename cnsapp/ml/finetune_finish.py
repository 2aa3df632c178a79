"""The end of fine-tuning: the network of the best epoch, mixed with the start, calibrated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.domain.calibration import fit_temperature, softmax
from cnsapp.domain.metrics import balanced_accuracy, confusion_matrix
from cnsapp.domain.recipe import Recipe
from cnsapp.ml.device import Device
from cnsapp.ml.finetune_net import TrainNet
from cnsapp.ml.finetune_plan import first_share, margin
from cnsapp.ml.finetune_start import Base, averages_with_start
from cnsapp.ml.finetune_types import FitData, Ints
from cnsapp.ml.finetuned import FittedNetwork, views_of

SHARES = (0.25, 0.5, 0.75, 1.0)  # of the fine-tuned weights, tried in the end
FEW = 30  # validation images whose word counts half

State = dict[str, torch.Tensor]


def balanced_loss(logits: NDArray[np.floating], y: Ints) -> float:
    """Return the mean negative log probability (nats) of the true class, all classes alike.

    Parameters
    ----------
    logits
        (n, K).
    y
        (n,) true classes; those that do not occur are left out.
    """
    p = softmax(logits)[np.arange(len(y)), y]
    lost = -np.log(np.maximum(p, 1e-12))
    if not np.isfinite(logits).all():
        return float("nan")
    return float(np.mean([lost[y == c].mean() for c in np.unique(y)]))


@dataclass(frozen=True)
class Finish:
    """What is needed to make a network of the end of a run."""

    base: Base
    data: FitData
    recipe: Recipe
    device: Device
    cancelled: Callable[[], bool] | None

    def network(self, net: TrainNet, start: State, best_epoch: int) -> FittedNetwork:
        """Return the finished network.

        Parameters
        ----------
        net
            With the averaged weights of the best epoch.
        start
            State of epoch 0.
        best_epoch
            Its number.
        """
        tuned = {name: value.detach().cpu() for name, value in net.learning_state().items()}
        averages = averages_with_start(self.base, self.recipe) and best_epoch > 0
        first = first_share(self.data.n_independent) if averages else 1.0
        shares = (first, *(s for s in SHARES if s != first)) if averages else (first,)
        chosen, *others = (
            self._scored(net, mixed(start, tuned, share), share, best_epoch) for share in shares
        )
        for other in others:
            if _is_clearly_better(other, chosen, len(self.data.validation)):
                chosen = other
        return chosen

    def _scored(self, net: TrainNet, state: State, share: float, epoch: int) -> FittedNetwork:
        made = self._made(net, state, share, epoch)
        rows = self.data.validation
        y = self.data.labels[rows]
        logits = made.logits(self.data.pixels, rows, self.cancelled)
        said = confusion_matrix(y, logits.argmax(1), self.data.n_classes)
        notes = []
        if len(y) < FEW:
            notes.append(f"Only {len(y)} validation images: its confidences are a rough guess.")
        return replace(
            made,
            temperature=shrunk(fit_temperature(logits, y), len(y)),
            validation_balanced_accuracy=balanced_accuracy(said),
            validation_loss=balanced_loss(logits, y),
            notes=notes,
        )

    def _made(self, net: TrainNet, state: State, share: float, epoch: int) -> FittedNetwork:
        """Return the network with these weights, not scored yet."""
        twin = net.copy()
        twin.load_learning_state(state)
        twin = twin.cpu().eval()
        stages = copy.deepcopy(self.base.net)
        for i, stage in enumerate(twin.body):
            stages.stages[self.base.n_still + i].load_state_dict(stage.state_dict())
        return FittedNetwork(
            row=self.base.row,
            net=stages.eval().requires_grad_(False),
            head=twin.head(),
            stages=tuple(self.base.row.head_stages),
            started_from=self.base.weights_hash,
            image_size=self.data.size,
            class_ids=list(self.data.class_ids),
            class_names=list(self.data.class_names),
            temperature=1.0,
            views=views_of(self.recipe),
            best_epoch=epoch,
            share=share,
            validation_balanced_accuracy=None,
            validation_loss=float("nan"),
            device=self.device,
        )


def _is_clearly_better(a: FittedNetwork, b: FittedNetwork, n: int) -> bool:
    one, other = a.validation_balanced_accuracy, b.validation_balanced_accuracy
    return one is not None and other is not None and one > other + margin(other, n)


def shrunk(temperature: float, n: int) -> float:
    """Return a temperature of few images drawn towards 1: its logarithm times n / (n + `FEW`).

    A handful of patients can be all wrong or all right by luck; a temperature of 20 would make the
    network unsure of everything.
    """
    return float(temperature ** (n / (n + FEW)))


def mixed(start: State, tuned: State, share: float) -> State:
    """Return weights between the start's (0) and the fine-tuned (1).

    References
    ----------
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
    """
    if share == 1:
        return tuned
    return {name: torch.lerp(start[name], tuned[name], share) for name in tuned}
