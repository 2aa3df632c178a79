"""How a worker died, as whoever started it saw it: its successor tells the jobs' owners."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path

log = logging.getLogger(__name__)

KILLED = (-9, 137)  # SIGKILL, as Python and as shells count it
CRASHED = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")


def note_death(lock: Path, pid: int, code: int, *, out_of_memory: bool = False) -> None:
    """Write down with which code a worker ended, beside its lock."""
    if code == 0:
        return
    facts = {"pid": pid, "code": code, "out_of_memory": out_of_memory}
    try:
        _file(lock).write_text(json.dumps(facts), encoding="ascii")
    except OSError:
        log.warning("could not note how the worker ended", exc_info=True)


def death_of(lock: Path, pid: int) -> str:
    """Return a sentence on how this process ended; empty when nobody saw it."""
    try:
        facts = json.loads(_file(lock).read_text(encoding="ascii"))
        if facts["pid"] != pid:
            return ""
        return in_words(int(facts["code"]), out_of_memory=bool(facts["out_of_memory"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def in_words(code: int, *, out_of_memory: bool = False) -> str:
    """Return what an exit code means."""
    if out_of_memory:
        return "The system ended the worker because memory ran out."
    if code in KILLED:
        return "The worker was killed (signal 9), which the system does when memory runs out."
    if code < 0 and _name(-code) in CRASHED:
        return f"The worker crashed in a library ({_name(-code)})."
    return f"The worker ended unexpectedly ({_name(-code) if code < 0 else f'code {code}'})."


def oom_kills() -> int:
    """Return how many processes of our control group were ended for want of memory; 0 if unknown.

    The kernel counts them in `memory.events` (Linux, control groups version 2).
    """
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").split("::", 1)[1].split("\n")[0]
        events = Path("/sys/fs/cgroup") / own.lstrip("/") / "memory.events"
        rows = (line.split() for line in events.read_text(encoding="ascii").splitlines())
        return next((int(row[1]) for row in rows if row[0] == "oom_kill"), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _file(lock: Path) -> Path:
    return lock.with_suffix(".death")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
