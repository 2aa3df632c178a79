"""The life of a job row, and what a task may do, without any worker process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, InvalidInputError, NotFoundError
from cnsapp.jobs import states
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.jobs.lock import WorkerLock
from cnsapp.jobs.registry import (
    EXTRA_KINDS,
    KINDS,
    QUEUES,
    JobKind,
    import_light_tasks,
    importing,
)
from cnsapp.jobs.running import in_words, run_here
from cnsapp.jobs.supervisor import Supervisor, seconds_to_wait, worker_environment
from cnsapp.processes import process_alive
from cnsapp.services.jobs import (
    cancel_job,
    get_job,
    job_points,
    list_jobs,
    submit_job,
    worker_view,
)
from cnsapp.services.projects import create_project
from cnsapp.settings import Settings
from db.models import Job, Worker
from db.session import Store
from db.types import utc_now

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXTRA_KINDS, "tests.integration.jobs_kinds")


def submitted(app: App, kind: str, **payload: object) -> int:
    return submit_job(app.store, kind=kind, project_id=None, payload=dict(payload))


def change(store: Store, job_id: int, **values: object) -> None:
    with store.writing() as session:
        job = session.get(Job, job_id)
        for name, value in values.items():
            setattr(job, name, value)


def test_a_job_is_queued_and_nothing_else_happens(app: App) -> None:
    project = create_project(app.store, name="Kidney")
    job_id = submit_job(
        app.store,
        kind="train",
        project_id=project.id,
        payload={"folder": Path("a/b"), "n": np.int64(3)},
        requested_by="Ada",
    )
    job = get_job(app.store, job_id=job_id)
    assert (job.state, job.progress, job.title) == ("queued", 0.0, "Train a model")
    assert job.payload == {"folder": "a/b", "n": 3}
    assert [j.id for j in list_jobs(app.store, project_id=project.id, active_only=True)] == [job_id]
    assert not (app.store.root / "jobs.sqlite").exists()


def test_lists_are_light_and_choose_kinds_before_they_count(app: App) -> None:
    first = submitted(app, "import")
    change(app.store, first, state="done", result={"skipped": ["x"] * 1000})
    for _ in range(3):
        submitted(app, "explain")
    (found,) = list_jobs(app.store, kinds=["import"], limit=2)
    assert (found.id, found.result) == (first, {})
    assert len(get_job(app.store, job_id=first).result["skipped"]) == 1000
    assert [job.id for job in list_jobs(app.store, but=["explain"], limit=2)] == [first]


def test_an_unknown_kind_project_or_job_is_said(app: App) -> None:
    with pytest.raises(InvalidInputError, match=r"“bake”.*train"):
        submitted(app, "bake")
    with pytest.raises(NotFoundError, match="project number 9"):
        submit_job(app.store, kind="train", project_id=9, payload={})
    with pytest.raises(NotFoundError, match=r"job number 7.*cnsapp jobs"):
        get_job(app.store, job_id=7)


def test_every_kind_waits_in_a_queue_that_is_served() -> None:
    assert {kind.queue for kind in KINDS.values()} == set(QUEUES)


def test_a_job_that_waits_is_cancelled_at_once_and_stays_so(app: App) -> None:
    job_id = submitted(app, "note")
    assert cancel_job(app.store, job_id=job_id).state == "cancelled"
    run_here(app, job_id)
    assert get_job(app.store, job_id=job_id).state == "cancelled"
    assert not (app.store.root / "notes.txt").exists()


def test_a_job_that_has_ended_cannot_be_cancelled_nor_run_again(app: App) -> None:
    job_id = submitted(app, "note")
    run_here(app, job_id)
    assert cancel_job(app.store, job_id=job_id).state == "done"
    run_here(app, job_id)
    assert (app.store.root / "notes.txt").read_text().split() == [str(job_id)]
    assert not states.finish(app.store, job_id, "here", "failed", error="late")
    assert get_job(app.store, job_id=job_id).error is None


def test_of_two_workers_that_take_a_job_one_gets_it(app: App) -> None:
    job_id = submitted(app, "note")
    got = [states.begin(app.store, job_id, worker) is not None for worker in ("a", "b")]
    assert got == [True, False]
    assert not states.finish(app.store, job_id, "b", "done")
    assert states.finish(app.store, job_id, "a", "done")


def test_progress_and_curve_are_stored_without_holding_the_task_up(app: App) -> None:
    job_id = submitted(app, "curve")
    run_here(app, job_id)
    job = get_job(app.store, job_id=job_id)
    assert (job.state, job.progress, job.message) == ("done", 1.0, "batch 299")
    assert job.result == {"loss": None}  # JSON knows no infinity
    points = job_points(app.store, job_id=job_id)
    assert len(points) == 300
    assert points[1].values == {"loss": 0.5, "odd": None}
    assert len(job_points(app.store, job_id=job_id, after=points[9].id)) == 290


class BusyOnce:
    """A store whose first write finds the database locked."""

    def __init__(self, store: Store) -> None:
        self._store, self._busy = store, True

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def writing(self) -> AbstractContextManager[Session]:
        if self._busy:
            self._busy = False
            raise OperationalError("UPDATE job", {}, Exception("database is locked"))
        return self._store.writing()


def test_a_database_that_is_busy_keeps_progress_for_later(app: App) -> None:
    job_id = submitted(app, "note")
    states.begin(app.store, job_id, "w")
    store = cast(Store, BusyOnce(app.store))
    job = JobContext(store, job_id=job_id, project_id=None, payload={}, worker_id="w")
    job.progress(0.4, "half way", loss=0.5)
    job.flush()
    assert job.has_news()
    job.flush()
    assert not job.has_news()
    assert get_job(app.store, job_id=job_id).message == "half way"
    assert [point.values for point in job_points(app.store, job_id=job_id)] == [{"loss": 0.5}]


def test_a_running_job_notices_a_cancel_request(app: App) -> None:
    with app.store.writing() as session:  # somebody has to be seen working on it
        session.add(Worker(id="here", host="another computer", pid=1, device="cpu"))
    job_id = submitted(app, "loop")
    thread = threading.Thread(target=run_here, args=(app, job_id))
    thread.start()
    while get_job(app.store, job_id=job_id).state == "queued":
        time.sleep(0.01)
    assert cancel_job(app.store, job_id=job_id).state == "running"
    thread.join(10)
    job = get_job(app.store, job_id=job_id)
    assert (job.state, job.error) == ("cancelled", None)


def test_a_task_whose_job_another_worker_took_over_stops_and_changes_nothing(app: App) -> None:
    job_id = submitted(app, "loop")
    states.begin(app.store, job_id, "slept")
    job = JobContext(app.store, job_id=job_id, project_id=None, payload={}, worker_id="slept")
    change(app.store, job_id, worker_id="awake", progress=0.7)
    with pytest.raises(Cancelled):
        job.check_cancelled()
    job.progress(0.1, "old news")
    job.flush()
    assert not states.finish(app.store, job_id, "slept", "cancelled")
    assert get_job(app.store, job_id=job_id).progress == 0.7


def test_a_job_of_a_dead_worker_is_cancelled_at_once(app: App) -> None:
    job_id = submitted(app, "loop")
    states.begin(app.store, job_id, "gone")
    assert cancel_job(app.store, job_id=job_id).state == "cancelled"


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("sentence", "^No image has a label. Label some first.$"),
        ("step", r"“Fail” stopped because of an unexpected error \(ValueError\).*logs/worker.log"),
        ("memory", "“Fail” needed more memory than this computer has free"),
        ("exit", r"unexpected error \(SystemExit\)"),
    ],
)
def test_a_job_that_fails_says_so_in_words(app: App, how: str, sentence: str) -> None:
    job_id = submitted(app, "fail", how=how)
    run_here(app, job_id)
    job = get_job(app.store, job_id=job_id)
    assert job.state == "failed"
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(job.error)
    assert "secret" not in str(job.error)


def test_a_full_disk_is_said() -> None:
    assert "disk is full" in in_words("train", OSError(28, "No space left on device"))


def test_a_job_that_kills_its_worker_again_and_again_is_given_up(app: App) -> None:
    job_id = submitted(app, "die")
    for _ in range(states.MAX_STARTS):
        assert states.begin(app.store, job_id, "w") is not None
        change(app.store, job_id, message="reading")
        states.release(app.store, "w", kind_stop=False)
    assert states.begin(app.store, job_id, "w") is None
    job = get_job(app.store, job_id=job_id)
    assert job.state == "failed"
    assert "stopped 3 times" in str(job.error)
    assert "“reading”" in str(job.error)
    assert "memory" in str(job.error)


def test_finished_steps_and_orderly_stops_are_not_held_against_a_job(app: App) -> None:
    job_id = submitted(app, "steps")
    for _ in range(5):
        states.begin(app.store, job_id, "w")
        states.step_finished(app.store, job_id, "w")
        states.release(app.store, "w", kind_stop=False)
    for _ in range(5):
        states.begin(app.store, job_id, "w")
        states.release(app.store, "w", kind_stop=True)
    assert states.begin(app.store, job_id, "w") is not None


def test_a_job_that_gets_further_at_each_start_is_not_given_up(app: App) -> None:
    job_id = submitted(app, "steps")
    for reached in (0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.1):
        begun = states.begin(app.store, job_id, "w")
        assert begun is not None
        job = JobContext(
            app.store,
            job_id=job_id,
            project_id=None,
            payload={},
            worker_id="w",
            reached=begun.progress,
        )
        for fraction in (0.0, reached):
            job.progress(fraction, f"at {fraction}")
            job.flush()
        states.release(app.store, "w", kind_stop=False)
    assert get_job(app.store, job_id=job_id).progress == 0.5  # it never goes back
    assert states.begin(app.store, job_id, "w") is None  # three times no further than half way
    assert get_job(app.store, job_id=job_id).state == "failed"


def test_a_released_job_that_should_stop_is_cancelled(app: App) -> None:
    job_id = submitted(app, "loop")
    states.begin(app.store, job_id, "w")
    change(app.store, job_id, cancel_requested=True)
    states.release(app.store, "w", kind_stop=False)
    assert get_job(app.store, job_id=job_id).state == "cancelled"


def test_the_workers_view_tells_a_living_from_a_dead_one(app: App) -> None:
    assert worker_view(app.store, settings=app.settings) is None
    with app.store.writing() as session:
        session.add(Worker(id="far", host="another computer", pid=1, device="cuda:0"))
    seen = worker_view(app.store, settings=app.settings)
    assert seen is not None
    assert (seen.alive, seen.device, seen.n_running) == (True, "cuda:0", 0)
    with app.store.writing() as session:
        worker = session.get(Worker, "far")
        assert worker is not None
        worker.heartbeat_at = utc_now() - timedelta(seconds=60)
    seen = worker_view(app.store, settings=app.settings)
    assert seen is not None
    assert not seen.alive


def test_a_lock_is_freed_by_the_death_of_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cnsapp.jobs.lock import WorkerLock\n"
        f"lock = WorkerLock(Path({str(tmp_path)!r}), 'cpu'); print(lock.acquire(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    lock = WorkerLock(tmp_path, "cpu")
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"True"
        assert lock.is_held_by_another()
        assert not lock.acquire()
        assert lock.holder() == str(holder.pid)
        other = WorkerLock(tmp_path, "cuda:0")  # another device, another worker
        assert other.acquire()
        other.release()
        holder.kill()
        holder.wait()
        assert not process_alive(holder.pid)
    assert lock.acquire()
    lock.release()


def test_a_supervisor_that_cannot_start_a_worker_leaves_the_app_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Event()

    def refuse(*_: object) -> None:
        tried.set()
        raise OSError("no more processes")

    monkeypatch.setattr("cnsapp.jobs.supervisor.start_worker", refuse)
    supervisor = Supervisor(Settings(home=tmp_path))
    supervisor.start()
    assert tried.wait(10)
    supervisor.stop()
    assert "could not be started" in caplog.text


def test_a_supervisor_lets_a_worker_work_that_an_earlier_app_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, started, free = threading.Event(), threading.Event(), threading.Event()

    def is_held(_lock: WorkerLock) -> bool:
        asked.set()
        return not free.is_set()

    def start(*_: object) -> None:
        started.set()
        raise OSError("that was enough")

    monkeypatch.setattr(WorkerLock, "is_held_by_another", is_held)
    monkeypatch.setattr("cnsapp.jobs.supervisor.start_worker", start)
    supervisor = Supervisor(Settings(home=tmp_path))
    supervisor.start()
    assert asked.wait(10)
    assert not started.is_set()
    free.set()
    assert started.wait(10)
    supervisor.stop()


def test_a_worker_that_dies_comes_back_soon_and_one_that_never_works_seldom() -> None:
    assert [seconds_to_wait(n) for n in (0, 1, 5, 9)] == [0.3, 0.6, 3.0, 3.0]
    assert seconds_to_wait(10) == seconds_to_wait(10_000) == 20.0


def test_a_worker_gets_the_settings_of_its_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Settings(home=tmp_path / "x", device="cpu", import_roots=[tmp_path], torch_threads=2)
    for name, value in worker_environment(given).items():
        if name.startswith("CNS_"):
            monkeypatch.setenv(name, value)
    assert Settings() == given


def test_workers_whose_wishes_mean_one_device_share_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("cnsapp.jobs.lock.shutil.which", lambda _: "/usr/bin/nvidia-smi")
    on_gpu = {WorkerLock(tmp_path, wish).path for wish in ("auto", "cuda", "cuda:0")}
    assert len(on_gpu) == 1
    assert not on_gpu & {WorkerLock(tmp_path, wish).path for wish in ("cpu", "cuda:1")}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert WorkerLock(tmp_path, "auto").path not in on_gpu


def test_a_job_waits_until_the_warm_up_has_imported_what_it_needs(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tests.integration.jobs_kinds")
    monkeypatch.setenv(EXTRA_KINDS, "tests.unit.jobs_elsewhere")
    there = ModuleType("tests.unit.jobs_elsewhere")
    there.KINDS = {"note": JobKind("tests.integration.jobs_kinds:note", "quick", "Note")}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests.unit.jobs_elsewhere", there)
    job_id = submitted(app, "note")
    with importing:
        thread = threading.Thread(target=run_here, args=(app, job_id))
        thread.start()
        thread.join(0.3)
        assert get_job(app.store, job_id=job_id).state == "running"
        assert not (app.store.root / "notes.txt").exists()
    thread.join(10)
    assert get_job(app.store, job_id=job_id).state == "done"


def test_a_job_whose_task_is_imported_does_not_wait_for_the_warm_up(app: App) -> None:
    import_light_tasks()
    job_id = submitted(app, "note")
    with importing:
        run_here(app, job_id)
    assert get_job(app.store, job_id=job_id).state == "done"


def test_a_torch_that_is_only_half_imported_does_no_harm(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    job_id = submitted(app, "note")
    run_here(app, job_id)
    assert get_job(app.store, job_id=job_id).state == "done"


def test_plain_data_comes_out_of_arrays_paths_and_odd_numbers() -> None:
    assert as_json({1: np.arange(2), "p": Path("a"), "t": (np.float32(0.5), float("nan"))}) == {
        "1": [0, 1],
        "p": "a",
        "t": [0.5, None],
    }


def test_the_same_number_in_another_database_is_another_workflow() -> None:
    engine = pytest.importorskip("cnsapp.jobs.engine")
    first = datetime(2026, 1, 1, tzinfo=UTC)
    assert engine.workflow_id(1, first) == engine.workflow_id(1, first)
    assert engine.workflow_id(1, first) != engine.workflow_id(1, first + timedelta(seconds=1))


def test_features_that_wait_already_are_not_asked_for_twice(app: App) -> None:
    one, two = (create_project(app.store, name=name).id for name in ("one", "two"))

    def ask(project: int, **payload: str) -> int:
        return submit_job(app.store, kind="features", project_id=project, payload=payload)

    first = ask(one)
    assert ask(one) == first
    assert ask(two) != first
    other = ask(one, backbone="another")
    assert other != first
    assert ask(one, backbone="another") == other
    assert len(list_jobs(app.store, project_id=one)) == 2
    with app.store.writing() as session:
        session.get_one(Job, first).state = "running"
    later = ask(one)  # images that came since it began need another
    assert later not in (first, other)
    cancel_job(app.store, job_id=later)
    assert ask(one) != later
    training = [submit_job(app.store, kind="train", project_id=one) for _ in range(2)]
    assert training[0] != training[1]  # only what takes up all there is
