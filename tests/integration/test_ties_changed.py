"""Groups, near-duplicates or a split that changed since: such a run is no repetition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.jobs.running import run_here
from cnsapp.ml.finetune import Finetuner
from cnsapp.services import jobs, splits
from cnsapp.services.model_standing import differs_today
from cnsapp.services.models import get_model
from cnsapp.services.preflight import preflight
from cnsapp.services.training import start_training
from db.models import Image, NearPair, Prediction
from tests.integration.worlds import World, make_world

TINY: dict[str, Any] = {
    "image_size": 32, "epochs": 1, "batch_size": 16, "test_views": "1", "patience": 0,
}  # fmt: skip


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 15, "lung": 15}, n_groups=10, side=32)


def run(world: World, preset: str, options: dict[str, Any]) -> jobs.JobView:
    backbone = "efficientnet_lite0" if preset == "quick" else "small_cnn"
    job_id = start_training(
        world.app, project_id=world.project_id, preset=preset, backbone=backbone, options=options
    )
    run_here(world.app, job_id)
    return jobs.get_job(world.app.store, job_id=job_id)


def made_before(world: World) -> int | None:
    same = preflight(world.app, project_id=world.project_id).same_as
    return None if same is None else same.id


def near_pair(world: World) -> None:
    a, b = world.image_ids[0][:2]
    with world.app.store.writing() as session:
        session.add(
            NearPair(image_a=a, image_b=b, project_id=world.project_id, similarity=0.97, answer="")
        )


def other_groups(world: World) -> None:
    with world.app.store.writing() as session:
        session.execute(
            update(Image).where(Image.group_key == "patient 3").values(group_key="patient 4")
        )


def split(world: World) -> None:
    splits.create_split(world.app.store, who="Ada", project_id=world.project_id)


@pytest.mark.parametrize("change", [near_pair, other_groups, split])
def test_what_divides_the_images_otherwise_makes_another_model(
    world: World, change: Callable[[World], None]
) -> None:
    model_id = run(world, "quick", {}).result["model_id"]
    assert made_before(world) == model_id
    assert differs_today(world.app, model_id=model_id) == []
    change(world)
    assert made_before(world) is None
    assert "have changed, so images are divided anew" in " ".join(
        differs_today(world.app, model_id=model_id)
    )


def test_epochs_of_other_groups_are_not_taken_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = Finetuner.finish, [True]

    def finish(self: Finetuner, *args: Any) -> Any:
        if broken:
            raise CnsError("The lights went out.")
        return whole(self, *args)

    monkeypatch.setattr(Finetuner, "finish", finish)
    assert run(world, "full", TINY).state == "failed"
    broken.clear()
    # each class's patients turn out to be three, entered under several names
    with world.app.store.writing() as session:
        for image_id, group in session.execute(select(Image.id, Image.group_key)).all():
            session.execute(
                update(Image)
                .where(Image.id == image_id)
                .values(group_key=f"person {int(str(group)[-1]) % 3}")
            )
    job = run(world, "full", TINY)
    assert job.state == "done", job.error
    said = [p.message for p in jobs.job_points(world.app.store, job_id=job.id)]
    assert not any("Goes on from the epochs" in (line or "") for line in said)
    model = get_model(world.app.store, model_id=job.result["model_id"])
    with world.app.store.reading() as session:
        groups = dict(session.execute(select(Image.id, Image.group_key)).all())
        held = set(
            session.scalars(select(Prediction.image_id).where(Prediction.model_id == model.id))
        )
    kept_back = {groups[i] for i in held}
    assert {i for i, group in groups.items() if group in kept_back} == held
    assert np.isfinite(model.metrics["balanced_accuracy"])
