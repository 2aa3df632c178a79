"""The durable queue (DBOS) behind the job rows. Only the worker process imports this module.

A job row is the truth; a workflow is how it gets done. The workflow's id is made from the row's id
and its time of creation, so that handing a row over twice makes one workflow, and a restored or new
database next to an old queue file never meets the workflow of another job with the same number.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError

from cnsapp.jobs.registry import QUEUES
from cnsapp.settings import Settings
from db.session import sqlite_driver

log = logging.getLogger(__name__)

APPLICATION_VERSION = "1"  # raise it only when unfinished jobs of older versions must not go on
WORKFLOW = "cnsapp.job"
POLLING_SECONDS = {"quick": 0.25, "train": 0.5, "files": 0.5}
KEEP = timedelta(days=7)
FINISHED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
PAUSED = "CANCELLED"  # what DBOS calls one that is set down: it keeps its steps and can go on

_run: Callable[[int], bool] | None = None


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)  # we count starts ourselves, per step
def _workflow(job_id: int) -> str:
    if _run is None:
        raise RuntimeError("the engine was not started")
    if _run(job_id):
        return "ran"
    _set_down(str(DBOS.workflow_id))
    return "paused"


def _set_down(workflow: str) -> None:
    """Mark a workflow cancelled: unlike one that has ended, it keeps its steps and can go on.

    From a thread of its own: inside the workflow the call would count as one of its steps, and
    the next start would find it in the place of an epoch.
    """
    thread = threading.Thread(target=DBOS.cancel_workflow, args=(workflow,))
    thread.start()
    thread.join()


def run_step(name: str, work: Callable[[], Any]) -> Any:
    """Run a step of the current workflow, or return what it gave before the worker was killed."""
    return DBOS.run_step({"name": name}, work)


def workflow_id(job_id: int, created_at: datetime) -> str:
    """Return the one workflow id of a job row."""
    return f"job-{job_id}-{int(created_at.astimezone(UTC).timestamp() * 1_000_000):x}"


class Engine:
    """DBOS, set up for one worker: its own stable executor id, JSON, no console, no ports."""

    def __init__(self, settings: Settings, worker_id: str, run: Callable[[int], bool]) -> None:
        global _run
        _run = run
        self.worker_id = worker_id
        self._settings = settings
        self.left_by: set[str] = set()  # workers whose running jobs this one has just taken back
        self._seen_pending: set[str] = set()

    def start(self) -> None:
        """Open the queue's database and begin to take work from the queues."""
        DBOS(config=self._config())
        DBOS.listen_queues(list(QUEUES))
        DBOS.launch()
        for name in QUEUES:
            DBOS.register_queue(
                name,
                worker_concurrency=1,
                polling_interval_sec=POLLING_SECONDS[name],
                on_conflict="always_update",
            )
        self._forget_old_workflows()

    def _forget_old_workflows(self) -> None:
        """Keep the queue's database small: what has ended is told by the job rows."""
        before = (datetime.now(UTC) - KEEP).isoformat()
        try:
            old = DBOS.list_workflows(
                status=[status for status in FINISHED if status != PAUSED],
                completed_before=before, limit=1000, load_input=False, load_output=False,
            )  # fmt: skip
            if old:
                DBOS.delete_workflows([workflow.workflow_id for workflow in old])
        except Exception:
            log.warning("could not clear old workflows away", exc_info=True)

    def hand_over(
        self, job_id: int, created_at: datetime, queue: str, is_alive: Callable[[str], bool]
    ) -> bool:
        """See to it that a queued job gets run, once; return False to be asked again soon."""
        name = workflow_id(job_id, created_at)
        found = DBOS.get_workflow_status(name)
        if found is not None and found.status == PAUSED:  # it is not paused any more
            DBOS.resume_workflow(name, queue_name=queue)
            return True
        if found is not None and found.status in FINISHED:
            # the row is queued all the same: it comes from a backup, or its end was never stored
            log.warning("job %s: its old workflow is %s; it starts anew", job_id, found.status)
            DBOS.delete_workflow(name)
            found = None
        if found is None:
            DBOS.enqueue_workflow_with_options(
                {
                    "workflow_name": WORKFLOW,
                    "queue_name": queue,
                    "workflow_id": name,
                    "app_version": APPLICATION_VERSION,
                },
                job_id,
            )
        elif found.status == "PENDING":
            return self._resume_if_left_behind(name, queue, str(found.executor_id), is_alive)
        return True

    def _resume_if_left_behind(
        self, name: str, queue: str, executor: str, is_alive: Callable[[str], bool]
    ) -> bool:
        if executor not in self.left_by and name not in self._seen_pending:
            # it begins just now, or DBOS or another worker is about to take it up: look again
            self._seen_pending.add(name)
            return False
        self._seen_pending.discard(name)
        self.left_by.discard(executor)
        if executor == self.worker_id or not is_alive(executor):
            log.warning("workflow %s was left behind by %s; it goes on here", name, executor)
            DBOS.resume_workflow(name, queue_name=queue)
        return True

    def _config(self) -> DBOSConfig:
        config: DBOSConfig = {
            "name": "cnsapp",
            "executor_id": self.worker_id,
            "application_version": APPLICATION_VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "enable_otlp": False,
            "use_listen_notify": False,
            "max_executor_threads": 16,
            "notification_listener_polling_interval_sec": 30.0,  # we use no DBOS events
            "scheduler_polling_interval_sec": 300.0,  # nor schedules
        }
        url = self._settings.database
        if make_url(url).get_backend_name() == "sqlite":
            file = self._settings.root / "jobs.sqlite"
            set_damaged_aside(file)
            url = f"sqlite:///{file.as_posix()}"
            config["system_database_engine"] = _sqlite_engine(url)
        config["system_database_url"] = url
        return config


def _sqlite_engine(url: str) -> SqlEngine:
    """Return an engine on the current SQLite: DBOS would take Python's own, which is often old."""
    engine = create_engine(
        url,
        module=sqlite_driver(),
        connect_args={"timeout": 30, "check_same_thread": False},
        pool_size=20,
        max_overflow=0,
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"  # as DBOS itself sets it: writers queue up
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL",
                       "foreign_keys=ON"):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")

    return engine


def set_damaged_aside(file: Path) -> None:
    """Rename a queue file that cannot be read: it is rebuilt from the job rows."""
    if not file.exists():
        return
    engine = create_engine(f"sqlite:///{file.as_posix()}", module=sqlite_driver())
    try:
        with engine.connect() as connection:
            sound = connection.execute(text("PRAGMA quick_check(1)")).scalar() == "ok"
    except DatabaseError as error:
        if "locked" in str(error):
            return
        sound = False
    finally:
        engine.dispose()
    if not sound:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        log.error("%s is damaged; it is set aside and made anew", file)
        for part in file.parent.glob(f"{file.name}*"):
            if ".damaged-" not in part.name:
                part.rename(part.with_name(f"{part.name}.damaged-{stamp}"))
