"""A figure of the locked test set is never told without how often the set was looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.cli import main
from cnsapp.services.splits import create_split
from db.models import Model, Prediction
from tests.integration.worlds import World, add_model, make_world


@pytest.fixture
def world(app: App, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a project with two models that answered eight images of its locked test set."""
    monkeypatch.setenv("CNS_HOME", str(app.store.root))
    world = make_world(app, {"liver": 12, "lung": 12}, n_groups=6, side=8)
    split = create_split(app.store, project_id=world.project_id, who="Ada")
    said = [
        (i, class_id, class_id, 0.9)
        for class_id, ids in zip(world.class_ids, world.image_ids, strict=False)
        for i in ids
    ]
    for _ in range(2):
        add_model(world, said)
    locked = [i for ids in world.image_ids[:2] for i in ids[:4]]
    with app.store.writing() as session:
        row = update(Prediction).where(Prediction.image_id.in_(locked))
        session.execute(row.values(part="test", fold=None))
        session.execute(update(Model).values(split_id=split.id))
    return world


@pytest.mark.usefixtures("world")
def test_evaluate_and_compare_say_how_often_the_test_set_was_looked_at(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ["evaluate", "--project", "world", "--model", "1"]
    assert main(asked) == 0
    assert "looked at" not in capsys.readouterr().out
    assert main([*asked, "--part", "test"]) == 0
    assert "looked at once, this look included" in capsys.readouterr().out
    out = tmp_path / "figures.json"
    assert main([*asked, "--part", "test", "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["n_uses"] == 1  # within the hour it is one look
    assert json.loads(out.read_text())["n_uses"] == 1
    assert main(["compare", "--project", "world", "--models", "1,2", "--test"]) == 0
    assert "looked at 3 times, this look included" in capsys.readouterr().out
    assert main(["compare", "--project", "world", "--models", "1,2", "--test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_uses"] == {"1": 3}
