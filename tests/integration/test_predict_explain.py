"""A trained model applied to new images, and made to show what it looked at."""

from __future__ import annotations

import csv
import json
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from cnsapp.bootstrap import App, open_app
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError
from cnsapp.imaging.sniff import IN_WORDS, SUFFIXES
from cnsapp.jobs.running import run_here
from cnsapp.services import explaining, jobs
from cnsapp.services.models import current_model
from cnsapp.services.predicting import read_results, start_prediction, summary
from cnsapp.services.training import start_training
from cnsapp.settings import Settings
from cnsapp.tasks.maps import as_rgba, over
from tests.integration.worlds import World, draw, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a project with one trained model of two classes, and one image without a label."""
    app = open_app(Settings(home=tmp_path_factory.mktemp("trained") / "home", device="cpu"))
    world = make_world(app, {"liver": 10, "lung": 10}, unlabelled=1, side=80)
    run_here(app, start_training(app, project_id=world.project_id))
    return world


@pytest.fixture
def model_id(world: World) -> int:
    return current_model(world.app.store, project_id=world.project_id).id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(5):
        draw(tmp_path / "new" / "a" / f"{seed}.png", seed % 2, 500 + seed, side=64)
    draw(tmp_path / "new" / "=2+3.png", 1, 600)
    (tmp_path / "new" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    (tmp_path / "new" / "notes.txt").write_text("no image")
    return tmp_path / "new"


def predicted(app: App, world: World, path: Path) -> jobs.JobView:
    job_id = start_prediction(app, project_id=world.project_id, path=path)
    run_here(app, job_id)
    return jobs.get_job(app.store, job_id=job_id)


def test_a_folder_becomes_a_table_and_bad_files_are_named(world: World, folder: Path) -> None:
    job = predicted(world.app, world, folder)
    assert job.state == "done", job.error
    results = read_results(world.app, job_id=job.id)
    assert list(results.rows) == [
        "file", "sha256", "predicted", "confidence", "decision", "model_id", "p_liver", "p_lung",
    ]  # fmt: skip
    assert list(results.rows["file"])[1:] == [f"a/{k}.png" for k in range(5)]
    assert list(results.rows["predicted"])[1:] == ["liver", "lung", "liver", "lung", "liver"]
    assert np.allclose(results.rows[["p_liver", "p_lung"]].sum(axis=1), 1, atol=1e-5)
    assert [name for name, _ in results.failed] == ["broken.jpg"]
    assert len(results.failed[0][1]) > 8
    assert summary(results)[0]["n"] + summary(results)[1]["n"] == 6
    assert all(thumb is not None for thumb in results.thumbs)
    with Picture.open(results.thumbs[1] or "") as thumb:
        assert thumb.size == (64, 64)


def test_a_file_name_that_is_a_formula_becomes_text(world: World, folder: Path) -> None:
    job = predicted(world.app, world, folder)
    raw = world.app.store.path(job.result["csv"]).read_text(encoding="utf-8-sig")
    assert next(csv.DictReader(raw.splitlines()))["file"] == "'=2+3.png"


def test_an_unsure_answer_says_so(world: World, folder: Path) -> None:
    results = read_results(world.app, job_id=predicted(world.app, world, folder).id)
    for row in results.rows.itertuples():
        assert row.decision == (row.predicted if row.confidence >= 0.5 else "unsure")


def test_a_zip_and_a_single_file_work_too(world: World, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(folder / "a" / "1.png", "x/1.png")
    assert predicted(world.app, world, tmp_path / "z.zip").result["counts"] == {"lung": 1}
    assert predicted(world.app, world, folder / "a" / "0.png").result["counts"] == {"liver": 1}


def test_nothing_readable_fails_in_words_and_leaves_no_table(world: World, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"nothing")
    job = predicted(world.app, world, tmp_path / "bad")
    assert job.state == "failed"
    said = job.error or ""
    assert said.startswith("x.png could not be read: Not an image: the content is text.")
    assert "JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000 and AVIF, and whole slides (.svs" in said
    assert IN_WORDS.upper().replace(" ", "").replace("AND", ",").split(",") == list(SUFFIXES)
    assert not list(world.app.store.path("exports").glob(f"*prediction-{job.id}*"))
    with pytest.raises(CnsError, match="could not be read"):
        read_results(world.app, job_id=job.id)
    (tmp_path / "bad" / "y.tif").write_bytes(b"")
    said = predicted(world.app, world, tmp_path / "bad").error or ""
    assert said.startswith("None of the 2 files could be read. The first, x.png: Not an image")


def test_a_path_that_is_missing_or_outside_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(CnsError, match="no folder or file"):
        start_prediction(world.app, project_id=world.project_id, path=tmp_path / "none")
    with pytest.raises(InvalidInputError, match="outside the folders"):
        start_prediction(
            world.app,
            project_id=world.project_id,
            path=tmp_path,
            allowed_roots=[tmp_path / "allowed"],
        )


def test_cancelling_leaves_no_partial_table(world: World, tmp_path: Path) -> None:
    for seed in range(150):
        draw(tmp_path / "many" / f"{seed}.png", seed % 2, seed, side=16)
    app = world.app
    job_id = start_prediction(app, project_id=world.project_id, path=tmp_path / "many")
    thread = threading.Thread(target=run_here, args=(app, job_id))
    thread.start()
    deadline = time.monotonic() + 60
    while jobs.get_job(app.store, job_id=job_id).progress <= 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    with app.store.engine.begin() as connection:  # as `cancel_job` does while a worker lives
        connection.exec_driver_sql(f"UPDATE job SET cancel_requested = 1 WHERE id = {job_id}")
    thread.join()
    assert jobs.get_job(app.store, job_id=job_id).state == "cancelled"
    assert not list(app.store.path("exports").glob(f"*prediction-{job_id}*"))
    assert not app.store.path("thumbs", "predictions", str(job_id)).exists()


def test_out_of_fold_probabilities_name_their_fold(world: World, model_id: int) -> None:
    found = explaining.probabilities(
        world.app.store, model_id=model_id, image_id=world.image_ids[0][0]
    )
    assert found is not None
    assert found.source.startswith("out-of-fold, fold ")
    assert [p for _, p in found.values] == sorted((p for _, p in found.values), reverse=True)
    assert explaining.probabilities(
        world.app.store, model_id=model_id, image_id=world.image_ids[2][0]
    ) is None  # fmt: skip


@pytest.mark.parametrize("method", [m[0] for m in explaining.methods()])
def test_a_map_is_made_once_and_found_again(world: World, model_id: int, method: str) -> None:
    app, image_id = world.app, world.image_ids[2][0]
    first = explaining.request_map(app, model_id=model_id, image_id=image_id, method=method)
    assert not first.ready and first.job_id is not None
    again = explaining.request_map(app, model_id=model_id, image_id=image_id, method=method)
    assert again.job_id == first.job_id
    run_here(app, first.job_id)
    done = explaining.request_map(app, model_id=model_id, image_id=image_id, method=method)
    assert done.ready and done.job_id is None
    assert done.facts["class"] in ("liver", "lung")
    assert done.facts["probability"] == max(done.facts["probabilities"])
    shown = explaining.map_probabilities(app.store, model_id=model_id, facts=done.facts)
    assert shown is not None and "deployed model" in shown.source
    with Picture.open(app.store.path("saliency", f"{done.key}.png")) as png:
        assert (png.mode, png.size) == ("RGBA", (80, 80))
    with Picture.open(app.store.path("saliency", f"{done.key}-levels.png")) as levels:
        assert (levels.mode, levels.size) == ("L", (80, 80))


def test_another_class_has_a_map_of_its_own(world: World, model_id: int) -> None:
    app, image_id = world.app, world.image_ids[0][0]
    keys = set()
    for class_id in [*world.class_ids, None]:
        asked = explaining.request_map(
            app, model_id=model_id, image_id=image_id, target_class=class_id
        )
        assert asked.job_id is not None
        run_here(app, asked.job_id)
        keys.add(asked.key)
        facts = explaining.read_facts(app.store, asked.key) or {}
        assert class_id in (None, facts["class_id"])
    assert len(keys) == 3


def test_unknown_methods_classes_images_and_altered_models_are_refused(
    world: World, model_id: int
) -> None:
    app = world.app
    with pytest.raises(InvalidInputError, match="no saliency method “lime”"):
        explaining.request_map(app, model_id=model_id, image_id=1, method="lime")
    with pytest.raises(InvalidInputError, match="does not know this class"):
        explaining.request_map(app, model_id=model_id, image_id=1, target_class=999)
    with pytest.raises(NotFoundError, match="no image number 9999"):
        explaining.request_map(app, model_id=model_id, image_id=9999)
    file = app.store.path(current_model(app.store, project_id=world.project_id).path)
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + b"x")
        with pytest.raises(CnsError, match="was altered after training"):
            explaining.request_map(app, model_id=model_id, image_id=world.image_ids[1][5])
        with pytest.raises(CnsError, match="was altered after training"):
            start_prediction(app, project_id=world.project_id, path=app.store.path("images"))
    finally:
        file.write_bytes(content)


def test_a_file_outside_the_project_is_explained_at_its_own_size(
    world: World, model_id: int, folder: Path
) -> None:
    app = world.app
    job_id = explaining.explain_file(
        app,
        project_id=world.project_id,
        path=folder / "a" / "0.png",
        model_id=model_id,
        target="Liver",
    )
    run_here(app, job_id)
    job = jobs.get_job(app.store, job_id=job_id)
    assert job.state == "done", job.error
    assert json.dumps(job.result["facts"], allow_nan=False)
    with Picture.open(app.store.path(job.result["png"])) as png:
        assert (png.mode, png.size) == ("RGB", (64, 64))


def test_a_map_is_transparent_where_there_is_no_evidence_and_aligned_where_there_is() -> None:
    heat = np.zeros((14, 14), np.float32)
    heat[3, 10] = 1  # a spot in the upper right
    rgba = np.asarray(as_rgba(heat, (280, 140)))
    assert rgba.shape == (140, 280, 4)
    row, column = np.unravel_index(rgba[..., 3].argmax(), rgba.shape[:2])
    assert abs(row - 3.5 * 10) <= 5 and abs(column - 10.5 * 20) <= 10
    assert rgba[100, 50, 3] == 0
    pixels = np.full((140, 280, 3), 200, np.uint8)
    drawn = np.asarray(over(pixels, heat))
    assert (drawn[100, 50] == 200).all() and (drawn[35, 210] != 200).any()
