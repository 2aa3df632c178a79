"""Predictions of whole slides: one row a tile with its place, and the heat map that shows them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.imaging.tiling import TileSettings
from cnsapp.jobs.running import run_here
from cnsapp.services import jobs, predicting
from cnsapp.services.importing import import_folder
from cnsapp.services.predicting import Results, name_of_row, read_results, slide_picture
from cnsapp.services.projects import create_project, list_classes
from cnsapp.services.slides import list_slides
from cnsapp.ui.slide_map import map_data
from db.models import Image
from tests import slides
from tests.integration.worlds import World, add_model

TILES = TileSettings(tile_px=100, min_tissue=0.5)


@dataclass
class Judge:
    """Stands in for a network: the share of the second class is the tile's mean green, 0 to 1."""

    size: int = 32
    threshold: float = 0.55
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def predictor(self) -> Judge:
        return self

    def predict(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        share = np.array([picture[..., 1].mean() / 255 for picture in pictures], np.float32)
        return np.stack([1 - share, share], axis=1)


@pytest.fixture
def world(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a project with one slide cut into tiles, and a model of two classes."""
    monkeypatch.setattr("cnsapp.tasks.predict.predictor_of", lambda *_: Judge())
    project = create_project(app.store, name="p", classes=["dark", "bright"]).id
    path = slides.write_ome(tmp_path / "own.ome.tif", slides.draw())
    import_folder(app, project_id=project, path=path, tiles=TILES)
    with app.store.reading() as session:
        ids = [row.id for row in session.query(Image).order_by(Image.id)]
    classes = [c.id for c in list_classes(app.store, project_id=project)]
    return World(app, project, classes, [ids])


def predicted(world: World, job_id: int) -> Results:
    run_here(world.app, job_id)
    job = jobs.get_job(world.app.store, job_id=job_id)
    assert job.state == "done", job.error
    return read_results(world.app, job_id=job_id)


def test_a_new_slide_is_cut_as_the_projects_slides_and_each_row_has_its_place(
    world: World, tmp_path: Path
) -> None:
    model = add_model(world, [])
    drawn = slides.draw(seed=5)
    path = slides.write_generic(tmp_path / "new.tif", drawn)
    Picture.fromarray(drawn[:60, :60]).save(tmp_path / "new.png")
    job = predicting.start_prediction(
        world.app, project_id=world.project_id, path=path, model_id=model
    )
    rows = predicted(world, job).rows
    n_own = len(world.image_ids[0])
    assert list(rows.columns) == [
        "file", "sha256", "predicted", "confidence", "decision", "model_id", "p_dark", "p_bright",
        "x", "y", "side",
    ]  # fmt: skip
    assert set(rows["file"]) == {"new.tif"}
    assert set(rows["side"]) == {100}
    assert abs(len(rows) - n_own) <= 2  # the same drawing with other noise
    for row in rows.itertuples():
        mean = drawn[row.y : row.y + 100, row.x : row.x + 100, 1].mean() / 255
        assert float(row.p_bright) == pytest.approx(mean, abs=0.01)
        assert row.decision == (row.predicted if row.confidence >= 0.55 else "unsure")


def test_images_beside_a_slide_have_no_place(world: World, tmp_path: Path) -> None:
    model = add_model(world, [])
    folder = tmp_path / "mixed"
    folder.mkdir()
    slides.write_generic(folder / "s.tif", slides.draw(seed=5))
    Picture.fromarray(slides.draw(60, 60)).save(folder / "a.png")
    (folder / "broken.svs").write_bytes(b"II*\x00 no slide")
    job = predicting.start_prediction(
        world.app, project_id=world.project_id, path=folder, model_id=model,
        tiles=TileSettings(tile_px=200, min_tissue=0.5),
    )  # fmt: skip
    results = predicted(world, job)
    rows = results.rows
    assert set(pd.to_numeric(rows.loc[rows["file"] == "s.tif", "side"])) == {200}
    assert rows.loc[rows["file"] == "a.png", "x"].tolist() == [""]
    assert [name for name, _ in results.failed] == ["broken.svs"]
    assert [(s.name, s.width, s.height, s.own) for s in results.slides] == [
        ("s.tif", 1600, 1200, False)
    ]


def test_the_map_has_each_tile_at_its_place_in_the_colour_of_its_class(
    world: World, tmp_path: Path
) -> None:
    model = add_model(world, [])
    path = slides.write_generic(tmp_path / "new.tif", slides.draw(seed=5))
    wide = TileSettings(tile_px=100, overlap=0.2, min_tissue=0.5)
    job = predicting.start_prediction(
        world.app, project_id=world.project_id, path=path, model_id=model, tiles=wide
    )
    results = predicted(world, job)
    data = map_data(results, results.slides[0], {"dark": "#111111", "bright": "#EEEEEE"}, 0.2)
    assert (data["width"], data["height"], data["um_per_px"]) == (1600, 1200, 0.5)
    assert data["colors"] == ["#111111", "#EEEEEE"]
    n = len(results.rows)
    assert {len(data[k]) for k in ("x", "y", "side", "cell", "p", "best", "unsure", "fold")} == {n}
    assert set(data["cell"]) == {80}
    assert all(x % 80 == 0 and y % 80 == 0 for x, y in zip(data["x"], data["y"], strict=True))
    for at, row in enumerate(results.rows.itertuples()):
        assert (data["x"][at], data["y"][at]) == (row.x, row.y)
        assert data["names"][data["best"][at]] == row.predicted
        assert data["p"][at][1] == round(float(row.p_bright) * 1000)
        assert data["unsure"][at] == (row.decision == "unsure")
    picture = np.asarray(Picture.open(slide_picture(world.app, job, 0)))
    assert picture.shape == (1200, 1600, 3)  # smaller than 2,048 px: as it is, and no macro
    vivid = picture.astype(int).max(axis=2) - picture.astype(int).min(axis=2) > 200
    assert not vivid.any()


def test_a_slide_of_the_project_shows_learnt_tiles_as_the_fold_that_left_them_out(
    world: World,
) -> None:
    first = world.image_ids[0][0]
    model = add_model(world, [(first, world.class_ids[0], world.class_ids[1], 0.97)])
    slide = list_slides(world.app.store, project_id=world.project_id)[0]
    job = predicting.start_slide_prediction(
        world.app, project_id=world.project_id, slide_id=slide.id, model_id=model
    )
    results = predicted(world, job)
    rows = results.rows
    assert len(rows) == slide.n_tiles == len(world.image_ids[0])
    unseen = rows[rows["fold"] != ""]
    assert len(unseen) == 1
    with world.app.store.reading() as session:
        image = session.get_one(Image, first)
        assert (unseen.iloc[0].x, unseen.iloc[0].y) == (image.tile_x, image.tile_y)
    assert float(unseen.iloc[0].p_bright) == pytest.approx(0.97)
    assert (rows[rows["fold"] == ""]["p_bright"].astype(float) < 0.6).all()
    data = map_data(results, results.slides[0], {}, 0.0)
    assert sum(fold is not None for fold in data["fold"]) == 1
    assert results.slides[0].own


def test_a_row_is_called_by_its_file_and_a_tile_by_its_place_first() -> None:
    rows = pd.DataFrame(
        {"file": ["set/a.svs", "b/c.png"], "x": ["12800", ""], "y": ["0", ""], "side": ["512", ""]}
    )
    names = [name_of_row(row) for row in rows.itertuples(index=False)]
    assert names == ["x 12,800, y 0 · a.svs", "b/c.png"]
    assert name_of_row(next(rows[["file"]].itertuples(index=False))) == "set/a.svs"
