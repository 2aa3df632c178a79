"""Run one job to its end, whatever that is, and say honestly how it ended."""

from __future__ import annotations

import errno
import gc
import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, CnsError, Paused
from cnsapp.jobs import states
from cnsapp.jobs.context import JobContext, Pulse, StepRunner, as_json, run_directly
from cnsapp.jobs.registry import load_task, title_of

log = logging.getLogger(__name__)
PAUSED = "paused"


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `paused` is no end: it waits, and goes on later."""

    state: str
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict)


class Running:
    """The jobs that this process works on now."""

    def __init__(self) -> None:
        self._ids: set[int] = set()
        self._lock = threading.Lock()

    def add(self, job_id: int) -> bool:
        """Note a job; return False when it is being worked on already."""
        with self._lock:
            if job_id in self._ids:
                return False
            self._ids.add(job_id)
            return True

    def remove(self, job_id: int) -> None:
        """Forget a job."""
        with self._lock:
            self._ids.discard(job_id)

    def ids(self) -> set[int]:
        """Return the jobs that are being worked on."""
        with self._lock:
            return set(self._ids)


def run_job(
    app: App,
    job_id: int,
    worker_id: str,
    run_step: StepRunner = run_directly,
    running: Running | None = None,
) -> bool:
    """Take a queued job, run its task, and store how it ended. A job that is not queued is left.

    Returns False when the job is paused, so that its finished steps must be remembered.
    """
    running = running or Running()
    if not running.add(job_id):
        return True
    try:
        begun = states.begin(app.store, job_id, worker_id)
        if begun is None:
            return not states.is_paused(app.store, job_id)
        log.info("job %s (%s) begins", job_id, begun.kind)
        job = JobContext(
            app.store,
            job_id=job_id,
            project_id=begun.project_id,
            payload=begun.payload,
            worker_id=worker_id,
            run_step=run_step,
            reached=begun.progress,
        )
        with Pulse(job, app.settings.heartbeat_seconds):
            outcome = _attempt(app, job, begun.kind)
            _free_gpu_memory()
        _store_outcome(app, job_id, worker_id, outcome)
        log.info("job %s (%s) is %s", job_id, begun.kind, outcome.state)
        return outcome.state != PAUSED
    finally:
        running.remove(job_id)


def _attempt(app: App, job: JobContext, kind: str) -> Outcome:
    try:
        job.check_cancelled()
        return Outcome("done", result=as_json(load_task(kind)(app, job) or {}))
    except Cancelled as stopped:
        return Outcome("cancelled", result=as_json(stopped.result))
    except Paused:
        return Outcome(PAUSED)
    except CnsError as error:
        log.info("job %s cannot be done: %s", job.id, error)
        return Outcome("failed", error=str(error))
    except (Exception, SystemExit) as error:
        log.exception("job %s (%s) failed", job.id, kind)
        return Outcome("failed", error=in_words(kind, error))


def in_words(kind: str, error: BaseException) -> str:
    """Return a sentence for an error that is not written for users."""
    title = title_of(kind)
    if _is_out_of_memory(error):
        return (
            f"“{title}” needed more memory than this computer has free. Close other programs or "
            "choose less at a time, then start it again."
        )
    if _is_gpu_failure(error):
        return (
            f"The GPU stopped answering while “{title}” worked on it ({_first_line(error)}). What "
            "was finished is kept: start it again, and it goes on. If it happens again, restart "
            "the app, or train with device=cpu, which is slower."
        )
    if "No space left" in str(error) or getattr(error, "errno", None) == errno.ENOSPC:
        return (
            f"“{title}” stopped because the disk is full. Make room in the data folder's disk, "
            "then start it again."
        )
    if type(error).__name__ == "DBOSUnexpectedStepError":
        return (
            f"“{title}” was begun by another version of the app and cannot go on in this one. "
            "Start it again."
        )
    return (
        f"“{title}” stopped because of an unexpected error ({type(error).__name__}). "
        "Start it again; if it happens again, see logs/worker.log in the data folder."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    return (
        bool(names & {"MemoryError", "OutOfMemoryError"})
        or "can't allocate memory" in text
        or "CUDA out of memory" in text
        or getattr(error, "errno", None) == errno.ENOMEM
    )


def _is_gpu_failure(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "CUDA error" in text or "CUDNN_STATUS" in text or "CUBLAS_STATUS" in text
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _store_outcome(app: App, job_id: int, worker_id: str, outcome: Outcome) -> None:
    wait = 0.5
    while True:  # hours of work must not be lost to a database that is busy or full for a while
        try:
            if outcome.state == PAUSED:
                states.put_back(app.store, job_id, worker_id)
                return
            states.finish(
                app.store,
                job_id,
                worker_id,
                outcome.state,
                result=outcome.result,
                error=outcome.error,
            )
            return
        except SQLAlchemyError:
            log.warning("job %s: could not store its end, trying again", job_id, exc_info=True)
            time.sleep(wait)
            wait = min(wait * 2, 30.0)


def _free_gpu_memory() -> None:
    torch: Any = sys.modules.get("torch")  # never imported here, and maybe half imported elsewhere
    cuda: Any = getattr(torch, "cuda", None)
    try:
        if cuda is not None and cuda.is_initialized():
            gc.collect()
            cuda.empty_cache()
    except Exception:  # the driver may be what failed; the job's own outcome matters more
        log.warning("could not free the GPU's memory", exc_info=True)


def run_here(app: App, job_id: int) -> None:
    """Run a queued job in this process, without the worker: for tests and for small tools."""
    run_job(app, job_id, worker_id="here")
