"""The sheet of changed images: asked for once, drawn by the worker, as training would see them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.jobs.running import run_here
from cnsapp.services import jobs
from cnsapp.services.augment_preview import DRAWS, NAMES, SIDE, request_sheet
from cnsapp.services.images import image_path
from cnsapp.services.projects import create_project
from tests.integration.worlds import World, make_world

STILL = dict.fromkeys(NAMES, 0.0) | {"flips": False}
STEP = SIDE + 6


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 3, "lung": 3}, unlabelled=2)


def drawn(world: World, **more: object) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Ask for a sheet, let it be drawn, and return its pixels."""
    asked = request_sheet(world.app, project_id=world.project_id, **more)  # type: ignore[arg-type]
    assert asked.path is None and asked.job_id is not None
    run_here(world.app, asked.job_id)
    made = request_sheet(world.app, project_id=world.project_id, **more)  # type: ignore[arg-type]
    assert made.path is not None, made.error
    return np.asarray(Picture.open(made.path).convert("RGBA"))


def cell(sheet: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], row: int, column: int) -> object:
    left = column * STEP + (12 if column else 0)
    return sheet[row * STEP : row * STEP + SIDE, left : left + SIDE, :3]


def test_without_changes_every_picture_is_the_image_as_it_is(world: World) -> None:
    sheet = drawn(world, options=STILL)
    for row in range(3):
        for column in range(1, DRAWS + 1):
            assert np.array_equal(cell(sheet, row, column), cell(sheet, row, 0))


def test_changes_differ_from_draw_to_draw_and_follow_the_sliders(world: World) -> None:
    strong = drawn(world, options=STILL | {"brightness": 1.0})
    weak = drawn(world, options=STILL | {"brightness": 0.2})
    far = [_distance(strong, column) for column in range(1, DRAWS + 1)]
    near = [_distance(weak, column) for column in range(1, DRAWS + 1)]
    assert len({round(d, 3) for d in far}) == DRAWS
    assert all(n < f for n, f in zip(near, far, strict=True))
    assert not np.array_equal(drawn(world, options=STILL | {"noise": 1.0}, seed=1), strong)


def _distance(sheet: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], column: int) -> float:
    before, after = np.asarray(cell(sheet, 0, 0), float), np.asarray(cell(sheet, 0, column), float)
    return float(np.abs(before - after).mean())


def test_a_sheet_is_asked_for_once_and_a_newer_wish_drops_the_older_one(world: World) -> None:
    def ask(blur: float, who: str) -> int | None:
        return request_sheet(
            world.app, project_id=world.project_id, options={"blur": blur}, requested_by=who
        ).job_id

    first = ask(0.3, "maria")
    assert first is not None and ask(0.3, "maria") == first
    other = ask(0.4, "ben")
    second = ask(0.5, "maria")
    assert other is not None and second is not None
    states = [jobs.get_job(world.app.store, job_id=i).state for i in (first, other, second)]
    assert states == ["cancelled", "queued", "queued"]
    again = ask(0.3, "maria")
    assert again not in (None, first)


def test_an_unreadable_image_is_left_out_and_only_such_ones_are_said(world: World) -> None:
    chosen = request_sheet(world.app, project_id=world.project_id, options={})
    assert chosen.job_id is not None
    ids = jobs.get_job(world.app.store, job_id=chosen.job_id).payload["image_ids"]
    image_path(world.app.store, image_id=ids[0]).write_bytes(b"no picture")
    assert drawn(world, options={"zoom": 0.7}).shape[0] == 2 * STEP - 6
    for image_id in ids[1:]:
        image_path(world.app.store, image_id=image_id).write_bytes(b"no picture")
    asked = request_sheet(world.app, project_id=world.project_id, options={"zoom": 0.8})
    assert asked.job_id is not None
    run_here(world.app, asked.job_id)
    failed = request_sheet(world.app, project_id=world.project_id, options={"zoom": 0.8})
    assert "None of the images chosen" in failed.error


def test_what_cannot_be_shown_is_said(app: App) -> None:
    project = create_project(app.store, name="empty", classes=["a"])
    with pytest.raises(NotFoundError, match="no image that could be shown"):
        request_sheet(app, project_id=project.id, options={})
    world = make_world(app, {"a": 1, "b": 1}, name="two")
    with pytest.raises(InvalidInputError, match="zoom cannot be"):
        request_sheet(app, project_id=world.project_id, options={"zoom": 7})
