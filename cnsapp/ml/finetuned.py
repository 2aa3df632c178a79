"""A fine-tuned network: what it is made of, what it says of pictures, and its place in a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.ml.backbones import LoadedBackbone
from cnsapp.ml.device import Device
from cnsapp.ml.finetune_types import Floats, Ints
from cnsapp.ml.heads import LinearHead


@dataclass(frozen=True)
class FittedNetwork:
    """The network of the best epoch.

    Attributes
    ----------
    backbone
        With its tuned stages, fused for prediction; `weights_hash` is still that of the pretrained
        weights that the untouched stages come from.
    tuned
        State of the stages that learnt, by `stage.parameter` (float32, CPU); all others are the
        backbone's own. What a file must hold beside the head.
    head, stages
        Linear head on pooled `stages`: the same shape as a quick model's.
    image_size
        Side of its input in pixels.
    class_ids, class_names
        In the order of its outputs.
    temperature
        Fitted to the validation logits (averaged over the views); 1 when there were too few.
    views
        Names of the views averaged at prediction (`cnsapp.ml.preprocess.make_view`).
    best_epoch
        The epoch it was taken from; 0 is the start, unchanged.
    share
        How much of it is the fine-tuned network, 0 to 1; the rest is the start (1 unless
        `average_with_quick` chose less: the weights are averaged, not the answers).
    validation_balanced_accuracy, validation_loss
        Of the network as it is, with its views.
    device
        Where `logits` runs.
    notes
        What the report must say.
    """

    backbone: LoadedBackbone
    tuned: dict[str, torch.Tensor]
    head: LinearHead
    stages: tuple[str, ...]
    image_size: int
    class_ids: list[int]
    class_names: list[str]
    temperature: float
    views: tuple[str, ...]
    best_epoch: int
    share: float
    validation_balanced_accuracy: float | None
    validation_loss: float
    device: Device
    notes: list[str] = field(default_factory=list)

    def logits(
        self,
        pixels: NDArray[np.uint8],
        rows: Ints,
        cancelled: Callable[[], bool] | None = None,
    ) -> Floats:
        """Return logits (n, K) of rows of `pixels` (N, S, S, 3), averaged over the views.

        They are not divided by the temperature: `softmax(logits, temperature)` is the confidence.

        Raises
        ------
        Cancelled
            When `cancelled()` says so.
        """
        raise NotImplementedError
