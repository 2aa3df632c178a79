"""A training run whose worker is killed goes on in the next one, and makes one model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from cnsapp.bootstrap import open_app
from cnsapp.jobs.supervisor import start_worker, stop_worker
from cnsapp.services.jobs import get_job
from cnsapp.services.training import start_training
from cnsapp.settings import Settings
from db.models import Model
from tests.integration.worlds import make_world

PATIENCE = 150.0  # seconds; nothing here is timed, this only ends a test that hangs


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_features_it_had(home: Path) -> None:
    app = open_app(Settings(home=home, device="cpu", heartbeat_seconds=0.3, dead_after_seconds=3.0))
    world = make_world(app, {"liver": 150, "lung": 150}, side=32)
    job_id = start_training(app, project_id=world.project_id)

    def progress() -> float:
        return get_job(app.store, job_id=job_id).progress

    first = start_worker(app.settings)
    try:
        until(lambda: progress() > 0.15)  # some features are kept, most are not
    finally:
        first.kill()
        first.wait()
    assert get_job(app.store, job_id=job_id).state == "running"
    second = start_worker(app.settings)
    try:
        until(lambda: not get_job(app.store, job_id=job_id).is_active)
    finally:
        stop_worker(second)
    job = get_job(app.store, job_id=job_id)
    assert job.state == "done", job.error
    with app.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(Model)) == 1
    assert len(list(app.store.path("models").glob("*"))) == 1
    app.store.engine.dispose()
