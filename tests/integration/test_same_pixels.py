"""Thumbnail, training, prediction and saliency see the same pixels of the same file.

Each step is made to run, and what it feeds on is caught at its far end: the files that the browser
gets, and the arrays that reach the network. The expected pixels are made by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture
from sqlalchemy import Row, select

import cnsapp.ml.features
import cnsapp.ml.predict
from cnsapp.bootstrap import App, open_app
from cnsapp.imaging import isolated
from cnsapp.imaging.decoded import ImageFacts
from cnsapp.imaging.reader import ReadResult, read_image
from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.store import ImageFolder
from cnsapp.imaging.thumbs import make_thumbs
from cnsapp.jobs.running import run_here
from cnsapp.ml.preprocess import make_view
from cnsapp.services import explaining, import_work
from cnsapp.services.images import reading_rule
from cnsapp.services.importing import import_folder
from cnsapp.services.models import current_model
from cnsapp.services.predicting import start_prediction
from cnsapp.services.projects import create_project
from cnsapp.services.training import start_training
from cnsapp.settings import Settings
from cnsapp.tasks import predict_reading, resources
from db.models import Image, Project

SIDE = 300  # larger than a thumbnail, so that there is a view beside it
TILES = 2  # pictures a class and kind
Pixels = NDArray[np.uint8]
RULE = ReadingRule(
    windows=(("uint16", 100.0, 3000.0),),
    page="max",
    channels=(Channel(0, "#0000FF", 0, 4000), Channel(2, "#FFFF00", 500, 2500)),
    background="#C08040",
)


def waves(seed: int, planes: int) -> NDArray[np.float64]:
    """Return (SIDE, SIDE, planes) from 0 to 1, another pattern for each seed."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    steps = 3 + seed % 7 + np.arange(planes)
    return np.stack([0.5 + 0.5 * np.sin(s * (2 * x + y) + seed) * np.cos(s * y) for s in steps], -1)


def sixteen_bit(path: Path, seed: int) -> Pixels:
    samples = (waves(seed, 1)[..., 0] * 4000).astype(np.uint16)
    tifffile.imwrite(path.with_suffix(".tif"), samples)
    shown = np.clip((samples - 100.0) / 2900.0, 0, 1) * 255 + 0.5
    return np.repeat(shown.astype(np.uint8)[..., None], 3, -1)


def rotated_jpeg(path: Path, seed: int) -> Pixels:
    exif = Picture.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    image = Picture.fromarray((waves(seed, 3)[:200] * 255).astype(np.uint8))
    image.save(path.with_suffix(".jpg"), exif=exif, quality=95)
    with Picture.open(path.with_suffix(".jpg")) as stored:
        return np.rot90(np.asarray(stored), -1)


def cmyk(path: Path, seed: int) -> Pixels:
    ink = (waves(seed, 4) * 255).astype(np.uint8)
    tifffile.imwrite(path.with_suffix(".tif"), ink, photometric="separated")
    left = 255 - ink.astype(float)
    return (left[..., :3] * left[..., 3:] / 255 + 0.5).astype(np.uint8)


def transparent(path: Path, seed: int) -> Pixels:
    rgba = (waves(seed, 4) * 255).astype(np.uint8)
    Picture.fromarray(rgba, "RGBA").save(path.with_suffix(".png"))
    share = rgba[..., 3:] / 255.0
    return (rgba[..., :3] * share + np.array([0xC0, 0x80, 0x40]) * (1 - share) + 0.5).astype(
        np.uint8
    )


def channels(path: Path, seed: int) -> Pixels:
    planes = (np.moveaxis(waves(seed, 6), -1, 0) * 4000).astype(np.uint16).reshape(2, 3, SIDE, SIDE)
    tifffile.imwrite(path.with_suffix(".ome.tif"), planes, ome=True, photometric="minisblack",
                     metadata={"axes": "ZCYX"})  # fmt: skip
    largest = planes.max(0).astype(float)
    blue = np.clip(largest[0] / 4000, 0, 1) * 255
    yellow = np.clip((largest[2] - 500) / 2000, 0, 1) * 255
    return (np.stack([yellow, yellow, blue], -1) + 0.5).astype(np.uint8)


MAKERS: list[Callable[[Path, int], Pixels]] = [
    sixteen_bit, rotated_jpeg, cmyk, transparent, channels,
]  # fmt: skip


class Spies:
    """What reached the network, by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.caught: dict[str, list[Pixels]] = {"features": [], "predict": [], "saliency": []}
        self.step = "predict"
        extract = cnsapp.ml.features.FeatureExtractor.extract_views
        ask = cnsapp.ml.predict.Predictor.predict

        def extract_views(this: Any, images: Any, views: Any, keys: Any = None, **more: Any) -> Any:
            pictures = list(images)
            if keys is not None:
                self.caught["features"] += pictures
            return extract(this, pictures, views, keys, **more)

        def predicted(this: Any, images: Iterable[Pixels], **more: Any) -> Any:
            pictures = list(images)
            self.caught[self.step] += pictures
            return ask(this, pictures, **more)

        monkeypatch.setattr(cnsapp.ml.features.FeatureExtractor, "extract_views", extract_views)
        monkeypatch.setattr(cnsapp.ml.predict.Predictor, "predict", predicted)


class World:
    """A project whose images are one of each kind and class, and what they should look like."""

    def __init__(self, folder: Path) -> None:
        self.app: App = open_app(Settings(home=folder / "home", device="cpu", start_worker=False))
        self.files, self.new = folder / "files", folder / "new"
        self.right: dict[str, Pixels] = {}  # by name in the project
        self.right_new: list[Pixels] = []
        for n, make in enumerate(MAKERS):
            for seed in range(2 * TILES):
                place = self.files / f"class {seed % 2}" / f"{make.__name__}{seed}"
                place.parent.mkdir(parents=True, exist_ok=True)
                right = make(place, 10 * n + seed)
                written = next(place.parent.glob(f"{place.name}.*"))
                self.right[written.relative_to(self.files).as_posix()] = right
            self.new.mkdir(exist_ok=True)
            self.right_new.append(make(self.new / make.__name__, 100 + n))
        self.project_id = create_project(
            self.app.store, name="same", classes=["class 0", "class 1"]
        ).id
        with self.app.store.writing() as session:
            project = session.get_one(Project, self.project_id)
            project.settings = {**project.settings, "reading": RULE.as_json()}

    def run(self, monkeypatch: pytest.MonkeyPatch) -> Spies:
        """Import, train, predict and explain everything, and return what was seen."""
        app = self.app
        report = import_folder(app, project_id=self.project_id, path=self.files, labels="folders")
        assert report.imported == len(self.right), report.skipped
        spies = Spies(monkeypatch)
        spies.step = "out of fold"
        spies.caught["out of fold"] = []
        run_here(app, start_training(app, project_id=self.project_id))
        spies.step = "predict"
        run_here(app, start_prediction(app, project_id=self.project_id, path=self.new))
        spies.step = "saliency"
        model = current_model(app.store, project_id=self.project_id)
        for row in self.rows()[:: 2 * TILES]:  # one of each kind
            asked = explaining.request_map(app, model_id=model.id, image_id=row.id)
            assert asked.job_id is not None
            run_here(app, asked.job_id)
        return spies

    def rows(self) -> list[Row[tuple[int, str, str, str]]]:
        """Return id, name, hash and sign of each image, kind by kind."""
        query = select(Image.id, Image.file_name, Image.sha256, Image.seen)
        with self.app.store.reading() as session:
            found = list(session.execute(query))
        return sorted(found, key=lambda row: row.file_name.split("/")[1])


def is_among(right: Pixels, caught: list[Pixels]) -> bool:
    """Return whether a picture at network size was seen; by hand it may differ by a rounding."""
    view = make_view(right, len(caught[0])).astype(int)
    return any(np.abs(picture - view).max() <= 2 for picture in caught)


def wrong_steps(world: World, spies: Spies, folder: Path) -> set[str]:
    """Return the steps that saw something else of any file."""
    wrong: set[str] = set()
    store = ImageFolder(world.app.store.root)
    for right in world.right_new:
        if not is_among(right, spies.caught["predict"]):
            wrong.add("predict")
    for n, row in enumerate(world.rows()):
        right = world.right[row.file_name]
        if not is_among(right, spies.caught["features"]):
            wrong.add("features")
        if n % (2 * TILES) == 0 and not is_among(right, spies.caught["saliency"]):
            wrong.add("saliency")
        make_thumbs(right, folder / "xx" / "thumbnail", folder / "xx" / "view")
        for step, made in (
            ("thumbnail", store.thumb_path(row.sha256, row.seen)),
            ("view", store.view_path(row.sha256, row.seen)),
        ):
            with Picture.open(folder / "xx" / step) as a, Picture.open(made) as b:
                if a.size != b.size or np.abs(np.asarray(a, int) - np.asarray(b, int)).mean() > 1:
                    wrong.add(step)
    return wrong


def test_five_steps_see_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    spies = world.run(monkeypatch)
    assert wrong_steps(world, spies, tmp_path) == set()
    assert len(spies.caught["features"]) == len(world.right)
    assert len(spies.caught["predict"]) == len(world.right_new)
    assert len(spies.caught["saliency"]) == len(MAKERS)


def test_steps_that_read_for_themselves_would_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_reading, "read_image", by_itself)
    monkeypatch.setattr(resources, "read_image", by_itself)
    monkeypatch.setattr(import_work, "look_at", look_by_itself)
    world = World(tmp_path)
    wrong = wrong_steps(world, world.run(monkeypatch), tmp_path)
    assert wrong == {"thumbnail", "view", "features", "predict", "saliency"}


def by_itself(path: Path, *_: Any, **__: Any) -> ReadResult:
    """Read a file as somebody would who does not know the reading rule."""
    with Picture.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return ReadResult(pixels, read_image(path, RULE).facts)


def look_by_itself(path: Path, *_: Any, root: Path, sha256: str, **__: Any) -> ImageFacts:
    result, store = by_itself(path), ImageFolder(root)
    seen = result.facts.seen
    make_thumbs(result.pixels, store.thumb_path(sha256, seen), store.view_path(sha256, seen))
    return result.facts


def test_the_reader_in_another_process_gives_the_very_same(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name, right in world.right.items():
        here, there = (f(world.files / name, RULE) for f in (read_image, isolated.read_image))
        assert (here.pixels == there.pixels).all()
        assert here.facts == there.facts
        assert np.abs(here.pixels.astype(int) - right).max() <= 1


@pytest.mark.parametrize(
    ("how", "window"), [("range", (0, 65535)), ("percentile", (100, 200)), ("fixed", None)]
)
def test_an_import_finds_the_window_as_the_project_says(
    tmp_path: Path, app: App, how: str, window: tuple[int, int] | None
) -> None:
    samples = np.linspace(100, 200, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    samples[5, 5] = 60000  # a speck
    (tmp_path / "files").mkdir()
    tifffile.imwrite(tmp_path / "files" / "x.tif", samples)
    project_id = create_project(app.store, name="deep", classes=["a", "b"]).id
    with app.store.writing() as session:
        project = session.get_one(Project, project_id)
        rule = ReadingRule(windows_from=how)
        project.settings = {**project.settings, "reading": rule.as_json()}
    report = import_folder(app, project_id=project_id, path=tmp_path / "files")
    found = reading_rule(app.store, project_id=project_id).window("uint16")
    if window is None:
        assert found is None
        assert [row.file for row in report.skipped] == ["x.tif"]
        assert "set by hand" in report.skipped[0].reason
    else:
        assert report.imported == 1
        assert found == pytest.approx(window, abs=1)
