"""Kinds of jobs that only the tests know (named in `CNS_EXTRA_KINDS`)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.jobs.context import JobContext
from cnsapp.jobs.registry import JobKind

HERE = "tests.integration.jobs_kinds"
WARM_UP = None  # no torch, so that a dozen workers start quickly
KINDS = {
    "steps": JobKind(f"{HERE}:steps", "train", "Do steps", can_pause=True),
    "loop": JobKind(f"{HERE}:loop", "train", "Go round", can_pause=True),
    "note": JobKind(f"{HERE}:note", "quick", "Note the time"),
    "silent": JobKind(f"{HERE}:silent", "files", "Say nothing"),
    "fail": JobKind(f"{HERE}:fail", "quick", "Fail"),
    "die": JobKind(f"{HERE}:die", "quick", "Take the worker along"),
    "curve": JobKind(f"{HERE}:curve", "train", "Draw a curve"),
}


def note_down(app: App, name: str, line: str) -> None:
    """Append a line to a file, so that a test sees how often something was done."""
    with app.store.path(name).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def steps(app: App, job: JobContext) -> dict[str, Any]:
    """Do five durable steps; each notes when it has been done."""

    def one(i: int) -> int:
        for _ in range(int(job.payload.get("ticks", 6))):
            time.sleep(0.05)
            job.check_cancelled()
        note_down(app, "done.txt", str(i))
        return i * i

    squares = []
    for i in range(5):
        job.progress(i / 5, f"step {i}", i=i)
        squares.append(job.step(f"step {i}", one, i))
    return {"squares": squares}


def loop(app: App, job: JobContext) -> dict[str, Any]:
    """Go on until cancelled."""
    del app
    for i in range(6000):
        job.progress(i / 6000, f"round {i}")
        job.check_cancelled()
        time.sleep(0.01)
    return {}


def note(app: App, job: JobContext) -> dict[str, Any]:
    """Note that the job was done, and when it began."""
    note_down(app, "notes.txt", str(job.id))
    return {"began": time.time(), "path": Path("a") / "b"}


def silent(app: App, job: JobContext) -> dict[str, Any]:
    """Work without a word."""
    del app
    time.sleep(float(job.payload["seconds"]))
    return {}


def fail(app: App, job: JobContext) -> dict[str, Any]:
    """Fail in the way the payload names."""
    del app
    match job.payload["how"]:
        case "sentence":
            raise InvalidInputError("No image has a label.", remedy="Label some first.")
        case "step":
            job.step("wrong", _raise, "a secret detail")
        case "memory":
            raise MemoryError
        case "exit":
            sys.exit(3)
    return {}


def _raise(text: str) -> None:
    raise ValueError(text)


def die(app: App, job: JobContext) -> dict[str, Any]:
    """End the whole process as the system does when memory runs out."""
    note_down(app, "deaths.txt", str(job.id))
    job.progress(0.5, "reading a huge image")
    time.sleep(0.6)
    os._exit(137)


def curve(app: App, job: JobContext) -> dict[str, Any]:
    """Report figures faster than the database is written to."""
    del app
    for i in range(300):
        job.progress(i / 300, f"batch {i}", loss=1 / (i + 1), odd=float("nan"))
    return {"loss": float("inf")}
