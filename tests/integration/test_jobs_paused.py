"""Pause and resume with real workers: restarted, killed, waited for; and the place in the queue."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from cnsapp.bootstrap import App, open_app
from cnsapp.cli import cli
from cnsapp.errors import InvalidInputError
from cnsapp.jobs.lock import WorkerLock
from cnsapp.jobs.registry import EXTRA_KINDS
from cnsapp.jobs.running import run_here
from cnsapp.jobs.supervisor import start_worker, stop_worker
from cnsapp.services.jobs import (
    JobView,
    cancel_job,
    get_job,
    list_jobs,
    pause_job,
    resume_job,
    submit_job,
    wait_for_job,
)
from cnsapp.settings import Settings
from db.models import Job

PATIENCE = 90.0  # seconds; nothing here is timed, this only ends a test that hangs


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXTRA_KINDS, "tests.integration.jobs_kinds")


@pytest.fixture
def lab(home: Path) -> Iterator[App]:
    app = open_app(
        Settings(home=home, start_worker=False, device="cpu", heartbeat_seconds=0.3,
                 dead_after_seconds=3.0)
    )  # fmt: skip
    yield app
    app.store.engine.dispose()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.03)


def submitted(app: App, kind: str, **payload: object) -> int:
    return submit_job(app.store, kind=kind, project_id=None, payload=dict(payload))


def seen(app: App, job_id: int) -> JobView:
    return get_job(app.store, job_id=job_id)


def done(app: App) -> list[str]:
    file = app.store.path("done.txt")
    return file.read_text().split() if file.exists() else []


def test_a_paused_job_waits_through_stop_and_kill_and_goes_on_at_its_next_step(lab: App) -> None:
    job_id = submitted(lab, "steps", ticks=12)
    first = start_worker(lab.settings)
    try:
        until(lambda: len(done(lab)) >= 2)
        assert pause_job(lab.store, job_id=job_id).paused
        until(lambda: seen(lab, job_id).is_paused)
        kept = done(lab)
        other = submitted(lab, "note")
        until(lambda: seen(lab, other).state == "done")  # the worker works on
        assert seen(lab, job_id).is_paused
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        second = start_worker(lab.settings)
        try:
            later = submitted(lab, "steps", ticks=0)  # the same queue: it is free
            until(lambda: seen(lab, later).state == "done")
            assert seen(lab, job_id).is_paused
            assert done(lab)[: len(kept)] == kept
            before = done(lab)
            resume_job(lab.store, job_id=job_id)
            until(lambda: not seen(lab, job_id).is_active)
        finally:
            stop_worker(second)
    finally:
        stop_worker(first)
    job = seen(lab, job_id)
    assert (job.state, job.result) == ("done", {"squares": [0, 1, 4, 9, 16]})
    after = done(lab)[len(before) :]
    # remembered over the pause; the step that the pause fell into is done again
    assert after == [str(i) for i in range(len(kept), 5)]


def test_a_paused_job_is_cancelled_at_once_and_a_queued_one_can_be_paused(app: App) -> None:
    job_id = submitted(app, "loop")
    assert pause_job(app.store, job_id=job_id).is_paused
    run_here(app, job_id)  # a worker that had it handed over before the pause
    assert seen(app, job_id).is_paused
    assert cancel_job(app.store, job_id=job_id).state == "cancelled"
    assert pause_job(app.store, job_id=job_id).state == "cancelled"
    assert resume_job(app.store, job_id=job_id).state == "cancelled"


def test_what_would_begin_anew_is_not_paused(app: App) -> None:
    job_id = submitted(app, "import")
    with pytest.raises(
        InvalidInputError, match=r"“Import images” \(job 1\) cannot be paused.*anew"
    ):
        pause_job(app.store, job_id=job_id)
    assert not seen(app, job_id).can_pause


def test_a_job_of_a_dead_worker_is_paused_at_once(app: App) -> None:
    job_id = submitted(app, "loop")
    with app.store.writing() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(state="running", worker_id="gone")
        )
    assert pause_job(app.store, job_id=job_id).is_paused


def test_the_place_in_the_queue_counts_only_what_goes_first(app: App) -> None:
    ids = [submitted(app, "loop") for _ in range(4)]
    files = submitted(app, "silent", seconds=0)
    pause_job(app.store, job_id=ids[1])
    places = {job.id: job.n_ahead for job in list_jobs(app.store)}
    assert [places[i] for i in ids] == [0, 0, 1, 2]
    assert places[files] == 0  # another queue
    assert resume_job(app.store, job_id=ids[1]).n_ahead == 1
    assert seen(app, ids[3]).n_ahead == 3


def test_a_worker_that_serves_one_job_ends_when_that_is_paused(lab: App) -> None:
    job_id = submitted(lab, "steps", ticks=20)

    def look(job: JobView) -> None:
        if job.state == "running" and done(lab):
            pause_job(lab.store, job_id=job_id)

    job = wait_for_job(lab, job_id=job_id, on_change=look)
    assert job.is_paused
    until(lambda: not WorkerLock(lab.settings.root, "cpu").is_held_by_another())
    resume_job(lab.store, job_id=job_id)
    assert wait_for_job(lab, job_id=job_id).state == "done"


def test_the_commands_pause_and_resume(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNS_HOME", str(app.store.root))
    job_id = str(submitted(app, "loop"))

    def said(*arguments: str) -> str:
        found = CliRunner().invoke(cli, arguments)
        assert found.exit_code == 0, found.output
        return found.stdout

    assert said("pause", job_id) == f"Job {job_id} is paused.\n"
    assert "paused" in said("jobs")
    assert json.loads(said("resume", job_id, "--json")) == {
        "job_id": int(job_id), "state": "queued", "paused": False,
    }  # fmt: skip
    assert json.loads(said("jobs", "--json"))[0]["paused"] is False
    said("cancel", job_id)
    assert "nothing to pause" in said("pause", job_id)
