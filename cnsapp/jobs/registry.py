"""Which kinds of jobs there are, which task does each, and in which queue it waits."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from cnsapp.errors import InvalidInputError

WATCHER = "cnsapp.tasks.watching:Watcher"  # Watcher(app).look(should_stop): the watched folders
WARM_UP: str | None = "cnsapp.tasks.warmup:run"  # run(app) -> what the device is called
QUEUES = ("train", "quick", "files")  # one job of each runs at a time in a worker
EXTRA_KINDS = "CNS_EXTRA_KINDS"  # names a module with `KINDS` (and `WARM_UP`) of its own: for tests

# Two threads that import modules which need each other can be handed a half-made module (Python
# breaks the deadlock that way), so the warm-up and the first jobs import one after the other.
importing = threading.Lock()
IMPORT_SECONDS = 120.0  # a warm-up that hangs must not hold the jobs up for ever


@dataclass(frozen=True)
class JobKind:
    """One kind of job. `task` is "module:function", imported by the worker alone.

    The function is ``run(app: App, job: JobContext) -> dict``; what it returns is kept as JSON.
    It must be idempotent: after a killed worker it runs again, from its last finished step.
    """

    task: str
    queue: str
    title: str
    can_pause: bool = False  # it keeps what it has finished, and goes on from there


KINDS: dict[str, JobKind] = {
    "import": JobKind("cnsapp.tasks.importing:run", "files", "Import images"),
    "check_files": JobKind("cnsapp.tasks.files:check", "files", "Check the files"),
    "relink": JobKind("cnsapp.tasks.files:find_moved", "files", "Find moved files"),
    "demo": JobKind("cnsapp.tasks.demo:run", "files", "Make the demo project"),
    "reread": JobKind("cnsapp.tasks.reread:run", "files", "Read images again"),
    "features": JobKind("cnsapp.tasks.features:run", "train", "Compute image features"),
    "looks": JobKind("cnsapp.tasks.looks:run", "train", "Sort images by looks"),
    "suggest": JobKind("cnsapp.tasks.suggest:run", "quick", "Make suggestions"),
    "train": JobKind("cnsapp.tasks.train:run", "train", "Train a model", can_pause=True),
    "search": JobKind("cnsapp.tasks.search:run", "train", "Find the best model", can_pause=True),
    "controls": JobKind("cnsapp.tasks.controls:run", "train", "Check against simpler methods"),
    "audit": JobKind("cnsapp.tasks.audit:run", "files", "Look for what is wrong with the data"),
    "predict": JobKind("cnsapp.tasks.predict:run", "files", "Predict new images"),
    "export": JobKind("cnsapp.tasks.exporting:run", "files", "Export the labelled images"),
    "preview": JobKind("cnsapp.tasks.augment_preview:run", "quick", "Draw changed images"),
    "explain": JobKind("cnsapp.tasks.explain:run", "quick", "Explain a prediction"),
    "explain_many": JobKind("cnsapp.tasks.explain:run_many", "files", "Make saliency maps"),
}


def all_kinds() -> dict[str, JobKind]:
    """Return the built-in kinds and those of the module that `CNS_EXTRA_KINDS` names."""
    extra = _extra_module()
    return KINDS | cast(dict[str, JobKind], extra.KINDS) if extra else KINDS


def load_warm_up() -> Callable[..., Any] | None:
    """Return what a fresh worker runs while idle, or None when there is nothing to do."""
    name = getattr(_extra_module(), "WARM_UP", WARM_UP)
    return _import_function(name) if name else None


def load_watcher() -> Callable[..., Any]:
    """Import and return what looks at the watched folders. Only a worker calls this."""
    with importing:
        return _import_function(WATCHER)


def _extra_module() -> Any:
    extra = os.environ.get(EXTRA_KINDS)
    return importlib.import_module(extra) if extra else None


def get_kind(name: str) -> JobKind:
    """Return a kind; raise InvalidInputError when there is none of that name."""
    kinds = all_kinds()
    if name not in kinds:
        raise InvalidInputError(
            f"There is no kind of job called “{name}”.", f"There are: {', '.join(sorted(kinds))}."
        )
    return kinds[name]


def can_pause(name: str) -> bool:
    """Return whether a job of this kind may be paused while it runs."""
    kind = all_kinds().get(name)
    return kind is not None and kind.can_pause


def title_of(name: str) -> str:
    """Return what a kind is called on the screen, also when this version no longer knows it."""
    kind = all_kinds().get(name)
    return kind.title if kind else name


def load_task(name: str) -> Callable[..., dict[str, Any] | None]:
    """Import and return the function that does this kind of job. Only a worker calls this."""
    task = get_kind(name).task
    if _is_imported(task.partition(":")[0]):
        return _import_function(task)
    locked = importing.acquire(timeout=IMPORT_SECONDS)
    try:
        return _import_function(task)
    finally:
        if locked:
            importing.release()


def import_light_tasks() -> None:
    """Import the tasks that need no torch, so that they need not wait until that is imported."""
    for kind in all_kinds().values():
        if kind.queue == "files":
            _import_function(kind.task)


def _is_imported(module: str) -> bool:
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def _import_function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return cast(Callable[..., Any], getattr(importlib.import_module(module), function))
