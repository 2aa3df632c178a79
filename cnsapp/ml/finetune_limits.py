"""What a run does when a loss is not finite or memory runs out: step back, or say so."""

from __future__ import annotations

import gc
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from cnsapp.errors import CnsError
from cnsapp.ml.device import Device
from cnsapp.ml.finetune_plan import SMALLEST_BATCH

MOST_HALVINGS = 3
MOST_SETBACKS = 2


@dataclass
class Limits:
    """How far a run has stepped back; part of its checkpoints.

    Attributes
    ----------
    batch_size
        Images a step, after halving.
    rate_scale
        The learning rates are multiplied by this.
    halvings, setbacks
        How often memory ran out, and how often a loss was not finite.
    notes
        Sentences about it that the next record has not told yet.
    """

    batch_size: int
    rate_scale: float = 1.0
    halvings: int = 0
    setbacks: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def steps_back(self) -> int:
        """How often the run has stepped back."""
        return self.halvings + self.setbacks

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def tell(self) -> list[str]:
        """Return the notes, once."""
        told, self.notes = self.notes, []
        return told

    def set_back(self, epoch: int, loss: float, rate: float) -> None:
        """Halve the learning rate after a loss that is not finite; raise when it was too often."""
        if self.setbacks == MOST_SETBACKS:
            raise CnsError(
                f"In epoch {epoch} the loss became {loss} at a learning rate of {rate:.2g}, "
                "for the third time.",
                f"The rate had been halved {MOST_SETBACKS} times already; such a network answers "
                "nothing.",
                f"Set the learning rate to {rate / 10:.1g} or less, and the precision to float32; "
                "if it still happens, look for images that are one colour.",
            )
        self.setbacks += 1
        self.rate_scale /= 2
        self.notes.append(
            f"The loss became {loss} at a learning rate of {rate:.2g}: epoch {epoch} is done again "
            "with half the rate."
        )

    def halve(self, device: Device, image_size: int) -> None:
        """Halve the batch size when memory ran out; raise when it was too often or can not be."""
        gc.collect()
        if device.name.startswith("cuda"):
            torch.cuda.empty_cache()
        if self.halvings == MOST_HALVINGS or self.batch_size // 2 < SMALLEST_BATCH:
            place = "GPU memory" if device.name != "cpu" else "memory"
            raise CnsError(
                f"The {place} of {device.name} ran out with {self.batch_size} images of "
                f"{image_size} px a step.",
                f"The batch had been halved {self.halvings} times already.",
                "Choose a smaller image size, more frozen stages or a lighter backbone, or close "
                "other programs that use this memory.",
            )
        self.halvings += 1
        self.batch_size //= 2
        self.notes.append(f"Memory ran out: {self.batch_size} images a step from here on.")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()
    words = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(word in said for word in words)


def memory_used(device: Device) -> int | None:
    """Return the most bytes used so far: of the GPU, or of this process; None when unknown."""
    if device.name.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device.torch))
    if device.name != "cpu" or sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def room_for(device: Device, bytes_each: float, wish: int) -> int:
    """Return how many images a step the memory of a GPU has room for, halving from a wish."""
    if not device.name.startswith("cuda"):
        return wish
    free, _ = torch.cuda.mem_get_info(device.torch)
    size = wish
    while size // 2 >= SMALLEST_BATCH and size * bytes_each > 0.8 * free:
        size //= 2
    return size
