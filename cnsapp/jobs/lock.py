"""One worker a data folder, computer and device: a lock that the system frees when we die."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from pathlib import Path
from typing import BinaryIO

_LOCKED_BYTE = 1 << 20  # Windows forbids others to read what is locked; the number stays readable


def host_name() -> str:
    """Return what this computer is called."""
    return platform.node() or "localhost"


def slug(text: str) -> str:
    """Return text that is safe in a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-") or "x"


def device_meant(wish: str) -> str:
    """Return the device that a wish most likely leads to, without loading torch for it.

    Two workers with the wishes `auto` and `cuda:0` would share one GPU and its memory.
    """
    if wish == "cuda":
        return "cuda:0"
    if wish != "auto":
        return wish
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not hidden and (Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi")):
        return "cuda:0"
    return "mps" if (sys.platform, platform.machine()) == ("darwin", "arm64") else "cpu"


class WorkerLock:
    """The lock of one worker. It holds for the life of the process, however that ends.

    POSIX record locks are used where they exist: a forked child (a data loader) does not inherit
    them, so it cannot keep the lock of a killed worker.
    """

    def __init__(self, root: Path, device: str) -> None:
        self.path = root / f"worker-{slug(host_name())}-{slug(device_meant(device))}.lock"
        self._file: BinaryIO | None = None

    def acquire(self) -> bool:
        """Take the lock; return False when another process has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        file = self.path.open("r+b")
        if not _lock_patiently(file):
            file.close()
            return False
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def is_held_by_another(self) -> bool:
        """Say whether another process has the lock now."""
        if not self.path.exists():
            return False
        with self.path.open("r+b") as file:
            try:
                _lock(file)
            except OSError:
                return True
            return False

    def holder(self) -> str:
        """Return the process number that the holder wrote down, for a message."""
        try:
            return self.path.read_text(encoding="ascii", errors="replace").strip() or "?"
        except OSError:
            return "?"


def _lock_patiently(file: BinaryIO) -> bool:
    for _ in range(4):  # someone who only asks whether it is held has it for a moment
        try:
            _lock(file)
            return True
        except OSError:
            time.sleep(0.1)
    return False


if sys.platform == "win32":
    import ctypes
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            file.seek(0)

    def be_nice() -> None:
        """Let the web process go first."""
        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), 0x4000)  # BELOW_NORMAL

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def be_nice() -> None:
        """Let the web process go first: labelling stays quick while a model trains."""
        try:
            os.setpriority(os.PRIO_PROCESS, 0, max(10, os.getpriority(os.PRIO_PROCESS, 0)))
        except OSError:
            pass  # a container may forbid it; the work goes on at the usual priority
