"""What goes into fine-tuning and what comes out of it, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import CnsError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FitData:
    """What a network learns from.

    Attributes
    ----------
    pixels
        (N, S, S, 3) uint8, decoded once (`cnsapp.ml.decoded`); may be a memory map.
    labels
        (N,) 0 to K - 1.
    train, validation
        Row numbers. The validation rows choose the epoch and the temperature: they must share no
        group with the training rows, nor with what the network is scored on.
    class_ids, class_names
        (K,) in the order of the labels.
    units
        (N,) images of one group (a patient, a slide) have the same number
        (`cnsapp.domain.together.units_of`); None where there are no groups.
    """

    pixels: NDArray[np.uint8]
    labels: Ints
    train: Ints
    validation: Ints
    class_ids: list[int]
    class_names: list[str]
    units: Ints | None = None

    @property
    def n_independent(self) -> int:
        """How many independent samples there are to learn from: groups, or images without them."""
        return len(self.train if self.units is None else np.unique(self.units[self.train]))

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.class_ids)

    @property
    def size(self) -> int:
        """Side of the pictures, in pixels."""
        return int(self.pixels.shape[1])

    def check(self) -> None:
        """Raise CnsError when there is nothing to learn from, or nothing to choose by."""
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[1:] != (self.size,) * 2 + (3,):
            raise ValueError(f"pixels are {self.pixels.dtype} {shape}, not uint8 (N, S, S, 3)")
        if len(self.labels) != shape[0] or len(self.class_names) != self.n_classes:
            raise ValueError(f"{len(self.labels)} labels for {shape[0]} pictures")
        if set(self.train.tolist()) & set(self.validation.tolist()):
            raise ValueError("a picture is in training and validation at once")
        present = np.unique(self.labels[self.train])
        if len(self.train) < 4 or len(present) < 2:
            raise CnsError(
                f"There are {len(self.train)} images of {len(present)} class(es) to learn from.",
                "A network is fine-tuned on at least 4 images of at least 2 classes.",
                "Label more images, lower the validation share, or use the quick model.",
            )
        if len(self.validation) == 0:
            raise CnsError(
                "No image is left to choose the best epoch by.",
                "Without validation images the network would be chosen on what it has learnt.",
                "Label more images or groups, raise the validation share, or use the quick model.",
            )


@dataclass(frozen=True)
class BatchReport:
    """How an epoch goes, after every batch.

    Attributes
    ----------
    epoch, batch, n_batches
        1-based, and how many batches the epoch has.
    loss
        Of this batch.
    images_per_second
        So far in this epoch.
    learning_rate
        Of the head, now.
    """

    epoch: int
    batch: int
    n_batches: int
    loss: float
    images_per_second: float
    learning_rate: float


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch came to; plain numbers, so that it can be stored as JSON.

    Attributes
    ----------
    epoch
        0 is the start, before anything was learnt.
    train_loss, train_balanced_accuracy
        Over the changed images as they went by; None for epoch 0.
    validation_loss, validation_balanced_accuracy
        Of the averaged (EMA) weights; the second is None when no class can be scored.
    learning_rate
        The head's at the end of the epoch.
    seconds, images_per_second
        Of this epoch; training images a second.
    batch_size
        After any halving.
    notes
        What a reader of the log must know: memory ran out, a loss was not finite.
    """

    epoch: int
    train_loss: float | None
    train_balanced_accuracy: float | None
    validation_loss: float
    validation_balanced_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float
    batch_size: int
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EpochRecord:
        """Return the record of `as_json`; fields of a newer version are left out."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        return cls(**known)


@dataclass(frozen=True)
class SelfTest:
    """One batch, forward and backward, on the user's own images.

    Attributes
    ----------
    loss
        Of that batch; finite.
    batch_size, frozen_stages, precision, image_size
        As the run will use them.
    seconds_per_batch
        Median of the batches tried, after one to warm up.
    memory_bytes
        Most memory of the device while trying (GPU), or of this process (CPU); None when unknown.
    batches_per_epoch, n_epochs
        Of the run; early stopping may end sooner.
    seconds_per_epoch, seconds_total
        Estimate on this machine as busy as it is now, validation included.
    """

    loss: float
    batch_size: int
    frozen_stages: int
    precision: str
    image_size: int
    seconds_per_batch: float
    memory_bytes: int | None
    batches_per_epoch: int
    n_epochs: int
    seconds_per_epoch: float
    seconds_total: float

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
