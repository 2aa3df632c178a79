"""A model's standing: which is current, what is archived, notes, and runs made from a record."""

from __future__ import annotations

import json

import pytest

from cnsapp.bootstrap import App
from cnsapp.cli import main
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import jobs, predicting
from cnsapp.services.model_standing import (
    archive_model,
    differs_today,
    note_model,
    promote_model,
    rerun_model,
    rerun_options,
    restore_model,
)
from cnsapp.services.models import current_model, get_model, list_models
from db.models import Job, Model
from tests.integration.worlds import World, add_model, draw, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 4, "lung": 4}, unlabelled=1)


def trained(world: World) -> int:
    liver, lung = world.class_ids
    said = [(i, liver, liver, 0.9) for i in world.image_ids[0]]
    return add_model(world, said + [(i, lung, lung, 0.8) for i in world.image_ids[1]])


def current(world: World) -> int:
    return current_model(world.app.store, project_id=world.project_id).id


def test_the_newest_is_current_until_one_is_promoted_and_then_the_one_promoted_last(
    world: World,
) -> None:
    store = world.app.store
    first, second = trained(world), trained(world)
    assert current(world) == second
    assert promote_model(store, model_id=first).is_current
    third = trained(world)
    assert current(world) == first  # a new model does not take over by itself
    promote_model(store, model_id=third)
    assert current(world) == third
    marks = [m.id for m in list_models(store, project_id=world.project_id) if m.is_current]
    assert marks == [third]


def test_the_current_model_is_what_predict_takes(world: World) -> None:
    first, _ = trained(world), trained(world)
    promote_model(world.app.store, model_id=first)
    picture = world.app.store.path("uploads", "a.png")
    draw(picture, 0, 1)
    job_id = predicting.start_prediction(world.app, project_id=world.project_id, path=picture)
    assert jobs.get_job(world.app.store, job_id=job_id).payload["model_id"] == first


def test_an_archived_model_is_not_offered_but_found_by_its_number(world: World) -> None:
    store = world.app.store
    first, second = trained(world), trained(world)
    assert archive_model(store, model_id=first).archived
    ids = [m.id for m in list_models(store, project_id=world.project_id)]
    assert ids == [second]
    named = list_models(store, project_id=world.project_id, also=first)
    assert [m.id for m in named] == [second, first]
    assert len(list_models(store, project_id=world.project_id, archived=True)) == 2
    assert get_model(store, model_id=first).archived
    with pytest.raises(InvalidInputError, match="is archived"):
        promote_model(store, model_id=first)
    assert not restore_model(store, model_id=first).archived


def test_the_current_model_cannot_be_archived_until_another_is_promoted(world: World) -> None:
    store = world.app.store
    first, second = trained(world), trained(world)
    with pytest.raises(InvalidInputError, match="Promote another model first"):
        archive_model(store, model_id=second)
    promote_model(store, model_id=first)
    assert archive_model(store, model_id=second).archived
    with pytest.raises(InvalidInputError, match="is the current model"):
        archive_model(store, model_id=first)


def test_a_note_is_kept_changed_and_taken_away(world: World) -> None:
    model_id, store = trained(world), world.app.store
    assert note_model(store, model_id=model_id, note="  for the poster\n").note == "for the poster"
    assert note_model(store, model_id=model_id, note="").note == ""
    with pytest.raises(InvalidInputError, match="5,000 characters"):
        note_model(store, model_id=model_id, note="x" * 5000)
    with pytest.raises(NotFoundError, match="no model number 99"):
        note_model(store, model_id=99, note="x")


def test_a_rerun_has_recipe_backbone_and_seed_of_the_record_and_says_what_differs(
    world: World,
) -> None:
    model_id, app = trained(world), world.app
    with app.store.writing() as session:
        row = session.get_one(Model, model_id)
        row.settings = {
            **row.settings,
            "recipe": {"seed": 7, "n_folds": 3, "scheme": "", "name": "old", "epochs": 4},
            "options": {"threshold": 0.8},
            "versions": {"numpy": "1.0", "nothing": "2"},
        }
    options = rerun_options(get_model(app.store, model_id=model_id))
    assert options == {"seed": 7, "n_folds": 3, "threshold": 0.8, "name": "quick 1 (again)"}
    said = " ".join(differs_today(app, model_id=model_id))
    assert "numpy 1.0 then" in said and "Labels since" not in said
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    assert "Labels since then: 1 changed" in differs_today(app, model_id=model_id)[0]
    with app.store.writing() as session:  # enough of each class is left
        session.get_one(Model, model_id).preset = "quick"
    job_id = rerun_model(app, model_id=model_id, requested_by="Ada")
    job = jobs.get_job(app.store, job_id=job_id)
    assert job.payload["rerun_of"] == model_id and job.payload["options"]["seed"] == 7
    assert job.payload["backbone"] == "efficientnet_lite0" and job.requested_by == "Ada"


def test_a_model_says_whose_rerun_it_is(world: World) -> None:
    old, new = trained(world), trained(world)
    with world.app.store.writing() as session:
        job = Job(kind="train", project_id=world.project_id, payload={"rerun_of": old})
        session.add(job)
        session.flush()
        session.get_one(Model, new).job_id = job.id
    assert get_model(world.app.store, model_id=new).rerun_of == old
    assert get_model(world.app.store, model_id=old).rerun_of is None


def test_commands_say_and_change_the_standing(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CNS_HOME", str(world.app.store.root))
    first, second = trained(world), trained(world)
    assert main(["model", "promote", str(first), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["current"] is True
    assert main(["model", "note", str(first), "good enough"]) == 0
    assert main(["model", "archive", str(second)]) == 0
    capsys.readouterr()
    assert main(["models", "--project", "world", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(m["id"], m["current"], m["archived"], m["note"]) for m in found] == [
        (second, False, True, ""),
        (first, True, False, "good enough"),
    ]
    assert {"test", "score_of", "split", "rerun_of"} <= set(found[0])
    assert main(["model", "archive", str(first)]) == 1
    assert "Promote another model first" in capsys.readouterr().err


def test_a_rerun_takes_as_many_images_a_step_as_the_gpu_had_room_for(world: World) -> None:
    model_id = trained(world)
    store = world.app.store

    def batch(device: str, asked: int) -> object:
        with store.writing() as session:
            row = session.get_one(Model, model_id)
            row.preset, row.settings = "full", {**row.settings, "recipe": {"batch_size": asked}}
            row.metrics = {
                **row.metrics, "device": device, "networks": [{"epochs": [{"batch_size": 24}]}],
            }  # fmt: skip
        return rerun_options(get_model(store, model_id=model_id))["batch_size"]

    assert batch("cuda:0", 0) == 24  # another run in its memory would make another model
    assert batch("cuda:0", 8) == 8
    assert batch("cpu", 0) == 0
