"""The life of a job row: queued, running, then done, failed or cancelled, which never change again.

Every change names the state (and worker) it starts from, so that of two processes one wins.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from cnsapp.jobs.lock import host_name
from cnsapp.jobs.registry import title_of
from cnsapp.processes import process_alive
from db.models import Job, JobPoint, Worker
from db.session import Store
from db.types import utc_now

ACTIVE = ("queued", "running")
DEATH = "death"  # in the result of a job that is not done: how its last worker ended
MAX_STARTS = 3  # starts without getting ahead, after which the job counts as what kills the worker


@dataclass(frozen=True)
class Begun:
    """A job that this worker has just taken."""

    id: int
    project_id: int | None
    kind: str
    payload: dict[str, Any]
    progress: float


def begin(store: Store, job_id: int, worker_id: str) -> Begun | None:
    """Take a queued job; return None when it is not queued (any more) or must not run."""
    with store.writing() as session:
        job = session.get(Job, job_id, with_for_update=True)
        if job is None or job.state != "queued":
            return None
        if job.paused and not job.cancel_requested:
            return None
        if job.cancel_requested:
            _end(job, "cancelled")
            return None
        if job.starts >= MAX_STARTS:
            _end(job, "failed", error=_kills_the_worker(job))
            return None
        now = utc_now()
        job.state, job.worker_id, job.starts = "running", worker_id, job.starts + 1
        job.started_at, job.heartbeat_at = job.started_at or now, now
        return Begun(job.id, job.project_id, job.kind, dict(job.payload), job.progress)


def _kills_the_worker(job: Job) -> str:
    where = f" (it had reported “{job.message}”)" if job.message else ""
    why = job.result.get(DEATH) or "Probably the computer ran out of memory."
    return (
        f"The worker was stopped {job.starts} times while it worked on “{title_of(job.kind)}”"
        f"{where}. {why} Close other programs or choose less at a time (fewer or smaller images, "
        "a smaller batch), then start it again; logs/worker.log may say more."
    )


def _end(job: Job, state: str, error: str | None = None) -> None:
    job.state, job.error, job.finished_at = state, error, utc_now()


def finish(
    store: Store,
    job_id: int,
    worker_id: str,
    state: str,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
) -> bool:
    """End a job that this worker runs; return False when it is not ours (any more)."""
    values: dict[str, Any] = {"state": state, "error": error, "finished_at": utc_now()}
    if state == "done":
        values["progress"] = 1.0
    if state == "done" or result:
        values["result"] = result or {}
    with store.writing() as session:
        return _changed(session, _mine(job_id, worker_id).values(**values))


def put_back(store: Store, job_id: int, worker_id: str) -> bool:
    """Let a job that was paused wait; return False when it is not ours (any more)."""
    with store.writing() as session:
        waits = _mine(job_id, worker_id).values(state="queued", worker_id=None, starts=0)
        return _changed(session, waits)


def must_go_on(store: Store, job_id: int | None = None) -> bool:
    """Say whether this job (or any) runs or waits for a worker; one that is paused does not."""
    going = select(Job.id).where(
        or_(Job.state == "running", and_(Job.state == "queued", Job.paused.is_(False)))
    )
    if job_id is not None:
        going = going.where(Job.id == job_id)
    with store.reading() as session:
        return session.scalar(going.limit(1)) is not None


def is_paused(store: Store, job_id: int) -> bool:
    """Say whether a job waits because it was paused."""
    with store.reading() as session:
        waits = select(Job.id).where(Job.id == job_id, Job.state == "queued", Job.paused.is_(True))
        return session.scalar(waits) is not None


def step_finished(store: Store, job_id: int, worker_id: str) -> None:
    """Note that the job got ahead, so that later starts are not held against it."""
    with store.writing() as session:
        session.execute(_mine(job_id, worker_id).values(starts=0))


def release(
    store: Store,
    worker_id: str,
    *,
    but: Collection[int] = (),
    kind_stop: bool,
    why: str = "",
) -> int:
    """Put the running jobs of a worker back into the queue; cancel those asked to stop.

    `kind_stop` says that the worker was told to stop: that start is not held against the job.
    `why` is how the worker ended, if that is known: the jobs' logs and last words tell it.
    """
    held = select(Job).where(Job.state == "running", Job.worker_id == worker_id, Job.id.not_in(but))
    n_back = 0
    with store.writing() as session:
        for job in session.scalars(held.with_for_update()):
            if job.cancel_requested:
                _end(job, "cancelled")
                continue
            n_back += 1
            job.state, job.worker_id = "queued", None
            if kind_stop:
                job.starts = max(job.starts - 1, 0)
            if why:
                job.result = {**job.result, DEATH: why}
                said = f"{why} The work goes on from what was finished."
                session.add(JobPoint(job_id=job.id, message=said, values={}))
    return n_back


def beat(store: Store, worker_id: str, device: str, pid: int, started_at: datetime) -> None:
    """Write the pulse of a worker."""
    with store.writing() as session:
        row = session.get(Worker, worker_id)
        if row is None:
            row = Worker(id=worker_id, host=host_name(), pid=pid, device=device)
            session.add(row)
        row.host, row.pid, row.device = host_name(), pid, device
        row.started_at, row.heartbeat_at = started_at, utc_now()


def forget_worker(store: Store, worker_id: str) -> None:
    """Remove the row of a worker that stops."""
    with store.writing() as session:
        session.execute(delete(Worker).where(Worker.id == worker_id))


def is_alive(worker: Worker, dead_after: float) -> bool:
    """Say whether a worker lives: a fresh pulse and, on this computer, a process."""
    if utc_now() - worker.heartbeat_at > timedelta(seconds=dead_after):
        return False
    return worker.host != host_name() or process_alive(worker.pid)


def living_workers(session: Session, dead_after: float) -> dict[str, Worker]:
    """Return the workers that live, by id."""
    return {w.id: w for w in session.scalars(select(Worker)) if is_alive(w, dead_after)}


def _mine(job_id: int, worker_id: str) -> Any:
    return update(Job).where(Job.id == job_id, Job.state == "running", Job.worker_id == worker_id)


def _changed(session: Session, statement: Any) -> bool:
    result: CursorResult[Any] = session.execute(statement)  # type: ignore[assignment]
    return result.rowcount > 0
