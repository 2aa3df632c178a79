"""Fine-tuning: the whole network learns, from the quick model on, epoch by epoch.

`fit` reads top-down: `fit` -> `Finetuner.run_epoch` -> `Learner.step`. An epoch ends with a
checkpoint, and every random draw follows from (seed, epoch, batch), so that a run that is
interrupted anywhere goes on to the same weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from cnsapp.domain.metrics import balanced_accuracy, confusion_matrix
from cnsapp.domain.recipe import Recipe
from cnsapp.ml.checkpoint import Checkpoints
from cnsapp.ml.device import Device
from cnsapp.ml.finetune_finish import Finish, balanced_loss, mixed
from cnsapp.ml.finetune_limits import Limits, is_out_of_memory, memory_used, room_for
from cnsapp.ml.finetune_plan import (
    Batch,
    best_of,
    choose_rate,
    epoch_batches,
    first_share,
    peak_of,
    rate_factor,
)
from cnsapp.ml.finetune_start import (
    averages_with_start,
    first_batch_size,
    load_base,
    start_head,
)
from cnsapp.ml.finetune_state import copied, make_learner, pack, run_id, unpack
from cnsapp.ml.finetune_step import Learner, NotFiniteError
from cnsapp.ml.finetune_types import BatchReport, EpochRecord, FitData, Floats, Ints, SelfTest
from cnsapp.ml.finetuned import FittedNetwork, logits_of
from cnsapp.ml.heads import LinearHead

__all__ = [
    "BatchReport",
    "EpochRecord",
    "Finetuner",
    "FitData",
    "FittedNetwork",
    "SelfTest",
    "fit",
]


def fit(tuner: Finetuner) -> tuple[FittedNetwork, list[EpochRecord]]:
    """Run all epochs and return the network with their records, epoch 0 first."""
    records = [tuner.run_epoch(0)]
    while not tuner.is_over(records):
        records.append(tuner.run_epoch(len(records)))
    return tuner.finish(records), records


class Finetuner:
    """A network in training.

    Parameters
    ----------
    backbone_id
        Registry id (`cnsapp.ml.backbones`).
    data
        Pictures, labels, and which rows train and validate.
    recipe
        Its dials (`cnsapp.domain.recipe`).
    device
        Where to run.
    folder
        Of this run's checkpoints; made if need be, and deleted by `forget`.
    weights_dir
        Folder with weights files (`CNS_HOME/weights`), or None.
    start_head
        A linear head fitted to the TRAINING rows alone, on the backbone's `head_stages` at the
        size of the pictures; None fits one here (a few seconds), as does a size other than the
        backbone's own. Not used with `start_from` scratch.
    on_batch
        Told after every batch.
    cancelled
        Asked at least once a batch; when it says yes, `run_epoch` raises Cancelled and nothing of
        the epoch is kept.

    Raises
    ------
    CnsError
        Too few images or classes, weights that are not there, pictures below the network's size.
    """

    def __init__(
        self,
        backbone_id: str,
        data: FitData,
        recipe: Recipe,
        device: Device,
        folder: Path,
        *,
        weights_dir: Path | None = None,
        start_head: LinearHead | None = None,
        on_batch: Callable[[BatchReport], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        data.check()
        self.data, self.recipe, self.device = data, recipe, device
        self.on_batch, self.cancelled = on_batch, cancelled
        self.base = load_base(backbone_id, recipe, device, data.size, weights_dir)
        self.limits = Limits(first_batch_size(recipe.batch_size, len(data.train), device))
        self._highest_rate = choose_rate(recipe.learning_rate, data.n_independent)
        self.records: list[EpochRecord] = []
        self.checkpoints = Checkpoints(folder, run_id(backbone_id, self.base, data, recipe))
        self._given_head = start_head
        self._learner: Learner | None = None
        self._start: dict[str, torch.Tensor] = {}  # what epoch 0 consists of
        self._at: int | None = None  # the epoch whose end is in memory

    # -- what a run does ------------------------------------------------------------------------

    def run_epoch(self, epoch: int) -> EpochRecord:
        """Return the record of an epoch, training it unless its checkpoint is there.

        Epoch 0 scores the start; asking for it is optional. Epochs before this one that are not
        there (a damaged file) are trained first.

        Raises
        ------
        Cancelled
            When `cancelled()` says so.
        CnsError
            The loss was not finite three times, memory ran out four times, the disk is full.
        """
        for number in range(self._reach(epoch) + 1, epoch + 1):
            if number == 0:
                self._begin()
            else:
                self._learn(number)
            self._keep(number)
        return self.records[epoch]

    def is_over(self, records: Sequence[EpochRecord]) -> bool:
        """Say whether all epochs are done, or `patience` of them brought nothing better.

        Better than other epochs, not than the start: while the rate rises a network loses some of
        what the start knew, and may be far better at the end.
        """
        if not records or records[-1].epoch >= self.recipe.epochs:
            return bool(records)
        learnt = [record for record in records if record.epoch > 0]
        waited = learnt[-1].epoch - peak_of(learnt).epoch if learnt else 0
        return 0 < self.recipe.patience <= waited

    def finish(self, records: Sequence[EpochRecord]) -> FittedNetwork:
        """Return the network of the best epoch, calibrated on the validation images.

        Parameters
        ----------
        records
            Of the run so far, with or without epoch 0.
        """
        start = self.run_epoch(0)
        best = self._best([start, *(r for r in records if r.epoch > 0)])
        self._go_to(best.epoch)
        finish = Finish(self.base, self.data, self.recipe, self.device, self.cancelled)
        return finish.network(self.learner.average, self._start, best.epoch)

    def forget(self) -> None:
        """Delete this run's checkpoints: the model is stored, or the run was cancelled."""
        self._at = None
        self.checkpoints.forget()

    def self_test(self) -> SelfTest:
        """Learn a few batches and forget them: is the loss finite, how long and how large are they?

        Raises
        ------
        CnsError
            Memory runs out even with small batches, or the loss is not finite even with low rates.
        """
        self.run_epoch(0)
        while True:
            try:
                tested = self._test_batches()
                break
            except (NotFiniteError, RuntimeError, MemoryError) as error:
                self._step_back(error, 1)
        self._at = None
        return tested

    @property
    def chosen(self) -> dict[str, float | int | str]:
        """What the run uses where a dial leaves the choice to it, by the dial's name."""
        return {
            "learning_rate": self._highest_rate,
            "frozen_stages": self.base.n_still,
            "batch_size": self.limits.batch_size,
            "image_size": self.data.size,
            "precision": self.base.precision,
        }

    # -- an epoch -------------------------------------------------------------------------------

    def _learn(self, epoch: int) -> None:
        """Train an epoch from the end of the one before; step back and do it again if need be."""
        while True:
            self._at = None
            try:
                record = self._train(epoch)
                break
            except (NotFiniteError, RuntimeError, MemoryError) as error:
                self._step_back(error, epoch)
                self._go_to(epoch - 1)
        self.records = [*self.records[:epoch], record]

    def _train(self, epoch: int) -> EpochRecord:
        started, losses, seen = time.perf_counter(), 0.0, 0
        confusion = np.zeros((self.data.n_classes,) * 2, np.int64)
        batches, rate = self._batches(epoch), 0.0
        with self.learner as learner:
            learner.net.train()
            for i, batch in enumerate(batches):
                rate = self._rate(epoch, i, len(batches))
                result = learner.step(batch, epoch, i, rate, self.cancelled)
                losses += result.loss * len(batch.rows)
                seen += len(batch.rows)
                confusion += result.confusion
                speed = seen / (time.perf_counter() - started)
                if self.on_batch is not None:
                    self.on_batch(BatchReport(epoch, i + 1, len(batches), result.loss, speed, rate))
        loss, score = self._score()
        if not np.isfinite(loss):
            raise NotFiniteError(loss, rate)
        return EpochRecord(
            epoch, losses / seen, balanced_accuracy(confusion), loss, score, rate,
            time.perf_counter() - started, speed, self.limits.batch_size, self.limits.tell(),
        )  # fmt: skip

    def _batches(self, epoch: int) -> list[Batch]:
        r, d = self.recipe, self.data
        return epoch_batches(d.train, d.labels, r.balance, self.limits.batch_size, r.seed, epoch)

    def _rate(self, epoch: int, i: int, n_batches: int) -> float:
        step, n_steps = (epoch - 1) * n_batches + i, self.recipe.epochs * n_batches
        factor = rate_factor(step, n_steps, self.recipe.warmup_epochs * n_batches)
        return self._highest_rate * self.limits.rate_scale * factor

    def _score(self) -> tuple[float, float | None]:
        """Return loss and balanced accuracy on the validation images.

        They are of the averaged weights; with `average_with_quick` and few samples, of those half
        way to the start, since that is what comes of them.
        """
        rows, y = self.data.validation, self.data.labels[self.data.validation]
        logits = self._logits(rows)
        said = confusion_matrix(y, logits.argmax(1), self.data.n_classes)
        return balanced_loss(logits, y), balanced_accuracy(said)

    def _logits(self, rows: Ints) -> Floats:
        net = self.learner.average.eval()
        share = first_share(self.data.n_independent)
        if share < 1 and averages_with_start(self.base, self.recipe):
            now = copied(net.learning_state())
            net = net.copy().eval()
            net.load_learning_state(mixed(self._start, now, share))

        def forward(x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = net(*net.run_lead(x))
            return logits

        prepare = self.base.prepare(self.data.size)
        return logits_of(
            forward, self.data.pixels, rows, prepare, self.device, cancelled=self.cancelled
        )

    def _best(self, records: Sequence[EpochRecord]) -> EpochRecord:
        return best_of(records, len(self.data.validation))

    def _step_back(self, error: Exception, epoch: int) -> None:
        """Make the rest of the run easier after an error that this can help, or raise it."""
        if isinstance(error, NotFiniteError):
            self.limits.set_back(epoch, error.loss, error.rate)
        elif is_out_of_memory(error):
            self.limits.halve(self.device, self.data.size)
        else:
            raise error

    # -- where it stands ------------------------------------------------------------------------

    @property
    def learner(self) -> Learner:
        """The network with its optimiser; made when first needed."""
        if self._learner is None:
            self._learner = make_learner(self.base, self.data, self.recipe, self.device)
        return self._learner

    def _begin(self) -> None:
        """Stand at the start, epoch 0: the pretrained network with its first head."""
        started = time.perf_counter()
        self._learner = None
        head = start_head(
            self.base, self.data, self.recipe, self.device, self._given_head, self.cancelled
        )
        self.learner.load_head(head)
        if self.device.name.startswith("cuda") and self.recipe.batch_size == 0:
            self._fit_to_memory(head)
        self._start = copied(self.learner.net.learning_state())
        loss, score = self._score()
        seconds = time.perf_counter() - started
        record = EpochRecord(0, None, None, loss, score, 0.0, seconds, 0.0, self.limits.batch_size)
        self.records = [record]

    def _fit_to_memory(self, head: LinearHead) -> None:
        """Take as many images a step as the GPU has room for: measured on a few, then forgotten."""
        few = self._batches(1)[0]
        few = Batch(few.rows[:8], few.turns[:8])
        before = memory_used(self.device) or 0
        with self.learner as learner:
            learner.step(few, 1, 0, 0.0, self.cancelled)
        each = ((memory_used(self.device) or 0) - before) / len(few.rows)
        self.limits.batch_size = room_for(self.device, each, self.limits.batch_size)
        self._learner = None
        self.learner.load_head(head)

    def _reach(self, epoch: int) -> int:
        """Stand at the newest epoch up to this one that is in memory or on the disk; -1 is none."""
        if self._at is not None and self._at == epoch:
            return epoch
        if self._load(epoch):
            return epoch
        if self._at is not None and self._at < epoch:
            return self._at
        for number in sorted((n for n in self.checkpoints.epochs() if n < epoch), reverse=True):
            if self._load(number):
                return number
        return -1

    def _go_to(self, epoch: int) -> None:
        self.run_epoch(epoch)
        if self._at != epoch:
            raise RuntimeError(f"the run stands at {self._at}, not {epoch}")

    def _keep(self, epoch: int) -> None:
        """Write this epoch's checkpoint; keep it, the one before, the best and the start."""
        state = pack(self.learner, at_start=epoch == 0)
        state["limits"] = self.limits.as_json()
        state["records"] = [record.as_json() for record in self.records]
        self.checkpoints.save(epoch, state)
        self._at = epoch
        self.checkpoints.prune({0, self._best(self.records).epoch, epoch - 1, epoch})

    def _load(self, epoch: int) -> bool:
        """Stand at the end of an epoch as its checkpoint says; False when there is none."""
        state = self.checkpoints.load(epoch)
        start = state if epoch == 0 else self.checkpoints.load(0)
        if state is None or start is None:
            return False
        self._start = start["net"]
        self._learner = None  # an optimiser that has moved can not be made fresh again
        unpack(state, self.learner)
        self.records = [EpochRecord.from_json(record) for record in state["records"]]
        kept = Limits(**state["limits"])
        if kept.steps_back >= self.limits.steps_back:
            self.limits = kept
        self._at = epoch
        return True

    # -- the self test --------------------------------------------------------------------------

    def _test_batches(self) -> SelfTest:
        batches, times, loss = self._batches(1), [], 0.0
        self._go_to(0)
        with self.learner as learner:
            learner.net.train()
            for i, batch in enumerate(batches[:3]):
                started = time.perf_counter()
                loss = learner.step(batch, 1, i, 0.0, self.cancelled).loss
                times.append(time.perf_counter() - started)
        per_batch = statistics.median(times[1:] or times)
        started, some = time.perf_counter(), self.data.validation[:16]
        self._logits(some)
        per_image = (time.perf_counter() - started) / len(some)
        scoring = per_image * len(self.data.validation)
        epoch = per_batch * len(batches) + scoring
        ending = scoring * int(self.recipe.test_views)
        return SelfTest(
            loss, self.limits.batch_size, self.base.n_still, self.base.precision, self.data.size,
            per_batch, memory_used(self.device), len(batches), self.recipe.epochs, epoch,
            epoch * self.recipe.epochs + ending,
        )  # fmt: skip
