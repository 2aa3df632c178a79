"""Real worker processes: killed, stopped, doubled, cancelled, and with their queue file gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from cnsapp.bootstrap import App, open_app
from cnsapp.errors import CnsError
from cnsapp.jobs.lock import WorkerLock
from cnsapp.jobs.registry import EXTRA_KINDS
from cnsapp.jobs.supervisor import Supervisor, start_worker, stop_worker
from cnsapp.services.jobs import (
    JobView,
    cancel_job,
    get_job,
    job_points,
    list_jobs,
    submit_job,
    wait_for_job,
    worker_view,
)
from cnsapp.settings import Settings
from db.models import Job, Worker
from db.types import utc_now

PATIENCE = 60.0  # seconds; nothing here is timed, this only ends a test that hangs


@pytest.fixture(autouse=True, scope="module")
def kinds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EXTRA_KINDS, "tests.integration.jobs_kinds")
        yield


def opened(home: Path) -> App:
    return open_app(
        Settings(
            home=home,
            start_worker=False,
            device="cpu",
            heartbeat_seconds=0.3,
            dead_after_seconds=3.0,
        )
    )


@pytest.fixture
def lab(home: Path) -> Iterator[App]:
    app = opened(home)
    yield app
    app.store.engine.dispose()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An installation whose worker runs: for all tests that do not kill it."""
    app = opened(tmp_path_factory.mktemp("served"))
    with worker(app):
        yield app
    app.store.engine.dispose()


@contextmanager
def worker(app: App, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = start_worker(app.settings, *arguments)
    try:
        yield process
    finally:
        stop_worker(process)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.03)


def submitted(app: App, kind: str, **payload: object) -> int:
    return submit_job(app.store, kind=kind, project_id=None, payload=dict(payload))


def ended(app: App, job_id: int) -> JobView:
    until(lambda: not get_job(app.store, job_id=job_id).is_active)
    return get_job(app.store, job_id=job_id)


def begun(app: App, job_id: int) -> bool:
    """Whether a job was begun: a short one may be over before anybody sees it run."""
    return get_job(app.store, job_id=job_id).started_at is not None


def lines(app: App, name: str) -> list[str]:
    file = app.store.path(name)
    return file.read_text().split() if file.exists() else []


def kill(app: App) -> int:
    """Kill the worker of this installation as the system does when memory runs out."""
    pid = int(WorkerLock(app.settings.root, app.settings.device).holder())
    os.kill(pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    return pid


# --- one worker, working -------------------------------------------------------------------


def test_a_quick_job_starts_while_a_training_runs_and_an_import_too(served: App) -> None:
    train = submitted(served, "loop")
    second = submitted(served, "loop")
    files = submitted(served, "silent", seconds=1.5)
    until(lambda: get_job(served.store, job_id=train).state == "running")
    until(lambda: begun(served, files))
    quick = ended(served, submitted(served, "note"))
    assert quick.state == "done"
    assert quick.result["path"] == str(Path("a") / "b")
    assert get_job(served.store, job_id=train).state == "running"
    assert get_job(served.store, job_id=second).state == "queued"  # one run a device
    seen = worker_view(served.store, settings=served.settings)
    assert seen is not None
    assert seen.alive
    assert seen.n_running >= 1
    assert cancel_job(served.store, job_id=second).state == "cancelled"
    assert cancel_job(served.store, job_id=train).cancel_requested
    assert ended(served, train).state == "cancelled"
    assert ended(served, files).state == "done"
    assert list_jobs(served.store, active_only=True) == []


def test_a_job_that_says_nothing_has_a_pulse_all_the_same(served: App) -> None:
    job = ended(served, submitted(served, "silent", seconds=2))
    assert job.state == "done"
    assert job.started_at is not None
    assert job.heartbeat_at is not None
    assert job.heartbeat_at - job.started_at > timedelta(seconds=0.2)


def test_an_error_in_a_task_is_a_sentence_and_its_details_are_in_the_log(served: App) -> None:
    known = ended(served, submitted(served, "fail", how="sentence"))
    assert (known.state, known.error) == ("failed", "No image has a label. Label some first.")
    unknown = ended(served, submitted(served, "fail", how="step"))
    assert unknown.state == "failed"
    assert "logs/worker.log" in str(unknown.error)
    assert "a secret detail" not in str(unknown.error)
    assert "a secret detail" in served.store.path("logs", "worker.log").read_text()
    assert ended(served, submitted(served, "note")).state == "done"  # the worker lives on


def test_a_second_worker_for_the_same_device_says_why_it_ends(served: App) -> None:
    process = start_worker(served.settings)
    assert process.wait(PATIENCE) == 75
    said = served.store.path("logs", "worker-output.log").read_text()
    assert "runs already (process" in said


def test_a_worker_that_cannot_write_its_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    run = subprocess.run(
        [sys.executable, "-m", "cnsapp.jobs.worker"],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"CNS_HOME": str(tmp_path / "file" / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 78
    assert "cannot be written" in run.stderr
    assert "Traceback" not in run.stderr


def test_jobs_of_a_dead_worker_elsewhere_are_taken_over_or_cancelled(served: App) -> None:
    left, stopped = submitted(served, "silent", seconds=0), 0
    ended(served, left)
    long_ago = utc_now() - timedelta(minutes=5)
    with served.store.writing() as session:
        session.add(
            Worker(id="far", host="far away", pid=1, device="cuda:0", heartbeat_at=long_ago)
        )
        rows = [
            Job(kind="note", state="running", worker_id="far", starts=1, heartbeat_at=long_ago),
            Job(kind="loop", state="running", worker_id="far", cancel_requested=True),
        ]
        session.add_all(rows)
        session.flush()
        left, stopped = rows[0].id, rows[1].id
    assert ended(served, left).state == "done"
    assert ended(served, stopped).state == "cancelled"


def test_the_worker_opens_no_port_and_lets_the_web_process_go_first(served: App) -> None:
    pid = int(WorkerLock(served.settings.root, "cpu").holder())
    if not Path(f"/proc/{pid}/net/tcp").exists():
        pytest.skip("needs /proc")
    assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
    sockets = {
        file.readlink().name.removeprefix("socket:[").rstrip("]")
        for file in Path(f"/proc/{pid}/fd").iterdir()
        if file.is_symlink()
    }
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    listening = {row.split()[9] for row in table if row.split()[3] == "0A"}
    assert not sockets & listening


def test_two_workers_do_each_job_once(served: App) -> None:
    other = served.settings.model_copy(update={"device": "cuda:7"})
    process = start_worker(other)
    try:
        until(lambda: WorkerLock(other.root, "cuda:7").is_held_by_another())
        before = len(lines(served, "notes.txt"))
        jobs = [submitted(served, "note") for _ in range(12)]
        for job_id in jobs:
            assert ended(served, job_id).state == "done"
        done = lines(served, "notes.txt")[before:]
        assert sorted(done, key=int) == [str(job_id) for job_id in jobs]
    finally:
        stop_worker(process)


# --- workers that die ----------------------------------------------------------------------


def test_a_job_goes_on_from_its_last_finished_step_after_a_kill(lab: App) -> None:
    supervisor = Supervisor(lab.settings)
    supervisor.start()
    try:
        job_id = submitted(lab, "steps", ticks=10)
        until(lambda: len(lines(lab, "done.txt")) >= 2)
        kill(lab)
        finished = lines(lab, "done.txt")
        job = ended(lab, job_id)
    finally:
        supervisor.stop()
    assert (job.state, job.result) == ("done", {"squares": [0, 1, 4, 9, 16]})
    done = lines(lab, "done.txt")
    assert done[: len(finished)] == finished
    assert all(done.count(str(i)) == 1 for i in range(len(finished) - 1))  # the last may repeat
    assert set(done) == set("01234")
    points = job_points(lab.store, job_id=job_id)
    assert {point.values["i"] for point in points if point.values} == set(range(5))
    assert any("killed (signal 9)" in point.message for point in points)


def test_a_stopped_worker_puts_its_job_back_and_another_device_goes_on(lab: App) -> None:
    job_id = submitted(lab, "steps", ticks=12)
    with worker(lab) as first:
        until(lambda: len(lines(lab, "done.txt")) >= 2)
        stop_worker(first)
        assert first.returncode == 0
    job = get_job(lab.store, job_id=job_id)
    assert job.state == "queued"
    assert worker_view(lab.store, settings=lab.settings) is None
    before = lines(lab, "done.txt")
    with worker(lab, "--device", "auto"):
        assert ended(lab, job_id).state == "done"
    assert [lines(lab, "done.txt").count(step) for step in before[:-1]] == [1] * (len(before) - 1)


def test_a_job_that_takes_its_worker_along_is_given_up_and_the_others_are_not(lab: App) -> None:
    supervisor = Supervisor(lab.settings)
    supervisor.start()
    try:
        deadly = submitted(lab, "die")
        other = submitted(lab, "note")
        job = ended(lab, deadly)
        assert ended(lab, other).state == "done"
    finally:
        supervisor.stop()
    assert job.state == "failed"
    assert "stopped 3 times while it worked on “Take the worker along”" in str(job.error)
    assert "“reading a huge image”" in str(job.error)
    assert "killed (signal 9), which the system does when memory runs out" in str(job.error)
    assert len(lines(lab, "deaths.txt")) == 3


def test_waiting_for_a_job_brings_a_worker_and_a_lost_queue_file_loses_no_job(lab: App) -> None:
    seen: list[str] = []
    first = submitted(lab, "note")
    job = wait_for_job(lab, job_id=first, on_change=lambda view: seen.append(view.state))
    assert job.state == "done"
    assert seen[0] == "queued"
    assert seen[-1] == "done"
    until(lambda: not WorkerLock(lab.settings.root, "cpu").is_held_by_another())

    for file in lab.settings.root.glob("jobs.sqlite*"):
        file.write_bytes(b"no database at all" * 400)
    with lab.store.writing() as session:  # as if from a backup taken before it ran
        row = session.get(Job, first)
        assert row is not None
        row.state = "queued"
    second = submitted(lab, "note")
    assert wait_for_job(lab, job_id=second).state == "done"
    assert wait_for_job(lab, job_id=first).state == "done"
    assert list(lab.settings.root.glob("jobs.sqlite.damaged-*"))

    with lab.store.writing() as session:
        row = session.get(Job, second)
        assert row is not None
        row.state = "queued"
    assert wait_for_job(lab, job_id=second).state == "done"
    assert sorted(lines(lab, "notes.txt")) == sorted([str(first), str(second)] * 2)


def test_a_worker_that_cannot_work_is_said(lab: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])

    monkeypatch.setattr("cnsapp.services.jobs.start_worker", broken)
    with pytest.raises(CnsError, match=r"worker ends before.*worker\.log"):
        wait_for_job(lab, job_id=submitted(lab, "note"), poll=0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="ends its parent the POSIX way")
def test_a_worker_whose_app_died_finishes_its_jobs_and_then_ends(lab: App) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as parent:
        process = start_worker(lab.settings, "--parent", str(parent.pid))
        job_id = submitted(lab, "steps", ticks=3)
        until(lambda: begun(lab, job_id))
        parent.kill()
    try:
        assert process.wait(PATIENCE) == 0
        assert get_job(lab.store, job_id=job_id).state == "done"
    finally:
        stop_worker(process)
    assert worker_view(lab.store, settings=lab.settings) is None
