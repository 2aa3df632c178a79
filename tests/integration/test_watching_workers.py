"""Several workers and one watched folder: one looks at a time, and none is waited for in vain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.services import images, projects, watching
from cnsapp.tasks import watch_lease
from cnsapp.tasks.watch_lease import Leases
from db.models import WatchedFolder
from db.types import utc_now

WATCH_SECONDS = 0.2
# a worker whose imports take long; each import is written to the log with its beginning and end
WORKER = """
import json, os, sys, time
from pathlib import Path
from cnsapp.bootstrap import open_app
from cnsapp.settings import Settings
from cnsapp.tasks import watching

home, log, slow = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
real = watching.import_source

def say(**what):
    with log.open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), "at": time.time(), **what}) + chr(10))

def import_slowly(app, **given):
    files = [candidate.name for candidate in given["source"].candidates]
    say(begins=files)
    deadline = time.monotonic() + slow
    while time.monotonic() < deadline:
        given["check_cancelled"]()
        time.sleep(0.02)
    report = real(app, **given)
    say(ends=files, imported=report.imported)
    return report

watching.import_source = import_slowly
app = open_app(Settings(home=home, start_worker=False, watch_seconds=float(sys.argv[4])))
watcher = watching.Watcher(app)
say(ready=True)
while True:
    watcher.look()
    time.sleep(0.05)
"""


def draw(path: Path, seed: int) -> None:
    """Write a small picture."""
    noise = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Picture.fromarray(noise).save(path)


class Workers:
    """Worker processes that watch a folder, and what they logged."""

    def __init__(self, app: App, folder: Path, tmp_path: Path) -> None:
        self.app, self.folder, self.log = app, folder, tmp_path / "log"
        self.log.touch()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, slow: float) -> subprocess.Popen[bytes]:
        """Start a worker whose imports take `slow` seconds."""
        home = self.app.settings.root
        command = [sys.executable, "-c", WORKER, str(home), str(self.log), str(slow)]
        command.append(str(WATCH_SECONDS))
        process = subprocess.Popen(command, cwd=Path(watching.__file__).parents[2])
        self.processes.append(process)
        return process

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of the log that tell this."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in found if kind in line]

    def wait(self, true: Callable[[], bool]) -> None:
        """Wait until something is true; the time only ends a wait in vain."""
        deadline = time.monotonic() + 90
        while not true():
            assert time.monotonic() < deadline, self.log.read_text()
            assert all(p.poll() in (None, -signal.SIGKILL) for p in self.processes)
            time.sleep(0.05)


@pytest.fixture
def watched(app: App, tmp_path: Path) -> Iterator[tuple[int, Workers]]:
    """Return a project with a watched folder of six pictures, and nobody who watches yet."""
    folder = tmp_path / "instrument"
    folder.mkdir()
    for n in range(6):
        draw(folder / f"{n}.png", n)
    project = projects.create_project(app.store, name="p").id
    watching.watch_folder(app, project_id=project, folder=folder)
    workers = Workers(app, folder, tmp_path)
    yield project, workers
    for process in workers.processes:
        process.kill()
        process.wait(10)


def n_images(app: App, project: int) -> int:
    return images.counts(app.store, project_id=project).images


def test_two_processes_never_import_from_one_folder_at_once(
    app: App, watched: tuple[int, Workers]
) -> None:
    project, workers = watched
    for _ in range(2):
        workers.start(slow=3.0)  # fifteen times as long as the time between two looks
    workers.wait(lambda: len(workers.lines("ready")) == 2)
    workers.wait(lambda: n_images(app, project) == 6)
    for n in range(6, 9):  # more comes while they watch
        draw(workers.folder / f"{n}.png", n)
    workers.wait(lambda: n_images(app, project) == 9)
    time.sleep(2.0)  # whoever would take them a second time has begun by now
    tried = Counter(name for line in workers.lines("begins") for name in line["begins"])
    assert tried == {f"{n}.png": 1 for n in range(9)}
    spans = sorted(
        (begin["at"], end["at"])
        for begin, end in zip(workers.lines("begins"), workers.lines("ends"), strict=True)
    )
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
def test_when_the_looking_process_is_killed_the_other_goes_on_at_once(
    app: App, watched: tuple[int, Workers]
) -> None:
    project, workers = watched
    first = workers.start(slow=600.0)
    workers.wait(lambda: len(workers.lines("begins")) == 1)
    second = workers.start(slow=0.0)
    workers.wait(lambda: len(workers.lines("ready")) == 2)
    time.sleep(1.0)
    assert len(workers.lines("begins")) == 1  # it waits
    first.kill()
    first.wait(10)
    killed = time.monotonic()
    workers.wait(lambda: n_images(app, project) == 6)
    assert time.monotonic() - killed < watch_lease.LEASE_SECONDS / 2  # not when it runs out
    assert workers.lines("begins")[1]["pid"] == second.pid


@pytest.mark.usefixtures("watched")
def test_the_lease_of_another_computer_runs_out_and_is_lost_to_the_next(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = utc_now()
    here = Leases(app.store, 10.0, lambda: at)
    with app.store.reading() as session:
        folder = session.query(WatchedFolder.id).scalar()
    mine = here.take(folder)
    assert mine is not None
    assert mine.is_new
    at += timedelta(seconds=10)
    again = here.take(folder)
    assert again is not None
    assert not again.is_new
    monkeypatch.setattr(watch_lease, "me", lambda: "elsewhere-1-abc")
    at += timedelta(seconds=watch_lease.LEASE_SECONDS - 1)
    assert here.take(folder) is None  # this computer may still be at it
    at += timedelta(seconds=2)
    theirs = here.take(folder)
    assert theirs is not None
    assert theirs.is_new
    monkeypatch.undo()
    monkeypatch.setattr(watch_lease, "RENEW_SECONDS", 0.01)
    with here.renewed(again):
        assert again.lost.wait(30)  # whoever slept through it stops
    at += timedelta(seconds=20)
    assert here.take(folder) is None
    with app.store.writing() as session:
        assert here.mine(session, folder) is None  # and writes nothing more


@pytest.mark.usefixtures("watched")
def test_a_lease_that_is_renewed_does_not_run_out(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = utc_now()
    here = Leases(app.store, 10.0, lambda: at)
    with app.store.reading() as session:
        folder = session.query(WatchedFolder.id).scalar()
    lease = here.take(folder)
    assert lease is not None
    monkeypatch.setattr(watch_lease, "RENEW_SECONDS", 0.01)

    def until() -> str:
        with app.store.reading() as session:
            return str(session.get_one(WatchedFolder, folder).state["lease"]["until"])

    with here.renewed(lease):
        at += timedelta(seconds=100)
        due = (at + timedelta(seconds=watch_lease.LEASE_SECONDS)).isoformat()
        deadline = time.monotonic() + 30
        while until() != due:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not lease.lost.is_set()
