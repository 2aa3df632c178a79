"""What a model's figures say of themselves: groups that are real, folds that are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.jobs.running import run_here
from cnsapp.services import jobs
from cnsapp.services.evaluation import evaluate_model
from cnsapp.services.metadata import add_metadata
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.training import start_training
from db.models import Image, NearPair
from tests.integration.worlds import World, make_world

TINY: dict[str, Any] = {
    "image_size": 32, "epochs": 1, "batch_size": 16, "test_views": "1", "patience": 0,
}  # fmt: skip


def trained(world: World, preset: str = "quick", **options: Any) -> ModelView:
    backbone = "efficientnet_lite0" if preset == "quick" else "small_cnn"
    job_id = start_training(
        world.app, project_id=world.project_id, preset=preset, backbone=backbone, options=options
    )
    run_here(world.app, job_id)
    job = jobs.get_job(world.app.store, job_id=job_id)
    assert job.state == "done", job.error
    return get_model(world.app.store, model_id=job.result["model_id"])


@pytest.fixture
def paired(app: App) -> World:
    """Return a project without groups, two of whose images show the same."""
    world = make_world(app, {"liver": 15, "lung": 15}, side=32)
    a, b = world.image_ids[0][:2]
    with app.store.writing() as session:
        session.add(
            NearPair(image_a=a, image_b=b, project_id=world.project_id, similarity=0.97, answer="")
        )
    return world


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_two_pictures_that_look_the_same_are_no_groups(paired: World, preset: str) -> None:
    model = trained(paired, preset, **(TINY if preset == "full" else {}))
    assert (model.metrics["interval_by"], model.metrics["n_groups"]) == ("image", None)
    assert {c["recall_interval_by"] for c in model.metrics["per_class"]} == {"image"}
    found = evaluate_model(paired.app.store, model.id).scores
    assert (found.interval_by, found.n_groups) == ("image", None)
    interval = model.metrics["balanced_accuracy_interval"]
    assert interval == pytest.approx(found.interval)


def test_images_that_are_never_held_out_are_no_fold(app: App, tmp_path: Path) -> None:
    world = make_world(app, {"liver": 12, "lung": 12}, n_groups=6, side=32)
    with app.store.reading() as session:
        rows = session.execute(select(Image.file_name, Image.group_key)).all()
    table = tmp_path / "batches.csv"
    batches = {"0": "a", "1": "b", "2": "c", "3": "a", "4": "b"}  # patient 5 has none
    lines = [f"{name},{batches.get(str(group)[-1], '')}" for name, group in rows]
    table.write_text("\n".join(["file,batch", *lines]))
    add_metadata(app.store, project_id=world.project_id, csv=table)
    model = trained(world, scheme="by column", column="batch")
    assert (model.metrics["n_folds"], model.metrics["n"]) == (3, 20)


def test_patients_that_share_a_picture_are_one_in_every_figure(app: App) -> None:
    world = make_world(app, {"liver": 18, "lung": 18}, n_groups=9, side=32)
    a, b = world.image_ids[0][:2]  # of two patients
    with app.store.writing() as session:
        session.add(
            NearPair(image_a=a, image_b=b, project_id=world.project_id, similarity=0.97, answer="")
        )
    model = trained(world)
    found = evaluate_model(app.store, model.id, by="group")
    assert model.metrics["n_groups"] == found.scores.n_groups == found.curves.n_groups == 8
    assert model.metrics["balanced_accuracy_interval"] == pytest.approx(found.scores.interval)
    assert len(found.slices or []) == 9  # each patient is told by its own name
