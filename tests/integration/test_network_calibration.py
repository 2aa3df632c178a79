"""The calibration of a fine-tuned model is that of its answers, fold by fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.calibration import expected_calibration_error, softmax
from cnsapp.services.evaluation import evaluate_model
from db.models import Model, Prediction
from tests.integration.worlds import World, add_model, make_world


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 20, "lung": 20}, n_groups=10, side=8)


def network(world: World, n_folds: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return a model whose networks answered at temperatures of their own: with what they said."""
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], 20)
    logits = rng.normal(0, 2, (40, 2)) + 3 * np.eye(2)[y]
    folds, temperatures = np.arange(40) % n_folds, np.array([2.0, 5.0])[:n_folds]
    p = softmax(logits / temperatures[folds][:, None])
    ids = [i for part in world.image_ids[:2] for i in part]
    said = [
        (i, world.class_ids[t], world.class_ids[int(row.argmax())], float(row.max()))
        for i, t, row in zip(ids, y, p, strict=True)
    ]
    model_id = add_model(world, said)
    with world.app.store.writing() as session:
        rows = session.scalars(select(Prediction).order_by(Prediction.image_id)).all()
        for row, fold, values in zip(rows, folds.tolist(), p.tolist(), strict=True):
            row.fold, row.probabilities = fold, values
        model = session.get_one(Model, model_id)
        networks: list[dict[str, Any]] = [
            {"fold": k, "temperature": t} for k, t in enumerate(temperatures.tolist())
        ]
        model.metrics = {
            **model.metrics,
            "temperature": 3.0 if n_folds > 1 else 2.0,
            "temperature_fitted_on": "validation images",
            "networks": networks + ([{"fold": None, "temperature": 3.0}] if n_folds > 1 else []),
        }
    return model_id, y, p, logits


@pytest.mark.parametrize("n_folds", [1, 2])
def test_it_is_judged_as_it_answered_and_undone_by_its_own_temperature(
    world: World, n_folds: int
) -> None:
    model_id, y, p, logits = network(world, n_folds)
    found = evaluate_model(world.app.store, model_id)
    assert found.after.ece == pytest.approx(expected_calibration_error(p, y))
    assert found.before.ece == pytest.approx(expected_calibration_error(softmax(logits), y))
