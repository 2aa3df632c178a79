"""Which devices this computer has, asked of the system: the web process never loads torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from cnsapp.errors import InvalidInputError

ASK = ["--query-gpu=index,name,memory.total,memory.used", "--format=csv,noheader,nounits"]
SECONDS = 10.0  # after which a driver that hangs counts as none
MIB = 1024 * 1024
_WISH = re.compile(r"auto|cpu|mps|cuda|cuda:\d{1,2}")


@dataclass(frozen=True)
class Gpu:
    """A GPU: its number as in `cuda:N`, its name, and its memory in bytes."""

    index: int
    name: str
    memory: int
    used: int

    @property
    def id(self) -> str:
        """As a setting takes it."""
        return f"cuda:{self.index}"

    @property
    def in_words(self) -> str:
        """For a list to choose from."""
        return f"{self.name}, {self.used / 1e9:.1f} of {self.memory / 1e9:.0f} GB in use"


def list_gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs that programs here may use; empty when there is none."""
    program = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible in ("", "-1"):
        return []
    try:
        done = subprocess.run(
            [program, *ASK], capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    found = read_list(done.stdout)
    if visible is None:
        return found
    order = [int(part) for part in visible.split(",") if part.strip().isdecimal()]
    by_index = {gpu.index: gpu for gpu in found}
    shown = [by_index[i] for i in order if i in by_index]
    return [Gpu(n, gpu.name, gpu.memory, gpu.used) for n, gpu in enumerate(shown)] or found


def read_list(text: str) -> list[Gpu]:
    """Return the GPUs of what `nvidia-smi` printed; lines that are not understood are left out."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 4 or not all(cells[i].isdecimal() for i in (0, 2, 3)):
            continue
        found.append(Gpu(int(cells[0]), cells[1], int(cells[2]) * MIB, int(cells[3]) * MIB))
    return found


def check_wish(wish: str) -> None:
    """Raise InvalidInputError when a run cannot have the device that it wishes for."""
    if not _WISH.fullmatch(wish):
        raise InvalidInputError(
            f"There is no device “{wish}”.", "", "Use auto, cpu, mps, or cuda:0, cuda:1, …"
        )
    if not wish.startswith("cuda"):
        return
    gpus = list_gpus()
    index = int(wish.partition(":")[2] or 0)
    if index not in {gpu.index for gpu in gpus}:
        there = ", ".join(f"{gpu.id} ({gpu.name})" for gpu in gpus) or "none"
        raise InvalidInputError(
            f"The GPU {wish} is not there.",
            f"GPUs of this computer: {there}.",
            "Leave the setting device out, or use device=cpu, which is slower.",
        )
