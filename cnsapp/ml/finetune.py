"""Fine-tuning: the whole network learns, from the quick model on, epoch by epoch.

`fit` reads top-down: `fit` -> `Finetuner.run_epoch` -> `step`. An epoch ends with a checkpoint, and
every random draw follows from (seed, epoch, batch), so that a run that is interrupted anywhere goes
on to the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cnsapp.domain.recipe import Recipe
from cnsapp.ml.device import Device
from cnsapp.ml.finetune_types import BatchReport, EpochRecord, FitData, SelfTest
from cnsapp.ml.finetuned import FittedNetwork
from cnsapp.ml.heads import LinearHead

__all__ = [
    "BatchReport",
    "EpochRecord",
    "Finetuner",
    "FitData",
    "FittedNetwork",
    "SelfTest",
    "fit",
]  # fmt: skip


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
        Of this run's checkpoints; made if need be, and emptied by `forget`.
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
        raise NotImplementedError

    def self_test(self) -> SelfTest:
        """Learn one batch and forget it: is the loss finite, how long and how large is it?"""
        raise NotImplementedError

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
        raise NotImplementedError

    def is_over(self, records: Sequence[EpochRecord]) -> bool:
        """Say whether all epochs are done, or `patience` of them brought nothing better."""
        raise NotImplementedError

    def finish(self, records: Sequence[EpochRecord]) -> FittedNetwork:
        """Return the network of the best epoch, calibrated on the validation images."""
        raise NotImplementedError

    def forget(self) -> None:
        """Delete this run's checkpoints: the model is stored, or the run was cancelled."""
        raise NotImplementedError


def fit(tuner: Finetuner) -> tuple[FittedNetwork, list[EpochRecord]]:
    """Run all epochs and return the network with their records, epoch 0 first."""
    records = [tuner.run_epoch(0)]
    while not tuner.is_over(records):
        records.append(tuner.run_epoch(len(records)))
    return tuner.finish(records), records
