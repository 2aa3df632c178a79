"""Files that vanish or rot while a training or a prediction runs: it goes on and says so."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from cnsapp.bootstrap import App, open_app
from cnsapp.imaging.tiling import TileSettings
from cnsapp.jobs.context import JobContext
from cnsapp.jobs.running import run_here
from cnsapp.services import exclusion, jobs, models, reading
from cnsapp.services.importing import import_folder
from cnsapp.services.predicting import read_results, start_prediction, start_slide_prediction
from cnsapp.services.training import start_training
from cnsapp.settings import Settings
from cnsapp.tasks import train_quick
from db.models import Image
from tests import slides
from tests.integration.test_odd_names import NAMES
from tests.integration.worlds import World, draw, make_world


def path_of(app: App, image_id: int) -> Path:
    with app.store.reading() as session:
        stored = session.scalars(select(Image.stored_path).where(Image.id == image_id)).one()
    return app.store.path(stored)


def rot(path: Path) -> None:
    """Cut a file short."""
    path.write_bytes(path.read_bytes()[:200])


def when_it_runs(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something once the labels were read and before the files are."""
    real = train_quick.compute

    def compute(*args: Any, **named: Any) -> Any:
        act()
        return real(*args, **named)

    monkeypatch.setattr(train_quick, "compute", compute)


def test_a_training_goes_on_without_files_that_vanish_or_rot_meanwhile(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(app, {"liver": 8, "lung": 8}, n_groups=4, side=64)
    gone, rotten = world.image_ids[0][2], world.image_ids[1][3]

    def act() -> None:
        path_of(app, gone).unlink()
        rot(path_of(app, rotten))

    when_it_runs(monkeypatch, act)
    job_id = start_training(app, project_id=world.project_id)
    run_here(app, job_id)
    job = jobs.get_job(app.store, job_id=job_id)
    assert job.state == "done", job.error
    metrics = job.result["metrics"]
    assert metrics["n_trained"] == 14
    (said,) = [line for line in metrics["warnings"] if "could not be read" in line]
    assert said.startswith("2 labelled images")


def test_excluding_and_another_rule_amid_a_training_leave_it_whole(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run learns from the labels and the look of its start, and its model says which."""
    world = make_world(app, {"liver": 8, "lung": 8}, n_groups=4, side=64)
    rule = reading.get_reading(app.store, project_id=world.project_id).rule

    def act() -> None:
        exclusion.exclude(
            app.store, project_id=world.project_id, image_ids=world.image_ids[0][:7], who="Bob"
        )
        reading.apply_rule(app, project_id=world.project_id, rule=rule.with_window("uint16", 0, 10))

    when_it_runs(monkeypatch, act)
    job_id = start_training(app, project_id=world.project_id)
    run_here(app, job_id)
    job = jobs.get_job(app.store, job_id=job_id)
    assert job.state == "done", job.error
    assert job.result["metrics"]["n_trained"] == 16
    model = models.current_model(app.store, project_id=world.project_id)
    assert model.settings["reading"] == rule.as_json()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a project with one trained model of two classes."""
    app = open_app(Settings(home=tmp_path_factory.mktemp("trained") / "home", device="cpu"))
    world = make_world(app, {"liver": 8, "lung": 8}, side=64)
    run_here(app, start_training(app, project_id=world.project_id))
    return world


def predict(world: World, path: Path, **more: Any) -> jobs.JobView:
    job_id = start_prediction(world.app, project_id=world.project_id, path=path, **more)
    run_here(world.app, job_id)
    return jobs.get_job(world.app.store, job_id=job_id)


def amid(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something once, when a prediction has listed its files and looked at its slides."""
    real, done = JobContext.progress, []

    def progress(self: JobContext, fraction: float, *args: Any, **named: Any) -> None:
        if fraction > 0 and not done:
            done.append(1)
            act()
        real(self, fraction, *args, **named)

    monkeypatch.setattr(JobContext, "progress", progress)


def test_a_prediction_goes_on_without_files_that_vanish_or_rot_meanwhile(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(200):
        draw(tmp_path / "new" / f"{k:03}.png", k % 2, k, side=16)

    def act() -> None:
        (tmp_path / "new" / "190.png").unlink()
        rot(tmp_path / "new" / "195.png")

    amid(monkeypatch, act)
    job = predict(world, tmp_path / "new")
    assert job.state == "done", job.error
    assert job.result["n"] == 198
    assert [row["file"] for row in job.result["failed"]] == ["190.png", "195.png"]
    assert all(len(row["reason"]) > 10 for row in job.result["failed"])


def test_a_slide_that_vanishes_amid_its_prediction_keeps_what_was_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slides.write_ome(tmp_path / "s.ome.tif", slides.draw())
    amid(monkeypatch, path.unlink)
    job = predict(world, path, tiles=TileSettings(tile_px=64))
    assert job.state == "done", job.error
    assert job.result["n"] > 0
    assert job.result["n_failed"] > 0
    assert "s.ome.tif at x" in job.result["failed"][-1]["file"]
    assert len(read_results(world.app, job_id=job.id).rows) == job.result["n"]


def test_tiles_of_the_project_that_vanish_amid_a_prediction_are_named(
    world: World, tmp_path: Path
) -> None:
    path = slides.write_ome(tmp_path / "own.ome.tif", slides.draw(seed=4))
    import_folder(
        world.app, project_id=world.project_id, path=path, tiles=TileSettings(tile_px=256)
    )
    with world.app.store.reading() as session:
        tiles = session.scalars(select(Image).where(Image.slide_id.is_not(None))).all()
        slide_id, lost = tiles[0].slide_id, [(t.file_name, t.stored_path) for t in tiles[:2]]
    world.app.store.path(lost[0][1]).unlink()
    rot(world.app.store.path(lost[1][1]))
    assert slide_id is not None
    latest = models.current_model(world.app.store, project_id=world.project_id).id
    job_id = start_slide_prediction(
        world.app, project_id=world.project_id, slide_id=slide_id, model_id=latest
    )
    run_here(world.app, job_id)
    job = jobs.get_job(world.app.store, job_id=job_id)
    assert job.state == "done", job.error
    assert job.result["n"] == len(tiles) - 2
    assert {row["file"] for row in job.result["failed"]} == {name for name, _ in lost}


def test_a_table_of_predictions_says_every_odd_name(world: World, tmp_path: Path) -> None:
    for k, name in enumerate(NAMES):
        pixels = np.full((16, 16, 3), 10 * k, np.uint8)
        (tmp_path / "odd").mkdir(exist_ok=True)
        Picture.fromarray(pixels).save(tmp_path / "odd" / name)
    on_disk = {path.name for path in (tmp_path / "odd").iterdir()}
    job = predict(world, tmp_path / "odd")
    assert job.state == "done", job.error
    raw = world.app.store.path(job.result["csv"]).read_bytes().decode("utf-8-sig")
    said = [row["file"] for row in csv.DictReader(StringIO(raw, newline=""))]
    # what a spreadsheet would take for a formula stands behind an apostrophe
    plain = {n[1:] if n.startswith("'") and n[1:2] in "=@-+\t\r" else n for n in said}
    assert plain == on_disk
    assert len(said) == len(NAMES)
    assert len({unicodedata.normalize("NFC", name) for name in on_disk}) == len(NAMES) - 1
    assert [row["file"] for row in job.result["failed"]] == []
