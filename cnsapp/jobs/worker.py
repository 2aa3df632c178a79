"""The worker process: takes queued jobs, hands them to the durable queue, runs them.

It belongs to the app that started it, but finishes what was asked for when that app is gone: it
ends by itself only when its parent has gone and no job waits or runs. An app that is started
meanwhile finds the lock held and lets it work. Told to stop (SIGTERM), it puts its jobs back.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from cnsapp.bootstrap import App, open_app
from cnsapp.errors import CnsError
from cnsapp.jobs import states
from cnsapp.jobs.deaths import death_of
from cnsapp.jobs.lock import WorkerLock, be_nice, host_name, slug
from cnsapp.jobs.registry import (
    all_kinds,
    import_light_tasks,
    importing,
    load_warm_up,
    load_watcher,
)
from cnsapp.jobs.running import Running, run_job
from cnsapp.processes import process_alive
from cnsapp.settings import Settings, read_settings
from db.models import Job, WatchedFolder
from db.models import Worker as WorkerRow
from db.types import utc_now

log = logging.getLogger("cnsapp.worker")

DONE, FAILED, ALREADY_RUNS, CANNOT_START = 0, 1, 75, 78  # exit codes, as in sysexits.h
DISPATCH_SECONDS = 0.1
CHECK_SECONDS = 1.0
WARM_UP_SECONDS = 1.0  # jobs that waited for this worker come first
SURE_SECONDS = 5.0  # between two checks that a waiting job still has its workflow


def main(
    settings: Settings | None = None,
    device: str | None = None,
    until_job: int | None = None,
    parent: int | None = None,
    on_start: Callable[[Settings], None] | None = None,
) -> int:
    """Be a worker until told to stop.

    Parameters
    ----------
    device
        auto, cpu, cuda:N or mps; the setting when None.
    until_job
        End (with 0) as soon as this job has ended.
    parent
        Process to which this worker belongs: without it, it ends when no job is left.
    on_start
        Called once the worker has its data folder.

    Returns
    -------
    int
        75 when a worker for this folder and device runs already, 78 when the settings or the data
        folder cannot be used. A worker that did start does not return: it ends the process (0, or 1
        after an error that is in the log), because a task's threads must not keep it alive.
    """
    try:
        settings = settings or read_settings()
    except CnsError as error:
        _say(str(error))
        return CANNOT_START
    settings = settings.model_copy(update={"device": device or settings.device})
    lock = WorkerLock(settings.root, settings.device)
    try:
        free = lock.acquire()
    except OSError as error:
        _say(f"The data folder {settings.root} cannot be written: {error.strerror}.")
        return CANNOT_START
    if not free:
        _say(
            f"A worker for {settings.root} and device {settings.device} runs already "
            f"(process {lock.holder()}). One is enough: it takes every job."
        )
        return ALREADY_RUNS
    try:
        app = open_app(settings)
    except CnsError as error:
        _say(str(error))
        lock.release()
        return CANNOT_START
    _log_to(settings.root / "logs" / "worker.log")
    _prepare_process(settings)
    if on_start is not None:
        on_start(settings)
    try:
        code = Worker(app, until_job, parent).serve()
    except Exception:
        log.exception("the worker cannot go on")
        code = FAILED
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Worker:
    """One worker: the loop that dispatches, watches and cleans up."""

    def __init__(self, app: App, until_job: int | None = None, parent: int | None = None) -> None:
        root = zlib.crc32(str(app.settings.root).encode())
        self.id = f"{slug(host_name())[:60]}-{slug(app.settings.device)[:30]}-{root:08x}"
        self.app = app
        self.device = app.settings.device
        self.running = Running()
        self._until_job = until_job
        self._parent = parent
        self._parent_is_ours = hasattr(os, "getppid") and os.getppid() == parent
        self._stop = threading.Event()
        self._started_at = utc_now()
        self._has_waiting = True  # until the first look
        self._handed: dict[int, float] = {}  # job -> when we last made sure of its workflow

    def serve(self) -> int:
        """Work until stopped, until the one job has ended, or until nobody needs us."""
        from cnsapp.jobs import engine  # DBOS; half a second that a refused worker need not spend

        self._stop_on_signals()
        states.release(self.app.store, self.id, kind_stop=False, why=self._how_it_died())
        self._beat()
        self._engine = engine.Engine(
            self.app.settings,
            self.id,
            lambda job_id: run_job(self.app, job_id, self.id, engine.run_step, self.running),
        )
        self._engine.start()
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        if self._until_job is None:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()
        log.info("worker %s serves %s (process %s)", self.id, self.app.settings.root, os.getpid())
        self._loop()
        self._leave()
        return DONE

    def _how_it_died(self) -> str:
        """Return how the worker before this one ended, where it left jobs and somebody saw it."""
        lock = WorkerLock(self.app.settings.root, self.device).path
        with self.app.store.reading() as session:
            pid = session.scalar(select(WorkerRow.pid).where(WorkerRow.id == self.id))
        return death_of(lock, pid) if pid is not None else ""

    def _loop(self) -> None:
        next_check = 0.0
        while not self._stop.wait(DISPATCH_SECONDS):
            try:
                self._dispatch()
                if time.monotonic() >= next_check:
                    next_check = time.monotonic() + CHECK_SECONDS
                    self._take_over_orphans()
                    if self._is_no_longer_needed():
                        return
            except Exception:  # a busy or full database must not end the worker
                log.exception("the worker's loop stumbled and goes on")
                self._stop.wait(1.0)

    def _dispatch(self) -> None:
        with self.app.store.reading() as session:
            waiting = session.execute(
                select(Job.id, Job.kind, Job.created_at)
                .where(Job.state == "queued", Job.paused.is_(False))
                .order_by(Job.id)
                .limit(200)
            ).all()
        self._has_waiting = bool(waiting)
        now = time.monotonic()
        kinds = all_kinds()
        for job_id, kind, created_at in waiting:
            if now - self._handed.get(job_id, -SURE_SECONDS) < SURE_SECONDS:
                continue
            queue = kinds[kind].queue if kind in kinds else "quick"  # it fails there, in words
            sure = self._engine.hand_over(job_id, created_at, queue, self._is_alive)
            self._handed[job_id] = now if sure else now - SURE_SECONDS + CHECK_SECONDS
        if not waiting:
            self._handed.clear()

    def _take_over_orphans(self) -> None:
        """Put jobs back into the queue whose worker is dead, or which we lost ourselves."""
        with self.app.store.reading() as session:
            held = session.execute(
                select(Job.worker_id, Job.id).where(Job.state == "running")
            ).all()
            living = states.living_workers(session, self.app.settings.dead_after_seconds)
        working_on = self.running.ids()
        if any(owner == self.id and job_id not in working_on for owner, job_id in held):
            states.release(self.app.store, self.id, but=self.running.ids(), kind_stop=False)
        for owner in {row.worker_id or "" for row in held} - set(living) - {self.id}:
            if states.release(self.app.store, owner, kind_stop=False):
                log.warning("took the jobs of worker %s, which is dead, back", owner)
                self._engine.left_by.add(owner)
                self._handed.clear()

    def _is_alive(self, worker_id: str) -> bool:
        with self.app.store.reading() as session:
            living = states.living_workers(session, self.app.settings.dead_after_seconds)
        return worker_id in living

    def _is_no_longer_needed(self) -> bool:
        if self._until_job is not None:
            return not states.must_go_on(self.app.store, self._until_job) and (
                self._until_job not in self.running.ids()
            )
        if self._parent is None or not self._parent_is_gone():
            return False
        return not states.must_go_on(self.app.store) and not self.running.ids()

    def _parent_is_gone(self) -> bool:
        if self._parent_is_ours:
            return os.getppid() != self._parent  # sure, even if the number is used again
        return not process_alive(self._parent or 0)

    def _beat(self) -> None:
        states.beat(self.app.store, self.id, self.device, os.getpid(), self._started_at)

    def _keep_beating(self) -> None:
        while not self._stop.wait(self.app.settings.heartbeat_seconds):
            try:
                self._beat()
            except SQLAlchemyError:
                log.warning("heartbeat not written", exc_info=True)

    def _watch(self) -> None:
        """Look at the watched folders, again and again."""
        watcher = None
        while not self._stop.wait(self.app.settings.watch_seconds / 2):
            try:
                if not self._has_watched():
                    continue
                watcher = watcher or load_watcher()(self.app)
                watcher.look(self._stop.is_set)
            except Exception:
                log.exception("a look at the watched folders failed; the next one follows")

    def _has_watched(self) -> bool:
        with self.app.store.reading() as session:
            any_active = select(WatchedFolder.id).where(WatchedFolder.active.is_(True)).limit(1)
            return session.scalar(any_active) is not None

    def _warm_up(self) -> None:
        """Import, while idle, what the first job would wait for; learn the device's name."""
        while not self._stop.wait(WARM_UP_SECONDS):
            with importing:
                if self._has_waiting or self.running.ids():
                    continue  # jobs come first; a task may import more as it goes (`importing`)
                try:
                    import_light_tasks()
                    warm_up = load_warm_up()
                    if warm_up is not None:
                        self.device = str(warm_up(self.app) or self.device)[:200]
                except Exception:
                    log.exception("the warm-up failed; the first job will take longer")
                return

    def _stop_on_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: self._stop.set())

    def _leave(self) -> None:
        self._stop.set()
        try:
            left = states.release(self.app.store, self.id, kind_stop=True)
            states.forget_worker(self.app.store, self.id)
            log.info("worker %s ends; %s job(s) wait for the next one", self.id, left)
        except SQLAlchemyError:
            log.exception("worker %s ends without tidying up; the next one will", self.id)


def _prepare_process(settings: Settings) -> None:
    be_nice()
    faulthandler.enable()
    if settings.torch_threads:  # read when torch is imported, which no one has done yet
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(settings.torch_threads)


def _log_to(file: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(
        file, maxBytes=2_000_000, backupCount=3, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    queue_log = logging.getLogger("dbos")  # it would write to the console if it had no handler
    queue_log.addHandler(handler)
    queue_log.propagate = False


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


def _from_command_line() -> int:
    parser = argparse.ArgumentParser(prog="python -m cnsapp.jobs.worker", description=__doc__)
    parser.add_argument("--device")
    parser.add_argument("--until-job", type=int)
    parser.add_argument("--parent", type=int)
    given = parser.parse_args()
    return main(None, given.device, given.until_job, given.parent)


if __name__ == "__main__":
    sys.exit(_from_command_line())
