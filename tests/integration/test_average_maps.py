"""What a model looks at in a class: the arithmetic, the maps, and the figures beside them."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from cnsapp.bootstrap import App, open_app
from cnsapp.domain.average_maps import SIDE, average_map
from cnsapp.errors import NotFoundError
from cnsapp.imaging.store import ImageFolder
from cnsapp.jobs.running import run_here
from cnsapp.services import average_maps, by_class, explaining, jobs
from cnsapp.services.exclusion import exclude
from cnsapp.services.images import get_image
from cnsapp.services.map_files import picture_path
from cnsapp.services.models import current_model
from cnsapp.services.training import start_training
from cnsapp.settings import Settings
from db.models import Prediction
from tests.integration.worlds import World, add_model, make_world, relabel

# the arithmetic ---------------------------------------------------------------------------------


def ring() -> np.ndarray:
    """Return a map that has something in the outer tenth alone."""
    one = np.ones((SIDE, SIDE))
    one[6:54, 6:54] = 0
    return one


def dot() -> np.ndarray:
    """Return a map of one cell in the middle."""
    one = np.zeros((SIDE, SIDE))
    one[30, 30] = 7.0
    return one


def test_even_maps_have_the_share_of_the_area_everywhere() -> None:
    found = average_map([np.full((SIDE, SIDE), k + 1.0) for k in range(4)])
    assert found is not None and found.n == 4
    assert np.allclose(found.mean, 1)
    assert found.border.value == pytest.approx(0.36) == found.border.area  # 1 - 0.8 x 0.8
    assert found.middle.value == pytest.approx(0.25) == found.middle.area
    assert found.border.verdict == found.middle.verdict == "no difference"


def test_maps_at_the_border_are_told_from_maps_in_the_middle() -> None:
    at_border, inside = average_map([ring()] * 3), average_map([dot()] * 3)
    assert at_border is not None and inside is not None
    assert at_border.border.value == pytest.approx(1) and at_border.border.verdict == "more"
    assert at_border.middle.value == 0 and at_border.middle.verdict == "less"
    assert inside.border.value == 0 and inside.border.verdict == "less"
    assert inside.middle.value == pytest.approx(1) and inside.middle.verdict == "more"


def test_each_map_counts_the_same_however_much_is_in_it() -> None:
    faint = dot() / 1000
    found = average_map([ring(), faint])
    assert found is not None
    assert found.border.value == pytest.approx(0.5)
    assert found.mean[30, 30] == pytest.approx(SIDE * SIDE / 2)
    assert found.mean.mean() == pytest.approx(1)


def test_the_interval_is_student_s_over_independent_images() -> None:
    shares = [0.2, 0.3, 0.5, 0.4]
    maps = [s * ring() / ring().sum() + (1 - s) * dot() / 7 for s in shares]
    found = average_map(maps)
    assert found is not None and found.border.interval is not None
    reach = 3.182446 * float(np.std(shares, ddof=1)) / sqrt(4)  # 0.975 of t with 3 degrees
    assert found.border.interval == pytest.approx((0.35 - reach, 0.35 + reach), abs=1e-5)


def test_images_of_one_group_are_no_proof() -> None:
    found = average_map([ring()] * 5, ["p1"] * 5)
    assert found is not None and found.n_units == 1
    assert found.border.interval is None and found.border.verdict == "cannot be told"


def test_maps_with_nothing_in_them_are_left_out_and_counted() -> None:
    nothing = np.zeros((SIDE, SIDE))
    found = average_map([nothing, ring(), nothing], ["a", "b", "c"])
    assert found is not None
    assert (found.n, found.n_empty, found.n_units) == (1, 2, 1)
    assert average_map([nothing]) is None and average_map([]) is None


@pytest.mark.parametrize("bad", [np.ones((4, 4)), -ring(), np.full((SIDE, SIDE), np.nan)])
def test_what_is_no_map_has_no_mean(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="has no mean"):
        average_map([ring(), bad])


def test_a_picture_of_a_map_ends_in_the_scale_s_end_colours() -> None:
    values = np.zeros((SIDE, SIDE))
    values[30:, :] = 3.0
    png = average_maps.as_png(values, ["#000000", "#ff0000", "#ffff00"])
    shown = np.asarray(Picture.open(BytesIO(png)).convert("RGB"))
    assert tuple(shown[0, 0]) == (0, 0, 0) and tuple(shown[-1, -1]) == (255, 255, 0)


# the maps ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a project with one trained model of two classes; pictures of 120 px a side."""
    app = open_app(Settings(home=tmp_path_factory.mktemp("average") / "home", device="cpu"))
    world = make_world(app, {"liver": 8, "lung": 8}, unlabelled=1, n_groups=4, side=120)
    run_here(app, start_training(app, project_id=world.project_id))
    return world


def asked(world: World) -> dict[str, object]:
    model = current_model(world.app.store, project_id=world.project_id)
    return {
        "model_id": model.id,
        "class_id": world.class_ids[0],
        "image_ids": world.image_ids[0][:4],
    }


def many(app: App, project_id: int) -> list[jobs.JobView]:
    return jobs.list_jobs(app.store, project_id=project_id, kinds=["explain_many"])


def test_maps_are_made_on_request_once_and_then_have_an_average(world: World) -> None:
    app, wanted = world.app, asked(world)
    before = average_maps.class_maps(app, **wanted)  # type: ignore[arg-type]
    assert len(before.maps) == 4 and not before.ready and before.average is None
    assert before.job is None and not many(app, world.project_id)  # looking asks for nothing
    job_id = average_maps.make_class_maps(app, **wanted)  # type: ignore[arg-type]
    again = average_maps.make_class_maps(app, **wanted)  # type: ignore[arg-type]
    assert job_id is not None and again == job_id
    assert len(many(app, world.project_id)) == 1
    waiting = average_maps.class_maps(app, **wanted).job  # type: ignore[arg-type]
    assert waiting is not None and waiting.id == job_id and waiting.is_active
    run_here(app, job_id)
    found = average_maps.class_maps(app, **wanted)  # type: ignore[arg-type]
    assert len(found.ready) == 4 and found.job is None and found.are_alike
    assert average_maps.make_class_maps(app, **wanted) is None  # type: ignore[arg-type]
    full = []
    for one in found.ready:
        levels = np.asarray(Picture.open(picture_path(app.store, one.key, "levels")), float)
        assert levels.shape == (120, 120)
        if not one.is_empty:
            full.append(levels.reshape(60, 2, 60, 2).mean((1, 3)))
    assert found.average is not None and found.average.n == len(full) > 0
    mean = np.mean([one / one.sum() for one in full], 0) * 3600
    assert np.abs(found.average.mean - mean).max() < 0.02 * mean.max()  # of rounded gray levels
    inner = np.mean([one[15:45, 15:45].sum() / one.sum() for one in full])
    assert found.average.middle.value == pytest.approx(inner, abs=0.005)


def test_images_of_the_locked_test_set_get_no_map(world: World) -> None:
    app, wanted = world.app, asked(world)
    locked = world.image_ids[2][0]
    with app.store.writing() as session:
        session.add(
            Prediction(
                model_id=wanted["model_id"], image_id=locked, class_id=world.class_ids[0],
                probability=0.9, fold=None, part="test", probabilities=[0.9, 0.1],
                label_class_id=world.class_ids[0],
            )
        )  # fmt: skip
    wanted["image_ids"] = [locked, world.image_ids[0][0]]
    found = average_maps.class_maps(app, **wanted)  # type: ignore[arg-type]
    assert [one.image.id for one in found.maps] == [world.image_ids[0][0]]
    assert explaining.in_test_set(app.store, model_id=int(str(wanted["model_id"])), image_id=locked)


def test_the_average_picture_is_the_mean_of_thumbnails(app: App) -> None:
    small = make_world(app, {"liver": 2}, side=24)
    items = [get_image(app.store, image_id=i) for i in small.image_ids[0]]
    assert average_maps.average_picture(app, items) is None
    for item, value in zip(items, (40, 100), strict=True):
        place = ImageFolder(app.store.root).thumb_path(item.sha256, item.seen)
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Picture.new("RGB", (32, 32), (value, 0, 200)).save(place, "JPEG", quality=100)
    found = average_maps.average_picture(app, items)
    assert found is not None and found.shape == (SIDE, SIDE, 3)
    assert np.abs(found - np.array([70, 0, 200])).max() <= 2  # of JPEG


def test_two_spellings_of_a_group_are_one(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    small = make_world(app, {"liver": 3}, side=24)
    ready = [
        average_maps.OneMap(replace(get_image(app.store, image_id=i), group=group), f"{i}", {})
        for i, group in zip(small.image_ids[0], ("P07", "p07", "P8"), strict=True)
    ]
    monkeypatch.setattr(average_maps, "_levels", lambda _app, _one: ring())
    found = average_maps._average(app, ready)
    assert found is not None and (found.n, found.n_units) == (3, 2)


# the figures ------------------------------------------------------------------------------------


@pytest.fixture
def judged(app: App) -> tuple[World, int]:
    """Return two classes of 12 in groups of two spellings, and a model with known mistakes."""
    world = make_world(app, {"liver": 12, "colon": 12}, n_groups=3)
    liver, colon = world.class_ids
    said = [(i, liver, colon if k < 3 else liver, 0.9) for k, i in enumerate(world.image_ids[0])]
    said += [(i, colon, liver if k < 1 else colon, 0.8) for k, i in enumerate(world.image_ids[1])]
    return world, add_model(world, said)


def test_figures_of_a_class_are_those_counted_by_hand(judged: tuple[World, int]) -> None:
    world, model_id = judged
    found = by_class.figures(world.app.store, model_id=model_id)
    liver, colon = found.rows
    assert (liver.name, liver.score.n, liver.score.recall) == ("liver", 12, 9 / 12)
    assert liver.score.precision == 9 / 10 and liver.score.n_predicted == 10
    assert liver.taken_for == [("colon", 3)] and colon.taken_for == [("liver", 1)]
    assert found.scores.n == 24 and found.scores.n_groups == 3


def test_excluded_images_do_not_count_and_labels_of_today_can(judged: tuple[World, int]) -> None:
    world, model_id = judged
    store, (liver, colon) = world.app.store, world.class_ids
    exclude(store, project_id=world.project_id, image_ids=world.image_ids[0][:1], who="ann")
    relabel(world, world.image_ids[0][1], colon)
    then = by_class.figures(store, model_id=model_id).rows[0]
    now = by_class.figures(store, model_id=model_id, truth="current").rows[0]
    assert (then.score.n, then.score.recall) == (11, 9 / 11)
    assert (now.score.n, now.score.recall) == (10, 9 / 10)
    assert now.class_id == liver


def test_a_group_stands_beside_the_rest(judged: tuple[World, int]) -> None:
    world, model_id = judged
    store = world.app.store
    groups = by_class.list_groups(store, model_id=model_id)
    assert [g.name for g in groups] == ["patient 0", "patient 1", "patient 2"]
    assert sum(g.n for g in groups) == 24 and sum(g.n_right for g in groups) == 20
    sheet = by_class.group_sheet(store, model_id=model_id, group=" PATIENT 1")
    mine = [get_image(store, image_id=i).group == "patient 1" for of in world.image_ids for i in of]
    right = [k not in (0, 1, 2, 12) for k in range(24)]
    assert sheet.row.n == sum(mine)
    assert sheet.row.n_right == sum(m and r for m, r in zip(mine, right, strict=True))
    of_liver = sheet.classes[0]
    assert of_liver.n + of_liver.n_rest == 12 and of_liver.n_right + of_liver.n_right_rest == 9
    shown = [one.is_right for one in sheet.images]
    assert shown == sorted(shown) and len(shown) == sheet.row.n  # the wrong ones first
    assert all(one.image.group == "patient 1" for one in sheet.images)
    with pytest.raises(NotFoundError, match="nobody"):
        by_class.group_sheet(store, model_id=model_id, group="nobody")
