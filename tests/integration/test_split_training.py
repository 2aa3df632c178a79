"""A quick run that follows a split: what it learns, what it scores, and what its figures say."""

from __future__ import annotations

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.services import review, splits
from cnsapp.services.evaluation import evaluate_model
from cnsapp.services.models import get_model
from db.models import Prediction
from tests.integration.test_training import trained
from tests.integration.worlds import make_world


def test_a_run_follows_the_split_and_its_figures_carry_the_sentences(app: App) -> None:
    world = make_world(app, {"liver": 20, "lung": 20}, side=32)  # tiles without groups
    split = splits.create_split(app.store, project_id=world.project_id, who="Maria")
    job = trained(world, scheme="random", n_folds=2, score_test=True)
    assert job.state == "done", job.error
    model = get_model(app.store, model_id=job.result["model_id"])
    said = model.metrics["warnings"]
    assert any("No image has a group" in line for line in said)  # of the split
    assert any("scores are optimistic" in line for line in said)  # of the folds
    with app.store.reading() as session:
        locked = splits.test_ids(session, world.project_id)
        rows = session.execute(
            select(Prediction.image_id, Prediction.part).where(Prediction.model_id == model.id)
        ).all()
    assert len(rows) == 40 and {i for i, part in rows if part == "test"} == locked
    assert model.metrics["n"] == 40 - len(locked) == 32
    assert (model.metrics["test"]["n"], model.metrics["test"]["n_uses"]) == (8, 1)
    assert review.confusion(app.store, model_id=model.id).n == 32
    assert review.confusion(app.store, model_id=model.id, part="test").n == 8
    (use,) = splits.uses(app.store, split_id=split.id)
    assert (use.model_id, use.model_name) == (model.id, model.name)
    trained(world, scheme="random", n_folds=2, seed=1, score_test=True)
    assert splits.count_uses(app.store, split_id=split.id) == 2


def test_a_run_looks_at_the_test_set_only_when_asked_and_can_be_looked_at_later(app: App) -> None:
    world = make_world(app, {"liver": 20, "lung": 20}, n_groups=10, side=32)
    split = splits.create_split(app.store, project_id=world.project_id, who="Maria")
    model_id = int(trained(world, n_folds=2).result["model_id"])
    model = get_model(app.store, model_id=model_id)
    assert model.metrics["test"] is None and splits.count_uses(app.store, split_id=split.id) == 0
    found = evaluate_model(app.store, model_id=model_id, part="test", who="Maria")
    assert found.scores.n == sum(1 for _ in _locked(app, world.project_id))
    assert splits.count_uses(app.store, split_id=split.id) == 1


def _locked(app: App, project_id: int) -> set[int]:
    with app.store.reading() as session:
        return splits.test_ids(session, project_id)
