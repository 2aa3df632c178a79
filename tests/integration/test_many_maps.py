"""Maps of many images in one job, their cache, their checks: as the worker makes them."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from cnsapp.bootstrap import App, open_app
from cnsapp.cli import main
from cnsapp.domain.maps import DEFAULT_METHOD
from cnsapp.errors import Cancelled, InvalidInputError, NotFoundError
from cnsapp.http import KEY
from cnsapp.jobs.running import run_here
from cnsapp.ml.backbones import BACKBONES, DEFAULT_BACKBONE
from cnsapp.ml.saliency import explain
from cnsapp.services import explaining, jobs
from cnsapp.services.classes import rename_class
from cnsapp.services.exclusion import exclude
from cnsapp.services.map_files import map_key, picture_path, read_randomisation
from cnsapp.services.models import current_model
from cnsapp.services.training import start_training
from cnsapp.settings import Settings
from cnsapp.tasks.explain import stopping
from cnsapp.tasks.explain_facts import facts_of
from cnsapp.tasks.maps import as_levels, as_rgba, scale_colours
from cnsapp.tasks.resources import predictor_of
from db.models import Image
from tests.integration.worlds import World, add_model, draw, make_world

SIDE = 64  # pixels of the network's input


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a project with one trained model of two classes, and images without a label.

    The network is the real one, with a small input and in one thread: a check looks at hundreds of
    pictures, and on a busy machine threads that share so little wait for each other most of all.
    """
    row, n_threads = BACKBONES[DEFAULT_BACKBONE], torch.get_num_threads()
    small = replace(row, preprocessing=replace(row.preprocessing, size=SIDE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, DEFAULT_BACKBONE, small)
        patch.setattr("cnsapp.tasks.resources._extractors", OrderedDict())
        torch.set_num_threads(1)
        app = open_app(Settings(home=tmp_path_factory.mktemp("maps") / "home", device="cpu"))
        world = make_world(app, {"liver": 8, "lung": 8}, unlabelled=6, side=40)
        run_here(app, start_training(app, project_id=world.project_id))
        yield world
        torch.set_num_threads(n_threads)
        app.store.engine.dispose()


@pytest.fixture
def model_id(world: World) -> int:
    return current_model(world.app.store, project_id=world.project_id).id


def done(app: App, job_id: int | None) -> jobs.JobView:
    assert job_id is not None
    run_here(app, job_id)
    job = jobs.get_job(app.store, job_id=job_id)
    assert job.state == "done", job.error
    return job


def one(world: World, model_id: int, image_id: int, **more: Any) -> explaining.MapRequest:
    """Return a map that is there, made when it was not."""
    asked = explaining.request_map(world.app, model_id=model_id, image_id=image_id, **more)
    if not asked.ready:
        done(world.app, asked.job_id)
    return explaining.request_map(world.app, model_id=model_id, image_id=image_id, **more)


def test_one_job_makes_the_maps_of_many_images_methods_and_classes(
    world: World, model_id: int
) -> None:
    app, images = world.app, world.image_ids[2][:3]
    asked = explaining.request_maps(
        app, model_id=model_id, image_ids=images, methods=[DEFAULT_METHOD, "input_x_gradient"],
        targets=[None, *world.class_ids],
    )  # fmt: skip
    assert len(asked.wishes) == 3 * 2 * 3 and asked.n_ready == 0
    assert len({wish.key for wish in asked.wishes}) == 18
    job = done(app, asked.job_id)
    assert job.kind == "explain_many" and job.progress == 1 and job.message == "18 of 18 maps"
    assert job.result["n_made"] == 18 and job.result["n_failed"] == 0
    for wish in asked.wishes:
        facts = explaining.read_facts(app.store, wish.key)
        assert facts is not None and facts["method"] == wish.method
        assert wish.target_class in (None, facts["class_id"])
    again = explaining.request_maps(
        app, model_id=model_id, image_ids=images, methods=[DEFAULT_METHOD], targets=[None]
    )
    assert again.job_id is None and again.n_ready == 3
    single = explaining.request_map(app, model_id=model_id, image_id=images[0])
    assert single.ready and single.key == again.wishes[0].key
    more = explaining.request_maps(app, model_id=model_id, image_ids=world.image_ids[2][:4])
    assert more.n_ready == 3 and done(app, more.job_id).result["n_made"] == 1


def test_an_image_that_is_gone_does_not_stop_the_others(world: World, model_id: int) -> None:
    app, (gone, there) = world.app, world.image_ids[0][:2]
    with app.store.reading() as session:
        path = app.store.path(session.get_one(Image, gone).stored_path)
    asked = explaining.request_maps(app, model_id=model_id, image_ids=[gone, there])
    content = path.read_bytes()
    path.unlink()
    try:
        job = done(app, asked.job_id)
    finally:
        path.write_bytes(content)
    assert [f["image_id"] for f in job.result["failed"]] == [gone]
    assert job.result["failed"][0]["file"] == "class0/1.png"
    assert "missing from the data folder" in job.result["failed"][0]["reason"]
    assert job.result["n_made"] == 1
    assert explaining.read_facts(app.store, asked.wishes[0].key) is None
    assert explaining.read_facts(app.store, asked.wishes[1].key) is not None


def test_when_nothing_can_be_made_the_job_fails_in_words(world: World, model_id: int) -> None:
    app, gone = world.app, world.image_ids[0][2]
    with app.store.reading() as session:
        path = app.store.path(session.get_one(Image, gone).stored_path)
    asked = explaining.request_maps(app, model_id=model_id, image_ids=[gone])
    content = path.read_bytes()
    path.unlink()
    try:
        assert asked.job_id is not None
        run_here(app, asked.job_id)
    finally:
        path.write_bytes(content)
    job = jobs.get_job(app.store, job_id=asked.job_id)
    assert job.state == "failed" and "missing from the data folder" in (job.error or "")


def test_cancelling_keeps_what_is_done_and_leaves_no_half_map(world: World, model_id: int) -> None:
    app, images = world.app, [i for ids in world.image_ids for i in ids]
    asked = explaining.request_maps(
        app, model_id=model_id, image_ids=images, methods=["integrated_gradients"],
        targets=world.class_ids, settings={"integrated_gradients": {"steps": 6}},
    )  # fmt: skip
    assert asked.job_id is not None
    thread = threading.Thread(target=run_here, args=(app, asked.job_id))
    thread.start()
    deadline = time.monotonic() + 60
    while jobs.get_job(app.store, job_id=asked.job_id).progress <= 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with app.store.engine.begin() as connection:  # as `cancel_job` does while a worker lives
        connection.exec_driver_sql(f"UPDATE job SET cancel_requested = 1 WHERE id = {asked.job_id}")
    thread.join()
    assert jobs.get_job(app.store, job_id=asked.job_id).state == "cancelled"
    there = [explaining.read_facts(app.store, wish.key) is not None for wish in asked.wishes]
    assert any(there) and not all(there)
    assert not list(app.store.path("saliency").glob(".*"))


@pytest.mark.parametrize("harm", ["cut", "changed", "levels gone", "facts cut", "other version"])
def test_a_torn_or_stale_map_is_noticed_and_made_again(
    world: World, model_id: int, harm: str
) -> None:
    app, image_id = world.app, world.image_ids[1][0]
    made = one(world, model_id, image_id)
    png, noted = picture_path(app.store, made.key), app.store.path("saliency", f"{made.key}.json")
    whole = png.read_bytes()
    if harm == "cut":
        png.write_bytes(whole[:-20])
    elif harm == "changed":
        png.write_bytes(whole[:-1] + b"x")
    elif harm == "levels gone":
        picture_path(app.store, made.key, "levels").unlink()
    elif harm == "facts cut":
        noted.write_text(noted.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    else:
        facts = json.loads(noted.read_text(encoding="utf-8")) | {"version": 1}
        noted.write_text(json.dumps(facts), encoding="utf-8")
    assert explaining.read_facts(app.store, made.key) is None
    asked = explaining.request_map(app, model_id=model_id, image_id=image_id)
    assert not asked.ready and asked.key == made.key
    done(app, asked.job_id)
    assert png.read_bytes() == whole
    assert explaining.request_map(app, model_id=model_id, image_id=image_id).ready


def test_checks_come_behind_the_map_and_the_one_of_the_model_is_made_once(
    world: World, model_id: int
) -> None:
    app, (first, second) = world.app, world.image_ids[1][1:3]
    model = current_model(app.store, project_id=world.project_id)
    plain = one(world, model_id, first)
    assert plain.facts["faithfulness"] is None and plain.job_id is None
    asked = explaining.request_map(app, model_id=model_id, image_id=first, checks=True)
    assert asked.ready and asked.job_id is not None  # shown at once, checked behind it
    again = explaining.request_map(app, model_id=model_id, image_id=first, checks=True)
    assert again.job_id == asked.job_id
    done(app, asked.job_id)
    checked = explaining.request_map(app, model_id=model_id, image_id=first, checks=True)
    assert checked.ready and checked.job_id is None
    faith = checked.facts["faithfulness"]
    assert len(faith["insertion"]) == len(faith["deletion"]) == 11
    p = checked.facts["probability"]
    assert faith["insertion"][-1] == faith["deletion"][0] == pytest.approx(p, abs=0.05)
    assert faith["score"] == pytest.approx(faith["insertion_area"] - faith["deletion_area"])
    assert ("No better than random" in faith["verdict"]) is not faith["beats_random"]
    random = read_randomisation(app.store, model.sha256, DEFAULT_METHOD)
    assert random is not None and checked.facts["randomisation"] == random
    assert random["n_images"] == 3 and random["depths"][-1] == "everything"
    other = one(world, model_id, second)
    assert other.facts["randomisation"] == random  # of the model and method, not of the image


def test_many_maps_can_be_checked_in_the_same_job(
    world: World, model_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, image_id = world.app, world.image_ids[1][3]
    monkeypatch.setattr("cnsapp.tasks.explain.sample_images", lambda *_, **__: [image_id])
    asked = explaining.request_maps(
        app, model_id=model_id, image_ids=[image_id],
        methods=["gradcam", "integrated_gradients"], checks=True,
    )  # fmt: skip
    done(app, asked.job_id)
    first, second = (explaining.read_facts(app.store, wish.key) or {} for wish in asked.wishes)
    assert explaining.is_checked(first) and explaining.is_checked(second)
    assert len(first["faithfulness"]["random_scores"]) == 4
    # each map is held against itself at other places, both against the same spot in the middle
    assert first["faithfulness"]["random_scores"] != second["faithfulness"]["random_scores"]
    assert first["faithfulness"]["center_score"] == second["faithfulness"]["center_score"]
    assert first["completeness"] is None and second["completeness"]["share"] >= 0
    error = second["completeness"]["error"]
    assert second["delta"] == error


def test_the_sample_of_a_models_check_has_every_answer_and_nothing_excluded(app: App) -> None:
    world = make_world(app, {"liver": 4, "lung": 2}, name="sampled")
    (liver, lung), (a, b) = world.class_ids, world.image_ids[:2]
    model_id = add_model(
        world, [(i, liver, liver, 0.9) for i in a] + [(i, lung, lung, 0.8) for i in b]
    )
    assert explaining.sample_images(app.store, model_id=model_id) == [a[0], b[0], a[1]]
    exclude(app.store, project_id=world.project_id, image_ids=[a[0], b[0]], who="ann")
    assert explaining.sample_images(app.store, model_id=model_id) == [a[1], b[1], a[2]]
    assert explaining.sample_images(app.store, model_id=model_id, limit=1) == [a[1]]


def test_a_map_that_takes_long_is_cancelled_before_its_next_look() -> None:
    net = torch.nn.Linear(2, 2)

    def stop() -> None:
        raise Cancelled

    job: Any = SimpleNamespace(check_cancelled=stop)
    with pytest.raises(Cancelled), stopping(net, job):
        net(torch.zeros(1, 2))
    assert net(torch.zeros(1, 2)).shape == (1, 2)  # no hook is left


def test_facts_say_that_nothing_or_little_is_shown(world: World) -> None:
    model = current_model(world.app.store, project_id=world.project_id)
    loaded = predictor_of(world.app, model).predictor
    image = np.full((64, 64, 3), 200, np.uint8)
    p = loaded.predict([image])[0]
    made = explain(loaded, image, 0, "occlusion")
    told = facts_of(model, loaded, made, p)
    assert told["empty"] and "No place in this image changes the answer" in told["note"]
    raw = np.full((14, 14), -1, np.float32)
    raw[3, 3] = 2
    told = facts_of(model, loaded, replace(made, raw=raw, has_positive=True, scale=2.0), p)
    assert not told["empty"] and told["note"] == ""
    assert (
        f"Hardly anything speaks for {told['class']}:" in told["notes"][0]
        and "1%" in told["notes"][0]
    )


def test_settings_have_maps_of_their_own_and_are_said(world: World, model_id: int) -> None:
    image_id = world.image_ids[1][4]
    plain = one(world, model_id, image_id)
    signed = one(world, model_id, image_id, settings={"show": "signed"})
    assert plain.key != signed.key
    assert (plain.facts["sign"], signed.facts["sign"]) == ("positive", "signed")
    name = signed.facts["class"]
    assert signed.facts["legend"]["low"] == f"speaks against {name}"
    assert signed.facts["legend"]["colours"] == scale_colours("signed")
    assert plain.facts["settings"] == {"show": "positive"} and plain.facts["scale"] > 0
    assert np.array(plain.facts["cells"]).shape == (14, 14)
    with pytest.raises(InvalidInputError, match="no setting “steps”"):
        one(world, model_id, image_id, settings={"steps": 5})


def test_a_kept_map_names_its_classes_as_they_are_called_today(world: World, model_id: int) -> None:
    image_id, (liver, _) = world.image_ids[1][5], world.class_ids[:2]
    plain = one(world, model_id, image_id, target_class=liver)
    assert plain.facts["legend"]["high"] == "most evidence for liver"
    rename_class(world.app.store, class_id=liver, name="hepatic tissue", who="ann")
    try:
        asked = explaining.request_map(
            world.app, model_id=model_id, image_id=image_id, target_class=liver
        )
    finally:
        rename_class(world.app.store, class_id=liver, name="liver", who="ann")
    assert asked.ready and asked.key == plain.key
    assert asked.facts["class"] == "hepatic tissue"
    assert asked.facts["legend"]["high"] == "most evidence for hepatic tissue"
    assert asked.facts["legend"]["colours"] == plain.facts["legend"]["colours"]


def test_what_is_not_valid_for_a_model_is_refused_with_the_reason(
    world: World, model_id: int
) -> None:
    app, image_id = world.app, world.image_ids[1][0]
    reasons = {o.method.id: o.reason for o in explaining.methods_for(app, model_id=model_id)}
    assert "other non-linearities than ReLU" in reasons["guided_backprop"]
    assert {m[0] for m in explaining.methods()} == {m for m, why in reasons.items() if not why}
    with pytest.raises(InvalidInputError, match="not offered for this model"):
        explaining.request_map(app, model_id=model_id, image_id=image_id, method="guided_backprop")
    with pytest.raises(InvalidInputError, match="not offered for this model"):
        explaining.request_maps(
            app, model_id=model_id, image_ids=[image_id], methods=["gradcam", "guided_gradcam"]
        )
    with pytest.raises(NotFoundError, match="no image number 9999"):
        explaining.request_maps(app, model_id=model_id, image_ids=[image_id, 9999])
    with pytest.raises(InvalidInputError, match="are too many at once"):
        explaining.request_maps(app, model_id=model_id, image_ids=[image_id] * 6000)


def test_the_name_of_a_map_depends_on_all_that_it_shows() -> None:
    base = ("m" * 64, "i" * 64, "gradcam", None, {"show": "positive"}, "r")
    others = [
        ("n" * 64, *base[1:]), (base[0], "j" * 64, *base[2:]), (*base[:2], "occlusion", *base[3:]),
        (*base[:3], 4, *base[4:]), (*base[:4], {"show": "signed"}, base[5]), (*base[:5], "q"),
    ]  # fmt: skip
    keys = {map_key(*base), *(map_key(*other) for other in others)}
    assert len(keys) == 7 and all(KEY.fullmatch(f"{key}-levels") for key in keys)


def test_the_command_takes_settings_and_says_what_the_map_is_worth(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CNS_HOME", str(world.app.store.root))
    monkeypatch.setattr("cnsapp.cli_learn.finish", done)
    draw(tmp_path / "a.png", 0, 77)
    out = tmp_path / "why.png"
    ask = ["explain", str(tmp_path / "a.png"), "--project", "world", "--out", str(out)]
    assert main([*ask, "--set", "show=signed", "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sign"] == "signed" and told["faithfulness"]["verdict"]
    with Picture.open(out) as png:
        assert png.size == (48, 48)
    assert main([*ask, "--method", "guided_backprop"]) == 1
    assert "plain gradients under another name" in capsys.readouterr().err
    assert main([*ask, "--set", "steps=3"]) == 1


def test_signed_levels_lie_around_the_middle_and_their_colours_differ() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0], heat[3, 3] = 1, -1
    levels = np.asarray(as_levels(heat, (4, 4), "signed"))
    assert (levels[0, 0], levels[3, 3], levels[1, 1]) == (255, 1, 128)
    rgba = np.asarray(as_rgba(heat, (4, 4), "signed")).astype(int)
    assert rgba[1, 1, 3] == 0 and rgba[0, 0, 3] > 190 and rgba[3, 3, 3] > 190
    assert rgba[0, 0, 0] > rgba[0, 0, 2] and rgba[3, 3, 2] > rgba[3, 3, 0]  # for: brown; against
    assert len(scale_colours("positive")) == 8 and scale_colours("signed")[3] == "#f7f7f7"
