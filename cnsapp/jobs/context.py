"""What a task is handed: where to report to, how to notice that it should stop, durable steps."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from cnsapp.errors import Cancelled, Paused
from cnsapp.jobs import states
from db.models import Job, JobPoint
from db.session import Store
from db.types import utc_now

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.3  # between two looks at "cancel requested"
WRITE_SECONDS = 0.25  # between two writes of the progress
AHEAD = 0.02  # progress beyond an earlier start's that shows the job does not just die again
StepRunner = Callable[[str, Callable[[], Any]], Any]


class StepError(BaseException):
    """Carries an error past the queue, which would otherwise replay it after a restart."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


def run_directly(name: str, work: Callable[[], Any]) -> Any:
    """Run a step that nothing remembers (tests, and jobs that are run in this process)."""
    del name
    return work()


def as_json(value: Any) -> Any:
    """Return the value as plain JSON data: arrays as lists, paths as text, NaN as None."""
    return json.loads(json.dumps(_plain(value)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays and numbers of numpy and torch
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


class JobContext:
    """A running job as its task sees it.

    `progress` and `check_cancelled` cost microseconds and may be called for every batch; the
    database is written by a thread beside the task (see `Pulse`) and read three times a second.
    """

    def __init__(
        self,
        store: Store,
        *,
        job_id: int,
        project_id: int | None,
        payload: dict[str, Any],
        worker_id: str = "",
        run_step: StepRunner = run_directly,
        reached: float = 0.0,
    ) -> None:
        self.id = job_id
        self.project_id = project_id
        self.payload = payload
        self._store = store
        self._worker_id = worker_id
        self._run_step = run_step
        self._reached = reached  # by an earlier start; what is shown never goes back
        self._ahead_at = reached + AHEAD
        self._lock = threading.Lock()
        self._progress: tuple[float, str] | None = None
        self._points: list[dict[str, Any]] = []
        self._next_look = 0.0
        self._stop: type[Exception] | None = None
        self.is_unwanted = False  # it is to be stopped for good, not only taken over or paused

    def progress(self, fraction: float, message: str = "", **values: Any) -> None:
        """Report how far the work is (0 to 1), in words, and figures for the curve.

        Not for use inside a transaction of the task's own: it would hold the thread beside it up.
        """
        with self._lock:
            self._progress = (min(max(float(fraction), 0.0), 1.0), message)
            if values:
                self._points.append(
                    {"at": utc_now(), "message": message, "values": as_json(values)}
                )

    def point(self, message: str = "", **values: Any) -> None:
        """Add a line to the log, or a point to the curve, and leave the bar as it is."""
        with self._lock:
            self._points.append({"at": utc_now(), "message": message, "values": as_json(values)})

    def check_cancelled(self) -> None:
        """Raise Cancelled when the user asked to stop (or another worker has taken over).

        Raise Paused when the job was paused: what it has finished and kept is where it goes on.
        """
        now = time.monotonic()
        if self._stop is None and now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._stop = self._should_stop()
        if self._stop is not None:
            raise self._stop()

    def is_stopping(self) -> bool:
        """Say whether `check_cancelled` would raise, for code that asks rather than catches."""
        try:
            self.check_cancelled()
        except (Cancelled, Paused):
            return True
        return False

    def step(self, name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `fn` once and remember its JSON result: after a killed worker it is not repeated.

        Steps must come in the same order in every run of the job. An error is not remembered.
        """
        self.check_cancelled()
        ran = False

        def work() -> Any:
            nonlocal ran
            ran = True
            try:
                result = as_json(fn(*args, **kwargs))
            except Exception as error:
                raise StepError(error) from error
            self.flush()  # what it told: after a kill the step is not done, nor told, again
            return result

        try:
            value = self._run_step(name, work)
        except StepError as carried:
            raise carried.error from None
        if ran:
            self._note_step()
        return value

    def _note_step(self) -> None:
        try:
            states.step_finished(self._store, self.id, self._worker_id)
        except SQLAlchemyError:
            log.warning("job %s: could not note a finished step", self.id, exc_info=True)

    def _should_stop(self) -> type[Exception] | None:
        try:
            with self._store.reading() as session:
                row = session.execute(
                    select(Job.cancel_requested, Job.paused, Job.state, Job.worker_id).where(
                        Job.id == self.id
                    )
                ).one_or_none()
        except SQLAlchemyError:
            log.warning("job %s: could not look for a cancel request", self.id, exc_info=True)
            return None
        if row is None or row.cancel_requested:
            self.is_unwanted = True
            return Cancelled
        if row.state != "running" or (row.worker_id or "") != self._worker_id:
            return Cancelled
        return Paused if row.paused else None

    def has_news(self) -> bool:
        """Say whether there is progress that is not in the database yet."""
        return self._progress is not None or bool(self._points)

    def flush(self) -> None:
        """Write progress, points and heartbeat. A busy database costs nothing but a retry."""
        with self._lock:
            progress, points = self._progress, self._points
            self._progress, self._points = None, []
        values: dict[str, Any] = {"heartbeat_at": utc_now()}
        if progress is not None:
            fraction, message = progress
            self._reached = max(self._reached, fraction)
            values["progress"] = self._reached
            if message:
                values["message"] = message
            if fraction > self._ahead_at:
                values["starts"] = 1  # this start gets further than those before it
        try:
            with self._store.writing() as session:
                session.execute(
                    update(Job)
                    .where(
                        Job.id == self.id,
                        Job.state == "running",
                        Job.worker_id == self._worker_id,
                    )
                    .values(**values)
                )
                if points:
                    session.execute(insert(JobPoint), [p | {"job_id": self.id} for p in points])
        except SQLAlchemyError:
            log.warning("job %s: progress not written yet", self.id, exc_info=True)
            with self._lock:
                self._progress = self._progress or progress
                self._points = points + self._points


class Pulse:
    """The thread beside a task that writes its progress and heartbeat."""

    def __init__(self, job: JobContext, heartbeat_seconds: float) -> None:
        self._job = job
        self._heartbeat_seconds = heartbeat_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pulse-{job.id}", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._job.flush()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stopped.wait(WRITE_SECONDS):
            if self._job.has_news() or time.monotonic() - last >= self._heartbeat_seconds:
                self._job.flush()
                last = time.monotonic()
