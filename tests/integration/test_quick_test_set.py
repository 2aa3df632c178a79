"""Quick models beside a locked test set: it is answered once, and nothing is learnt from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.jobs.running import run_here
from cnsapp.ml.bundle import Bundle, load_bundle
from cnsapp.services import jobs
from cnsapp.services.labels import import_labels
from cnsapp.services.models import get_model
from cnsapp.services.splits import create_split
from cnsapp.services.training import start_training
from db.models import Prediction, SplitMember, SplitUse
from tests.integration.worlds import World, make_world


def trained(world: World, **options: Any) -> tuple[int, dict[str, Any]]:
    """Train in this process; return the model's number and its metrics."""
    job_id = start_training(
        world.app, project_id=world.project_id, options={"score_test": True} | options
    )
    run_here(world.app, job_id)
    job = jobs.get_job(world.app.store, job_id=job_id)
    assert job.state == "done", job.error
    return int(job.result["model_id"]), job.result["metrics"]


def file_of(world: World, model_id: int) -> Bundle:
    model = get_model(world.app.store, model_id=model_id)
    return load_bundle(world.app.store.path(model.path), model.sha256)


def rows_of(world: World, model_id: int) -> dict[int, Prediction]:
    with world.app.store.reading() as session:
        rows = session.scalars(select(Prediction).where(Prediction.model_id == model_id)).all()
        session.expunge_all()
    return {row.image_id: row for row in rows}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    from cnsapp.bootstrap import open_app
    from cnsapp.settings import Settings

    app = open_app(Settings(home=tmp_path_factory.mktemp("tested") / "home", device="cpu"))
    world = make_world(app, {"liver": 16, "lung": 16}, n_groups=8)
    shares = {"train": 0.75, "validation": 0.0, "test": 0.25}
    create_split(app.store, project_id=world.project_id, shares=shares, who="ann")
    return world


@pytest.fixture(scope="module")
def model_id(world: World) -> int:
    return trained(world)[0]


def ids_of_the_test_set(world: World) -> set[int]:
    with world.app.store.reading() as session:
        found = session.scalars(select(SplitMember.image_id).where(SplitMember.part == "test"))
        return set(found)


def test_the_test_set_is_answered_and_scored_apart(world: World, model_id: int) -> None:
    tested, rows = ids_of_the_test_set(world), rows_of(world, model_id)
    assert tested and {i for i, row in rows.items() if row.part == "test"} == tested
    assert all((row.fold is None) == (row.part == "test") for row in rows.values())
    assert set(rows) == {i for ids in world.image_ids[:2] for i in ids}
    metrics = get_model(world.app.store, model_id=model_id).metrics
    assert metrics["score_of"] == "folds" and metrics["head"] == "linear"
    assert metrics["n"] == 32 - len(tested) and metrics["n_trained"] == 32 - len(tested)
    test = metrics["test"]
    assert test["n"] == len(tested) and test["n_uses"] == 1
    right = [row.class_id == row.label_class_id for i, row in rows.items() if i in tested]
    assert test["accuracy"] == pytest.approx(np.mean(right))


def test_the_look_at_the_test_set_is_noted_with_its_model(world: World, model_id: int) -> None:
    model = get_model(world.app.store, model_id=model_id)
    with world.app.store.reading() as session:
        uses = session.execute(
            select(SplitUse.model_id, SplitUse.job_id).where(SplitUse.model_id == model_id)
        ).all()
    assert uses == [(model_id, model.job_id)]


def test_labels_of_test_images_change_nothing_but_the_test_score(
    world: World, model_id: int
) -> None:
    before = get_model(world.app.store, model_id=model_id).metrics
    tested = sorted(ids_of_the_test_set(world))
    rows = rows_of(world, model_id)
    liver, lung = world.class_ids[:2]
    swapped = [(i, lung if rows[i].label_class_id == liver else liver) for i in tested]
    import_labels(world.app.store, project_id=world.project_id, rows=swapped, annotator="bob")
    again_id, after = trained(world)
    first, second = file_of(world, model_id), file_of(world, again_id)
    for name, value in vars(first.head).items():
        assert (vars(second.head)[name] == value).all(), name
    assert second.temperature == first.temperature and second.strength == first.strength
    for key in set(before) - {"test", "seconds", "warnings"}:
        assert after[key] == before[key], key
    said = rows_of(world, again_id)
    for i, row in rows.items():
        assert said[i].probabilities == row.probabilities
    assert after["test"]["accuracy"] == pytest.approx(1 - before["test"]["accuracy"])
    assert after["test"]["n_uses"] == 2


def test_without_a_split_there_is_no_test_score(app: App) -> None:
    world = make_world(app, {"liver": 6, "lung": 6})
    made, metrics = trained(world, head="kernel", test_views=4, n_folds=2, name="turned", seed=3)
    assert metrics["test"] is None and metrics["head"] == "kernel" and metrics["n_folds"] == 2
    assert metrics["views"] == ["clean", "rot90", "rot180", "rot270"]
    bundle = file_of(world, made)
    assert bundle.predict_views == tuple(metrics["views"])
    assert bundle.settings["recipe"]["seed"] == 3  # type: ignore[index]
    assert {row.part for row in rows_of(world, made).values()} == {"fold"}
    assert get_model(app.store, model_id=made).name == "turned"
