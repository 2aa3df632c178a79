"""What a fresh worker clears away, and what it leaves alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.services.importing import save_uploads
from cnsapp.services.jobs import cancel_job, submit_job
from cnsapp.services.projects import create_project
from cnsapp.services.tidying import model_path, tidy
from db.models import Model


def aged(path: Path, hours: float) -> Path:
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))
    return path


def test_uploads_that_were_only_looked_at_go_after_a_day(app: App) -> None:
    project = create_project(app.store, name="p")
    old, waiting, new = (save_uploads(app, files=[("a.png", b"x")]) for _ in range(3))
    aged(old, 30), aged(waiting, 30), aged(new, 2)
    path = str(waiting / "a.png")
    submit_job(app.store, kind="predict", project_id=project.id, payload={"path": path})
    assert tidy(app) == 1
    assert (old.exists(), waiting.exists(), new.exists()) == (False, True, True)


def test_model_files_of_killed_runs_go_and_no_others(app: App) -> None:
    project = create_project(app.store, name="p")
    ended, runs = (submit_job(app.store, kind="train", project_id=project.id) for _ in range(2))
    cancel_job(app.store, job_id=ended)
    names = {
        "kept": model_path(ended, "a" * 32),
        "orphan": model_path(ended, "b" * 32),
        "of a run under way": model_path(runs, "c" * 32),
        "of a job of another database": model_path(999, "d" * 32),
        "brought by hand": "models/mine.safetensors",
        "half": model_path(runs, "e" * 32) + ".tmp-0",
        "young": model_path(ended, "f" * 32),
    }
    files = {what: app.store.path(name) for what, name in names.items()}
    for what, file in files.items():
        file.write_bytes(b"x")
        aged(file, 0.5 if what == "young" else 2)
    with app.store.writing() as session:
        session.add(
            Model(
                project_id=project.id, name="m", preset="quick", backbone="b",
                path=names["kept"], sha256="0" * 64,
            )
        )  # fmt: skip
    assert tidy(app) == 2
    assert {what for what, file in files.items() if not file.exists()} == {"orphan", "half"}
