"""A fine-tuned network: what it is made of, what it says of pictures, and its place in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.domain.recipe import Recipe
from cnsapp.ml.backbones import Backbone, StageNet, fused
from cnsapp.ml.bundle import Bundle, network_bundle
from cnsapp.ml.device import Device
from cnsapp.ml.finetune_types import Floats, Ints
from cnsapp.ml.heads import LinearHead
from cnsapp.ml.network import QuickNet, body_arrays
from cnsapp.ml.preprocess import CLEAN, GEOMETRY, Pixels, Preprocessing
from cnsapp.ml.streams import run_batches

VIEWS: dict[str, tuple[int, bool]] = {CLEAN: (0, False), **GEOMETRY}


def view_names(n: int, *, turns: bool = True, flips: bool = True) -> tuple[str, ...]:
    """Return the views averaged at prediction: turned and mirrored copies, the plain one first.

    Parameters
    ----------
    n
        1, 2, 4 or 8; fewer come back where the others are ruled out.
    turns, flips
        Whether images may be turned and mirrored: where training may not, prediction must not.
    """
    allowed = [
        name for name, (turn, flip) in VIEWS.items() if (turns or not turn) and (flips or not flip)
    ]
    if n == 2:
        allowed = [name for name in allowed if name in (CLEAN, "rot180" if turns else "flip")]
    return tuple(allowed[:n])


def views_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the views that a recipe averages."""
    return view_names(
        int(recipe.test_views), turns=recipe.rotation >= 0.5, flips=recipe.flips
    )  # below half strength, a quarter turn was never learnt


@dataclass(frozen=True)
class FittedNetwork:
    """The network of the best epoch.

    Attributes
    ----------
    row
        Of the backbone.
    net
        Its stages up to the last that the head reads, tuned, batch norms not folded, on the CPU.
    head, stages
        Linear head on pooled `stages`: the same shape as a quick model's.
    started_from
        Hash of the pretrained weights.
    image_size
        Side of its input in pixels.
    class_ids, class_names
        In the order of its outputs.
    temperature
        Fitted to the validation logits (averaged over the views); 1 when there were too few.
    views
        Names of the views averaged at prediction.
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

    row: Backbone
    net: StageNet
    head: LinearHead
    stages: tuple[str, ...]
    started_from: str
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

    @cached_property
    def _ready(self) -> QuickNet:
        """The network as prediction runs it."""
        net = fused(self.net, self.row.only_size or 2 * self.row.min_size)
        return QuickNet(net, self.stages, self.head).to(self.device.torch)

    def logits(
        self,
        pixels: NDArray[np.uint8],
        rows: Ints,
        cancelled: Callable[[], bool] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Floats:
        """Return logits (n, K) of rows of `pixels` (N, S, S, 3), averaged over the views.

        They are not divided by the temperature: `softmax(logits, temperature)` is the confidence.

        Raises
        ------
        Cancelled
            When `cancelled()` says so.
        """
        prepare = replace(self.row.preprocessing, size=self.image_size)
        return logits_of(
            self._ready, pixels, rows, prepare, self.device, self.views, cancelled, progress
        )

    def bundle(
        self,
        *,
        threshold: float,
        data_fingerprint: str,
        settings: Mapping[str, object],
        metrics: Mapping[str, object],
    ) -> Bundle:
        """Return the network in the form of a model file."""
        return network_bundle(
            self.row, body_arrays(self.net, self.stages), self.head, self.stages,
            class_ids=self.class_ids, class_names=self.class_names,
            started_from=self.started_from, image_size=self.image_size,
            temperature=self.temperature, threshold=threshold, predict_views=self.views,
            data_fingerprint=data_fingerprint, settings=settings, metrics=metrics,
        )  # fmt: skip


def logits_of(
    forward: Callable[[torch.Tensor], torch.Tensor],
    pixels: NDArray[np.uint8],
    rows: Ints,
    prepare: Preprocessing,
    device: Device,
    views: Sequence[str] = (CLEAN,),
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Floats:
    """Return logits (n, K) of rows of pictures, averaged over views.

    Parameters
    ----------
    forward
        Logits (B, K) of normalised input (B, 3, S, S).
    pixels, rows
        (N, S, S, 3) uint8 and row numbers (n,).
    prepare
        Mean and spread of the input.
    device
        Where `forward` runs.
    views
        Names of `VIEWS`.
    progress
        Told how many rows are done.
    """

    def work(part: Ints) -> Floats:
        batch = torch.from_numpy(np.concatenate([seen(pixels[part], view) for view in views]))
        with device.inference():
            out = forward(prepare.normalise(batch.to(device.torch))).float()
            mean = out.reshape(len(views), len(part), -1).mean(0)
        found: Floats = mean.cpu().numpy()
        return found

    def parts() -> Iterator[Ints]:
        step = max(1, device.batch_size // len(views))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    found: list[Floats] = []
    done = 0
    for part in run_batches(work, parts(), device, cancelled):
        found.append(part)
        done += len(part)
        if progress is not None:
            progress(done)
    return np.concatenate(found)


def seen(batch: Pixels, view: str) -> Pixels:
    """Return a view of pictures (B, S, S, 3)."""
    turns, mirrored = VIEWS[view]
    out = np.rot90(batch, turns, axes=(1, 2))
    return np.ascontiguousarray(out[:, :, ::-1] if mirrored else out)
