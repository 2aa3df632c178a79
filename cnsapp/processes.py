"""Does a process of this computer still run: asked by the worker's lock, and by the store."""

from __future__ import annotations

import psutil

NUMBERS_APART = 10.0  # seconds by which the clocks of a file and of a process may differ


def process_alive(pid: int, *, seen_at: float | None = None) -> bool:
    """Say whether a process of this computer runs (a dead child nobody waited for does not).

    Parameters
    ----------
    pid
        Its number.
    seen_at
        A moment, in seconds since 1970, at which it ran for certain: systems hand numbers out
        again, and a process that began later is another one.
    """
    if pid <= 0:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return seen_at is None or process.create_time() < seen_at + NUMBERS_APART
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True  # it is there, but not ours to look at
