"""One step of learning: a batch forward and backward, on every core, then one move of the weights.

On a CPU every core takes its own share of the batch through the network on one torch thread; the
gradients are added in a fixed order, so that the same seed gives the same weights. Several threads
on one batch wait for the slowest after every layer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from cnsapp.errors import Cancelled
from cnsapp.ml.augment import Changes, change, draw
from cnsapp.ml.device import Device, cpu_threads
from cnsapp.ml.finetune_net import TrainNet
from cnsapp.ml.finetune_plan import Batch, dropout_mask, ema_decay
from cnsapp.ml.finetune_types import FitData
from cnsapp.ml.heads import LinearHead
from cnsapp.ml.preprocess import Preprocessing

MICRO_BATCH = 8
"""Images that a core takes through the network at once: what happens within one of these can not
be cancelled (0.4 s of EfficientNet-Lite0 on a slow core)."""


def autocast_to(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Return a context of reduced precision, or one that changes nothing for None."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


class NotFiniteError(Exception):
    """A loss is NaN or infinite; the value and where."""

    def __init__(self, loss: float, rate: float) -> None:
        self.loss, self.rate = loss, rate
        super().__init__()


@dataclass(frozen=True)
class StepSettings:
    """What a step needs to know of a run.

    Attributes
    ----------
    changes, prepare
        To the images; mean and spread of the input.
    weights
        (K,) of an image of each class in the loss.
    label_smoothing, dropout, ema
        The dials.
    lead_autocast, autocast
        Number format of forward passes of the still and of the learning stages; None is float32.
    channels_last
        Memory layout of the maps.
    head_pull
        How strongly the head's weights are pulled to zero, as part of the loss: half of this times
        the sum of their squares.
    seed
        Of the run.
    """

    changes: Changes
    prepare: Preprocessing
    weights: NDArray[np.float32]
    label_smoothing: float
    dropout: float
    ema: float
    lead_autocast: torch.dtype | None
    autocast: torch.dtype | None
    channels_last: bool
    head_pull: float
    seed: int


@dataclass(frozen=True)
class StepResult:
    """Loss of a batch, and (K, K) counts of true by predicted classes."""

    loss: float
    confusion: NDArray[np.int64]


class Learner:
    """A network with its optimiser and its running average, on a device.

    Parameters
    ----------
    net
        On the device already.
    data, device, settings
        Of the run.
    optimizer
        Over the network's parameters, with a `share` in every group.

    Attributes
    ----------
    average
        The network whose weights are the running average (EMA); `net` itself when that is off.
    n_updates
        Steps so far.
    """

    def __init__(
        self,
        net: TrainNet,
        data: FitData,
        device: Device,
        settings: StepSettings,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.net, self.data, self.device, self.settings = net, data, device, settings
        self.optimizer, self.n_updates = optimizer, 0
        n_lanes = cpu_threads() if device.name == "cpu" else 1
        self.lanes = [net, *(net.twin() for _ in range(n_lanes - 1))]
        self.average = net
        if settings.ema > 0:
            self.average = net.copy()
        self.scaler = torch.amp.GradScaler(
            device.torch.type, enabled=settings.autocast == torch.float16
        )
        self._weights = torch.from_numpy(settings.weights).to(device.torch)
        self._pool: ThreadPoolExecutor | None = None
        self._stop = threading.Event()

    def __enter__(self) -> Learner:
        if len(self.lanes) > 1:
            self._pool = ThreadPoolExecutor(
                len(self.lanes), "lane", initializer=torch.set_num_threads, initargs=(1,)
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
            torch.set_num_threads(cpu_threads())  # threads started from here on get all again

    def step(
        self,
        batch: Batch,
        epoch: int,
        number: int,
        rate: float,
        cancelled: Callable[[], bool] | None = None,
    ) -> StepResult:
        """Learn one batch.

        Parameters
        ----------
        batch, epoch, number
            The rows; they and all chance follow from (seed, epoch, number).
        rate
            Learning rate of the head.

        Raises
        ------
        NotFiniteError
            The loss is NaN or infinite; the weights are untouched.
        Cancelled
            When `cancelled()` says so; the weights are untouched.
        """
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._parts(batch, epoch, number)
        loss, confusion = 0.0, np.zeros((self.data.n_classes,) * 2, np.int64)
        for lane_loss, lane_confusion in self._run(parts, cancelled):
            loss += lane_loss
            confusion += lane_confusion
        if not np.isfinite(loss):
            raise NotFiniteError(loss, rate)
        self._gather()
        self._pull_head()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._follow()
        return StepResult(loss, confusion)

    def _parts(self, batch: Batch, epoch: int, number: int) -> list[list[dict[str, Any]]]:
        """Cut a batch into pieces of at least two images, and give each lane its own."""
        n = len(batch.rows)
        n_lanes = max(1, min(len(self.lanes), n // 2))
        micro = MICRO_BATCH if self.device.name == "cpu" else n
        pieces = n_lanes * max(1, -(-n // (micro * n_lanes)))
        pieces = min(pieces, n // 2)
        s = self.settings
        mask = dropout_mask(n, len(self.net.mean), s.dropout, s.seed, epoch, number)
        draws = draw(s.seed, epoch, batch.rows.tolist(), batch.turns.tolist())
        total = float(s.weights[self.data.labels[batch.rows]].sum())
        lanes: list[list[dict[str, Any]]] = [[] for _ in range(n_lanes)]
        for i, at in enumerate(np.array_split(np.arange(n), pieces)):
            part = {
                "rows": batch.rows[at], "draws": draws[at], "total": total,
                "mask": None if mask is None else mask[torch.from_numpy(at)],
            }  # fmt: skip
            lanes[i % n_lanes].append(part)
        return lanes

    def _run(
        self, lanes: list[list[dict[str, Any]]], cancelled: Callable[[], bool] | None
    ) -> list[tuple[float, NDArray[np.int64]]]:
        self._stop.clear()
        if cancelled is not None and cancelled():
            raise Cancelled
        if self._pool is None:
            return [self._lane(net, parts) for net, parts in zip(self.lanes, lanes, strict=False)]
        futures = [
            self._pool.submit(self._lane, net, parts)
            for net, parts in zip(self.lanes, lanes, strict=False)
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:
            self._stop.set()
            for future in futures:  # nobody may still write gradients when the caller goes on
                future.exception()
            raise

    def _lane(
        self, net: TrainNet, parts: Sequence[dict[str, Any]]
    ) -> tuple[float, NDArray[np.int64]]:
        """Run pieces forward and backward on one network; gradients add up in it."""
        loss_sum, confusion = 0.0, np.zeros((self.data.n_classes,) * 2, np.int64)
        for part in parts:
            if self._stop.is_set():
                break
            y = torch.from_numpy(self.data.labels[part["rows"]]).to(self.device.torch)
            logits = self._forward(net, part)
            each = cross_entropy(
                logits, y, reduction="none", label_smoothing=self.settings.label_smoothing
            )
            loss = (each * self._weights[y]).sum() / part["total"]
            self.scaler.scale(loss).backward()
            loss_sum += float(loss.detach())
            said = logits.detach().argmax(1).cpu().numpy()
            np.add.at(confusion, (self.data.labels[part["rows"]], said), 1)
        return loss_sum, confusion

    def _forward(self, net: TrainNet, part: dict[str, Any]) -> torch.Tensor:
        s, place = self.settings, self.device.torch
        pixels = torch.from_numpy(np.ascontiguousarray(self.data.pixels[part["rows"]])).to(place)
        with torch.inference_mode():
            x = change(pixels, s.changes, part["draws"], s.prepare)
            x = x if s.channels_last else x.contiguous()
            with autocast_to(s.lead_autocast, place):
                x, led = net.run_lead(x)
        # a tensor of inference mode can not take part in gradients
        x, led = x.float().clone(), None if led is None else led.clone()
        mask = None if part["mask"] is None else part["mask"].to(place)
        with autocast_to(s.autocast, place):
            logits: torch.Tensor = net(x, led, mask)
        return logits

    def _gather(self) -> None:
        """Add the lanes' gradients up in the first, always in the same order."""
        for other in self.lanes[1:]:
            for mine, theirs in zip(self.net.parameters(), other.parameters(), strict=True):
                if theirs.grad is not None:
                    if mine.grad is None:
                        mine.grad = theirs.grad
                    else:
                        mine.grad += theirs.grad
                    theirs.grad = None
        if self.net.norms_learn and len(self.lanes) > 1:
            self._share_norms()

    def _pull_head(self) -> None:
        weight = self.net.linear.weight
        if self.settings.head_pull > 0 and weight.grad is not None:
            scale = self.settings.head_pull * self.scaler.get_scale()
            weight.grad.add_(weight.detach(), alpha=scale)

    def _share_norms(self) -> None:
        """Let every lane go on with the mean of the lanes' batch statistics."""
        buffers = [dict(lane.named_buffers()) for lane in self.lanes]
        with torch.no_grad():
            for name, mine in buffers[0].items():
                if name.startswith("body.") and mine.is_floating_point():
                    mine.copy_(torch.stack([b[name] for b in buffers]).mean(0))
                    for other in buffers[1:]:
                        other[name].copy_(mine)

    def _follow(self) -> None:
        """Move the running average of parameters and batch statistics."""
        if self.average is not self.net:
            decay = ema_decay(self.settings.ema, self.n_updates)
            into, of = self.average.learning_state(), self.net.learning_state()
            with torch.no_grad():
                torch._foreach_lerp_(list(into.values()), [of[name] for name in into], 1 - decay)
        self.n_updates += 1

    @property
    def networks(self) -> list[TrainNet]:
        """The lanes' and the averaged one, each once."""
        return list({id(net): net for net in (*self.lanes, self.average)}.values())

    def load_head(self, head: LinearHead) -> None:
        """Put a linear head into all of them."""
        for net in self.networks:
            net.load_head(head)
