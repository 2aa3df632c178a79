"""Where the network runs and in which number format: one decision, made once, said in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch

from cnsapp.errors import CnsError

CPU_MICRO_BATCH = 4
"""Images a forward pass on a CPU. The early 112 x 112 maps of four images stay in the cache: 1.7 to
1.9 times the images a second of batches of 32 (EfficientNet-Lite0, one and two threads)."""


@dataclass(frozen=True)
class Device:
    """A torch device with what makes it fast.

    Attributes
    ----------
    name
        `cpu`, `mps` or `cuda:N`.
    autocast
        Reduced precision for forward passes, or None for float32.
    batch_size
        Images a forward pass.
    """

    name: str
    autocast: torch.dtype | None
    batch_size: int

    @property
    def torch(self) -> torch.device:
        """The device as torch knows it."""
        return torch.device(self.name)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Forward passes without gradients, in the device's fastest sound precision."""
        with torch.inference_mode():
            if self.autocast is None:
                yield
            else:
                with torch.autocast(self.torch.type, dtype=self.autocast):
                    yield


@cache
def cpu_has_bf16() -> bool:
    """Say whether this CPU computes bfloat16 in hardware (emulated, it is 14 times slower)."""
    try:
        return bool(
            torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
        )
    except (AttributeError, RuntimeError):  # private names: absent in another torch
        return False


@cache
def cpu_threads() -> int:
    """Return how many threads torch was given, before any of them was bound to one batch."""
    return torch.get_num_threads()


def choose_device(wish: str = "auto") -> Device:
    """Return the device to run on: CUDA before MPS before CPU.

    Parameters
    ----------
    wish
        `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.

    Raises
    ------
    CnsError
        The wished device does not exist here.
    """
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
        if wish == "cpu" and torch.backends.mps.is_available():
            wish = "mps"
    if wish.startswith("cuda"):
        number = wish.partition(":")[2] or "0"
        index = int(number) if number.isdecimal() else -1
        if not torch.cuda.is_available() or not 0 <= index < torch.cuda.device_count():
            raise CnsError(
                f"The GPU {wish!r} is not there.",
                f"This machine has {torch.cuda.device_count()} usable CUDA GPU(s).",
                "Set CNS_DEVICE, or the worker's --device, to auto or cpu.",
            )
        return Device(f"cuda:{index}", torch.bfloat16, 128)
    if wish == "mps" and torch.backends.mps.is_available():
        return Device("mps", None, 64)
    if wish == "cpu":
        return Device("cpu", torch.bfloat16 if cpu_has_bf16() else None, CPU_MICRO_BATCH)
    raise CnsError(
        f"The device {wish!r} is not available here.",
        "",
        "Set CNS_DEVICE, or the worker's --device, to auto, cpu, mps or cuda:N.",
    )


def describe_device(device: Device) -> str:
    """Return one sentence for people: which device, how many threads, which precision."""
    precision = "32-bit floats" if device.autocast is None else "bfloat16"
    if device.name.startswith("cuda"):
        title = torch.cuda.get_device_name(device.torch)
        return f"GPU {device.name.partition(':')[2]} ({title}), {precision}."
    if device.name == "mps":
        return f"Apple GPU, {precision}."
    threads, cores = cpu_threads(), os.cpu_count() or 1
    return f"CPU, {threads} of {cores} cores, {precision}."
