"""Jobs as pages and commands see them: ask for one, look at it, stop it, wait for it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, defer

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError
from cnsapp.jobs.context import as_json
from cnsapp.jobs.deaths import oom_kills
from cnsapp.jobs.lock import WorkerLock
from cnsapp.jobs.registry import all_kinds, can_pause, get_kind, title_of
from cnsapp.jobs.states import ACTIVE, is_alive, living_workers
from cnsapp.jobs.supervisor import note_end, start_worker, stop_worker
from cnsapp.services.run_folders import remove_run_folder
from cnsapp.settings import Settings
from db.models import Job, JobPoint, Project, Worker
from db.session import Store
from db.types import utc_now

DEAD_AFTER = float(Settings.model_fields["dead_after_seconds"].default)
RESTART_TIME = timedelta(seconds=5)
# kinds that take up all there is when they begin: one that waits is enough
JOINED = ("features", "suggest")
WORKER_TRIES = 6  # a job may kill three workers before it is marked failed


@dataclass(frozen=True)
class JobView:
    """A job as pages and commands show it."""

    id: int
    project_id: int | None
    kind: str
    title: str
    state: str  # queued | running | done | failed | cancelled
    progress: float
    message: str
    error: str | None
    payload: dict[str, Any]
    result: dict[str, Any]  # empty in lists
    cancel_requested: bool
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    finished_at: datetime | None
    paused: bool = False  # the user's wish; it holds once the job is queued
    n_ahead: int = 0  # jobs that go first, of a queued one that is not paused

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ACTIVE

    @property
    def is_paused(self) -> bool:
        """Whether it waits until somebody lets it go on."""
        return self.paused and self.state == "queued"

    @property
    def can_pause(self) -> bool:
        """Whether it may be paused now."""
        return (
            self.is_active and not self.paused and not self.cancel_requested
            and can_pause(self.kind)
        )  # fmt: skip


@dataclass(frozen=True)
class JobPointView:
    """One line of a job's log, or one point of its curve."""

    id: int
    at: datetime
    message: str
    values: dict[str, Any]


@dataclass(frozen=True)
class WorkerView:
    """The worker that does the jobs."""

    alive: bool
    device: str
    since: datetime
    n_running: int
    host: str


def submit_job(
    store: Store,
    *,
    kind: str,
    project_id: int | None,
    payload: dict[str, Any] | None = None,
    requested_by: str = "",
) -> int:
    """Ask for a job in one transaction and return its id; a worker takes it within half a second.

    Raises
    ------
    InvalidInputError
        There is no such kind of job.
    NotFoundError
        There is no such project.
    """
    with store.writing() as session:
        return add_job(
            session,
            kind=kind,
            project_id=project_id,
            payload=payload,
            requested_by=requested_by,
        )


def add_job(
    session: Session,
    *,
    kind: str,
    project_id: int | None,
    payload: dict[str, Any] | None = None,
    requested_by: str = "",
) -> int:
    """Add a job in the caller's transaction, so that a check before it ("one at a time") holds.

    Of a kind in `JOINED` one that waits already, for the same project and with the same payload,
    is returned instead: it will do what is asked for, and a second one would find nothing to do.
    """
    get_kind(kind)
    if project_id is not None and session.get(Project, project_id) is None:
        raise NotFoundError(f"There is no project number {project_id}.")
    wanted = as_json(payload or {})
    if kind in JOINED:
        waiting = select(Job).where(
            Job.project_id == project_id,
            Job.kind == kind,
            Job.state == "queued",
            Job.cancel_requested.is_(False),
        )
        for job in session.scalars(waiting.order_by(Job.id)):
            if job.payload == wanted:
                return job.id
    job = Job(kind=kind, project_id=project_id, payload=wanted, requested_by=requested_by)
    session.add(job)
    session.flush()
    return job.id


def get_job(store: Store, *, job_id: int) -> JobView:
    """Return a job; raise NotFoundError when there is none of that number."""
    with store.reading() as session:
        job = _row(session, job_id)
        return _view(job, places=_places(session, [job]))


def list_jobs(
    store: Store,
    *,
    project_id: int | None = None,
    active_only: bool = False,
    kinds: Collection[str] = (),
    but: Collection[str] = (),
    limit: int = 30,
) -> list[JobView]:
    """Return jobs, the newest first, without their results.

    Lists are read at every rerun of a page, and the result of one import may name thousands of
    skipped files: `result` is empty here, `get_job` has it.

    Parameters
    ----------
    kinds, but
        Only these kinds of job (empty: all), and none of those. They count before `limit`.
    """
    wanted = select(Job).options(defer(Job.result)).order_by(Job.id.desc()).limit(limit)
    if project_id is not None:
        wanted = wanted.where(Job.project_id == project_id)
    if active_only:
        wanted = wanted.where(Job.state.in_(ACTIVE))
    if kinds:
        wanted = wanted.where(Job.kind.in_(kinds))
    if but:
        wanted = wanted.where(Job.kind.not_in(but))
    with store.reading() as session:
        found = list(session.scalars(wanted))
        places = _places(session, found)
        return [_view(job, with_result=False, places=places) for job in found]


def cancel_job(store: Store, *, job_id: int, dead_after: float = DEAD_AFTER) -> JobView:
    """Ask a job to stop.

    A job that waits, or whose worker is dead, is cancelled at once; one that runs stops when its
    task next looks, usually within a second. A job that has ended is left as it is.
    """
    with store.writing() as session:
        job = _locked(session, job_id)
        if job.state in ACTIVE:
            job.cancel_requested = True
            if job.state == "queued" or not _is_worked_on(session, job, dead_after):
                job.state, job.finished_at = "cancelled", utc_now()
        found = _view(job)
    if found.state == "cancelled" and found.kind in ("train", "search"):
        remove_run_folder(store, job_id)  # of a paused run; one that is running does it itself
    return found


def pause_job(store: Store, *, job_id: int, dead_after: float = DEAD_AFTER) -> JobView:
    """Let a job wait until `resume_job`: a running one stops when its task next looks.

    It goes on from what it had finished (a training: its last epoch), also after a restart of the
    app. A job that has ended, or is being stopped, is left as it is.

    Raises
    ------
    InvalidInputError
        Jobs of this kind begin anew when they are stopped.
    """
    with store.writing() as session:
        job = _locked(session, job_id)
        if job.state in ACTIVE and not job.cancel_requested:
            if not can_pause(job.kind):
                raise InvalidInputError(
                    f"“{title_of(job.kind)}” (job {job_id}) cannot be paused.",
                    "It would have to begin anew.",
                    f"Let it run, or stop it: `cancel {job_id}`.",
                )
            job.paused = True
            if job.state == "running" and not _is_worked_on(session, job, dead_after):
                job.state, job.worker_id = "queued", None
        return _view(job)


def resume_job(store: Store, *, job_id: int) -> JobView:
    """Let a paused job go on, in its turn; one that is not paused is left as it is."""
    with store.writing() as session:
        job = _locked(session, job_id)
        if job.state in ACTIVE:
            job.paused = False
        return _view(job, places=_places(session, [job]))


def job_points(store: Store, *, job_id: int, after: int = 0) -> list[JobPointView]:
    """Return the points of a job's curve after the one with this id, the oldest first."""
    with store.reading() as session:
        points = session.scalars(
            select(JobPoint)
            .where(JobPoint.job_id == job_id, JobPoint.id > after)
            .order_by(JobPoint.id)
        )
        return [JobPointView(p.id, p.at, p.message, dict(p.values)) for p in points]


def worker_view(store: Store, *, settings: Settings) -> WorkerView | None:
    """Return the worker with the freshest pulse, or None when there never was one."""
    with store.reading() as session:
        worker = session.scalar(select(Worker).order_by(Worker.heartbeat_at.desc()).limit(1))
        if worker is None:
            return None
        n_running = session.scalar(
            select(func.count()).where(Job.state == "running", Job.worker_id == worker.id)
        )
        return WorkerView(
            alive=is_alive(worker, settings.dead_after_seconds),
            device=worker.device,
            since=worker.started_at,
            n_running=n_running or 0,
            host=worker.host,
        )


def wait_for_job(
    app: App,
    *,
    job_id: int,
    poll: float = 0.2,
    on_change: Callable[[JobView], None] | None = None,
) -> JobView:
    """Wait until a job has ended, or was paused, and return it.

    The worker that runs is used; where there is none, one is started that ends with the job.

    Raises
    ------
    CnsError
        A worker was started several times and ended each time before the job did.
    """
    own: subprocess.Popen[bytes] | None = None
    tries, last, kills = 0, None, oom_kills()
    try:
        while True:
            job = get_job(app.store, job_id=job_id)
            if on_change is not None and job != last:
                on_change(job)
            last = job
            if not job.is_active or job.is_paused:
                return job
            if _is_missing(own) and not _worker_exists(app, may_return=own is None):
                tries += 1
                if own is not None:
                    note_end(app.settings, own, kills)
                if tries > WORKER_TRIES:
                    raise CnsError(
                        "The worker ends before it can do anything.",
                        f"Job {job_id} still waits.",
                        f"See worker.log and worker-output.log in {app.store.path('logs')}.",
                    )
                own = start_worker(app.settings, "--until-job", str(job_id))
            time.sleep(poll)
    finally:
        if own is not None:
            stop_worker(own)  # it puts back what else it has begun


def _is_missing(own: subprocess.Popen[bytes] | None) -> bool:
    return own is None or own.poll() is not None


def _worker_exists(app: App, *, may_return: bool) -> bool:
    """Say whether a worker lives, or died so recently that its app is about to start another."""
    if WorkerLock(app.settings.root, app.settings.device).is_held_by_another():
        return True
    with app.store.reading() as session:
        if living_workers(session, app.settings.dead_after_seconds):
            return True
        last = session.scalar(select(func.max(Worker.heartbeat_at)))
    return may_return and last is not None and utc_now() - last < RESTART_TIME


def _is_worked_on(session: Session, job: Job, dead_after: float) -> bool:
    return job.worker_id in living_workers(session, dead_after)


def _row(session: Session, job_id: int) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise _no_such_job(job_id)
    return job


def _locked(session: Session, job_id: int) -> Job:
    job = session.get(Job, job_id, with_for_update=True)
    if job is None:
        raise _no_such_job(job_id)
    return job


def _places(session: Session, jobs: Sequence[Job]) -> dict[int, int]:
    """Return how many jobs of the same queue go before each of these that waits."""
    if not any(job.state == "queued" and not job.paused for job in jobs):
        return {}
    rows = session.execute(
        select(Job.id, Job.kind, Job.state)
        .where(Job.state.in_(ACTIVE), or_(Job.state == "running", Job.paused.is_(False)))
        .order_by(Job.state.desc(), Job.id)  # "running" goes before "queued"
    )
    kinds = all_kinds()
    places: dict[int, int] = {}
    of_queue: dict[str, int] = {}
    for job_id, kind, state in rows:
        queue = kinds[kind].queue if kind in kinds else "quick"
        if state == "queued":
            places[job_id] = of_queue.get(queue, 0)
        of_queue[queue] = of_queue.get(queue, 0) + 1
    return places


def _no_such_job(job_id: int) -> NotFoundError:
    return NotFoundError(
        f"There is no job number {job_id}.", remedy="`python -m cnsapp jobs` lists them."
    )


def _view(
    job: Job, *, with_result: bool = True, places: Mapping[int, int] | None = None
) -> JobView:
    return JobView(
        id=job.id,
        project_id=job.project_id,
        kind=job.kind,
        title=title_of(job.kind),
        state=job.state,
        progress=job.progress,
        message=job.message,
        error=job.error,
        payload=dict(job.payload),
        result=dict(job.result) if with_result else {},
        cancel_requested=job.cancel_requested,
        requested_by=job.requested_by,
        created_at=job.created_at,
        started_at=job.started_at,
        heartbeat_at=job.heartbeat_at,
        finished_at=job.finished_at,
        paused=job.paused,
        n_ahead=(places or {}).get(job.id, 0),
    )
