"""A model beside simpler methods: the job, from a training to the figures on the model's row."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, InvalidInputError, NotFoundError
from cnsapp.jobs.context import JobContext
from cnsapp.jobs.running import run_here
from cnsapp.ml import controls_fit, controls_quick
from cnsapp.services import jobs
from cnsapp.services.controls import controls_view, follow_training, queue_controls
from cnsapp.services.models import ModelView, current_model, get_model
from cnsapp.services.training import queue_features, start_training
from cnsapp.tasks import controls
from cnsapp.tasks.controls_rows import control_rows
from db.models import Image, Model
from tests.integration.worlds import World, make_world, relabel

SMALL = {"liver": 8, "lung": 8, "spleen": 8}


@pytest.fixture(autouse=True)
def few_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search less, for the time: what is tested here is the way of the job."""
    monkeypatch.setattr(controls_fit, "COSTS", (10.0,))
    monkeypatch.setattr(controls_fit, "WIDTHS", (1.0,))
    monkeypatch.setattr(controls_quick, "N_SHUFFLES", 3)


def trained(world: World, **options: Any) -> ModelView:
    job_id = start_training(world.app, project_id=world.project_id, options=options)
    run_here(world.app, job_id)
    job = jobs.get_job(world.app.store, job_id=job_id)
    assert job.state == "done", job.error
    return current_model(world.app.store, project_id=world.project_id)


def waiting(app: App) -> list[jobs.JobView]:
    found = jobs.list_jobs(app.store, active_only=True, kinds=["controls"])
    return [job for job in found if job.state == "queued"]


def test_a_training_is_followed_by_its_controls_and_they_end_on_the_models_row(app: App) -> None:
    world = make_world(app, SMALL, n_groups=6)
    model = trained(world)
    (job,) = waiting(app)
    assert job.payload == {"model_id": model.id, "automatic": True}
    assert controls_view(app.store, model=model).state == "waiting"
    run_here(app, job.id)
    ended = jobs.get_job(app.store, job_id=job.id)
    assert ended.state == "done", ended.error

    model = get_model(app.store, model_id=model.id)
    found = controls_view(app.store, model=model)
    assert (found.state, found.notes) == ("done", [])
    assert set(found.detail) == {
        "majority", "colour_only", "handmade_svm", "handmade_logistic", "last_layer",
        "shuffled_labels",
    }  # fmt: skip
    for key, row in found.detail.items():
        assert row["n"] == model.metrics["n"] == 24
        assert model.metrics["controls"][key] == row["balanced_accuracy"]
        low, high = row["interval"]
        assert 0 <= low <= row["balanced_accuracy"] <= high <= 1
    assert found.detail["majority"]["balanced_accuracy"] <= 0.4
    assert found.detail["colour_only"]["balanced_accuracy"] == 1.0  # the classes are colours
    assert found.detail["handmade_svm"]["n_groups"] == 6
    assert not found.detail["shuffled_labels"]["leaks"]
    assert any("Colour alone reaches 1.00" in line for line in model.metrics["warnings"])
    assert any("described by hand reach" in line for line in model.metrics["warnings"])

    shift = found.stain_shift
    assert shift is not None and shift["n"] == 24
    for points in shift["curves"].values():
        assert [point["strength"] for point in points] == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert points[0]["balanced_accuracy"] == model.metrics["balanced_accuracy"]
        assert all(0 <= point["balanced_accuracy"] <= 1 for point in points)
    assert shift["answers_again"] == 1.0  # the fold heads fitted again are those that judged


def test_the_rows_are_the_images_labels_and_folds_of_the_model(app: App) -> None:
    world = make_world(app, SMALL, n_groups=6)
    model = trained(world)
    rows = control_rows(app, model)
    assert [i.source.image_id for i in rows.images] == sorted(
        i for ids in world.image_ids[:3] for i in ids
    )
    score = controls.run_control("majority", rows.task, controls.Inputs(), rows.answers, list)
    right = (rows.answers == rows.task.labels).mean()
    assert right == pytest.approx(model.metrics["accuracy"])
    assert score["difference"] == pytest.approx(
        model.metrics["balanced_accuracy"] - score["balanced_accuracy"]
    )
    for train, held in rows.task.parts():
        groups = rows.task.groups or []
        assert not {groups[i] for i in train} & {groups[i] for i in held}


def test_labels_that_changed_since_are_taken_as_they_were_and_it_is_said(app: App) -> None:
    world = make_world(app, SMALL)
    model = trained(world)
    before = control_rows(app, model)
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    after = control_rows(app, model)
    assert after.task.labels.tolist() == before.task.labels.tolist()
    assert after.task.folds.tolist() == before.task.folds.tolist()
    assert "Labels have changed" in after.notes[0] and not before.notes


def test_groups_that_became_one_since_the_training_are_said(app: App) -> None:
    world = make_world(app, SMALL, n_groups=6)
    model = trained(world)
    with app.store.writing() as session:
        for image in session.scalars(select(Image).where(Image.group_key.is_not(None))):
            image.group_key = "patient 1"
    rows = control_rows(app, model)
    assert any("Groups with images in several folds: 1" in note for note in rows.notes)


def test_a_check_gives_way_to_a_training_and_keeps_what_it_has(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(app, SMALL)
    model = trained(world)
    (job,) = waiting(app)
    real, done = controls.run_control, []

    def run_one(key: str, *rest: Any) -> dict[str, Any]:
        found = real(key, *rest)
        done.append(key)
        if len(done) == 2:
            start_training(app, project_id=world.project_id)
        return found

    monkeypatch.setattr(controls, "run_control", run_one)
    monkeypatch.setattr(controls, "LOOK_SECONDS", 0.0)
    run_here(app, job.id)
    ended = jobs.get_job(app.store, job_id=job.id)
    assert ended.state == "done" and done == ["majority", "colour_only"]
    (rest,) = waiting(app)
    assert ended.result == {"model_id": model.id, "goes_on_as": rest.id}
    stored = get_model(app.store, model_id=model.id).metrics["controls_detail"]
    assert {"majority", "colour_only"} <= set(stored) and not stored.get("complete")

    run_here(app, next(j.id for j in jobs.list_jobs(app.store, active_only=True, kinds=["train"])))
    newest = current_model(app.store, project_id=world.project_id)
    assert newest.id != model.id
    (rest,) = waiting(app)  # the automatic check that waits turned to the newer model
    assert rest.payload["model_id"] == newest.id
    again = queue_controls(app.store, model_id=model.id)
    run_here(app, again)
    assert controls_view(app.store, model=get_model(app.store, model_id=model.id)).state == "done"
    assert done.count("majority") == 1  # what was there was not computed again


def test_features_that_wait_go_first_and_a_cancelled_check_ends(app: App) -> None:
    world = make_world(app, SMALL)
    model = trained(world)
    (job,) = waiting(app)
    queue_features(app.store, project_id=world.project_id)
    run_here(app, job.id)
    assert "goes_on_as" in jobs.get_job(app.store, job_id=job.id).result
    (rest,) = waiting(app)
    context = JobContext(
        app.store, job_id=rest.id, project_id=world.project_id, payload=dict(rest.payload)
    )
    jobs.cancel_job(app.store, job_id=rest.id)
    with pytest.raises(Cancelled):
        controls.run(app, context)
    assert controls_view(app.store, model=model).state == "stopped"


def test_asking_twice_is_one_job_and_what_cannot_be_checked_is_refused(app: App) -> None:
    world = make_world(app, SMALL)
    model = trained(world)
    (job,) = waiting(app)
    assert queue_controls(app.store, model_id=model.id) == job.id
    assert follow_training(app.store, model_id=model.id) == job.id
    with pytest.raises(NotFoundError, match="no model number 999"):
        queue_controls(app.store, model_id=999)
    with app.store.writing() as session:
        row = session.get(Model, model.id)
        assert row is not None
        row.metrics = {**row.metrics, "n": 0}
    with pytest.raises(InvalidInputError, match="has no score"):
        queue_controls(app.store, model_id=model.id)
    assert follow_training(app.store, model_id=model.id) is None


def test_a_picture_that_is_gone_is_named(app: App) -> None:
    world = make_world(app, SMALL)
    model = trained(world)
    rows = control_rows(app, model)
    rows.sources[0].path.unlink()
    (job,) = waiting(app)
    run_here(app, job.id)
    ended = jobs.get_job(app.store, job_id=job.id)
    assert ended.state == "failed"
    assert rows.sources[0].name in (ended.error or "") and "can no longer be read" in ended.error
