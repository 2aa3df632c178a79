"""A fine-tuning run whose worker is killed twenty times ends with the figures of a quiet one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App, open_app
from cnsapp.jobs.lock import WorkerLock
from cnsapp.jobs.supervisor import worker_environment
from cnsapp.processes import process_alive
from cnsapp.services.jobs import get_job, job_points
from cnsapp.services.training import start_training
from cnsapp.settings import Settings
from db.models import Job, Model, Prediction, Worker
from tests.integration.worlds import make_world

PATIENCE = 900.0  # seconds; nothing here is timed, this only ends a test that hangs
KILLS = 20
SEED = 6
OPTIONS = {
    "image_size": 32, "epochs": 26, "patience": 0, "batch_size": 16, "test_views": "1",
    "learning_rate": 0.003, "seed": 3,
}  # fmt: skip
TIMES = ("seconds", "images_per_second")


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


@dataclass
class Lab:
    """An installation with one run asked for, and a process that forks workers for it."""

    app: App
    job_id: int
    forks: subprocess.Popen[str]

    def fork(self, *, upgraded: bool = False) -> int:
        """Start a worker; return its number once the run is (or may be) taken up."""
        assert self.forks.stdin is not None
        assert self.forks.stdout is not None
        self.forks.stdin.write(f"{self.job_id} {'upgraded' if upgraded else ''}\n")
        self.forks.stdin.flush()
        pid = int(self.forks.stdout.readline())
        until(lambda: self._begun(pid) or not process_alive(pid))
        assert process_alive(pid) or not self.is_active(), "the worker could not begin"
        return pid

    def kill(self, pid: int) -> None:
        """Kill a worker and wait until it is gone, and its lock with it."""
        os.kill(pid, signal.SIGKILL)
        lock = WorkerLock(self.app.settings.root, "cpu")  # its last thread may linger in a write
        until(lambda: not process_alive(pid) and not lock.is_held_by_another())

    def _begun(self, pid: int) -> bool:
        with self.app.store.reading() as session:
            beats = session.scalar(select(Worker.pid)) == pid
        return (beats and self.state_and_starts()[0] == "running") or not self.is_active()

    def state_and_starts(self) -> tuple[str, int]:
        with self.app.store.reading() as session:
            job = session.get_one(Job, self.job_id)
            return job.state, job.starts

    def got_ahead(self) -> bool:
        return self.state_and_starts()[1] == 0 or not self.is_active()

    def is_active(self) -> bool:
        return self.state_and_starts()[0] in ("queued", "running")

    def last_epoch(self) -> int:
        folder = self.app.store.path(f"models/runs/job-{self.job_id}/fold-0")
        return max((int(p.stem[6:]) for p in folder.glob("epoch-*.ckpt")), default=-1)

    def result(self) -> tuple[dict[str, Any], list[tuple[int, list[float], int | None]]]:
        """Return the model's figures without what a clock says, and its answers."""
        job = get_job(self.app.store, job_id=self.job_id)
        assert job.state == "done", job.error
        with self.app.store.reading() as session:
            (metrics,) = session.scalars(select(Model.metrics)).all()
            rows = session.execute(
                select(Prediction.image_id, Prediction.probabilities, Prediction.fold).order_by(
                    Prediction.image_id
                )
            ).all()
        return timeless(metrics), [(i, list(p), fold) for i, p, fold in rows]


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


@contextmanager
def lab(home: Path) -> Iterator[Lab]:
    settings = Settings(
        home=home, start_worker=False, device="cpu", torch_threads=1, heartbeat_seconds=0.5,
        dead_after_seconds=3.0,
    )  # fmt: skip
    app = open_app(settings)
    world = make_world(app, {"liver": 16, "lung": 16}, n_groups=8, side=32)
    job_id = start_training(
        app, project_id=world.project_id, preset="full", backbone="small_cnn", options=OPTIONS
    )
    command = [sys.executable, "-m", "tests.integration.forked_workers"]
    with (home / "forks.log").open("w") as log:
        forks = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log,
            env=worker_environment(settings) | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        yield Lab(app, job_id, forks)
    finally:
        with forks:  # closes its pipes
            forks.kill()
        app.store.engine.dispose()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its workers")
def test_a_run_killed_twenty_times_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    with lab(tmp_path / "quiet") as quiet:
        quiet.fork()
        until(lambda: not quiet.is_active())
        expected = quiet.result()

    dice = random.Random(SEED)
    with lab(tmp_path / "killed") as killed:
        moments: list[int] = []
        in_vain = 0
        while len(moments) < KILLS:
            pid = killed.fork(upgraded=len(moments) % 2 == 1)
            if in_vain or (len(moments) > 2 and dice.random() < 0.5):  # it must get ahead
                until(killed.got_ahead)
            time.sleep(dice.uniform(0, 0.1))
            assert killed.is_active(), f"over after {len(moments)} kills"
            killed.kill(pid)
            moments.append(killed.last_epoch())
            in_vain = 0 if killed.got_ahead() else in_vain + 1
        last = killed.fork()
        until(lambda: killed.last_epoch() == OPTIONS["epochs"] or not killed.is_active())
        if killed.is_active():  # scores and the model's file: an end is a moment like any other
            time.sleep(dice.uniform(0, 0.1))
            killed.kill(last)
            killed.fork()
        until(lambda: not killed.is_active())
        found = killed.result()
        points = job_points(killed.app.store, job_id=killed.job_id)
        told = {p.values["epoch"] for p in points if "validation_loss" in p.values}
        left = [p.name for p in killed.app.store.path("models").rglob("*") if p.is_file()]

    assert found == expected
    assert told == set(range(27))  # the curve has no gaps
    assert len(set(moments)) > 5, moments  # they were spread over the run
    assert len(left) == 1, left
    assert left[0].endswith(".safetensors")
