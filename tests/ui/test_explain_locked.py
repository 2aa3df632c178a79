"""Explain keeps quiet about images of the locked test set until somebody looks, and notes it."""

from __future__ import annotations

from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.services import jobs, splits
from db.models import Model, Prediction
from tests.integration.worlds import World
from tests.ui.conftest import Screen


def test_explain_tells_nothing_of_a_locked_image_before_a_look(
    screen: Screen, world: World, model_id: int, app: App
) -> None:
    split = splits.create_split(app.store, project_id=world.project_id, who="Maria")
    locked, free = world.image_ids[0][-1], world.image_ids[0][0]
    with app.store.writing() as session:
        row = update(Prediction).where(Prediction.image_id == locked)
        session.execute(row.values(part="test", fold=None))
        session.execute(update(Model).where(Model.id == model_id).values(split_id=split.id))
    screen.open("explain", model=model_id, image=locked, who="Bob")
    assert screen.errors == []
    assert "The locked test set was not looked at yet" in screen.words
    assert (
        "Research use only" in screen.words and "by a model that had not seen" not in screen.words
    )
    assert [job for job in jobs.list_jobs(app.store) if job.kind == "explain"] == []
    assert splits.count_uses(app.store, split_id=split.id) == 0
    screen.press("explain_look")
    assert "by a model that had not seen this image" in screen.words
    assert [(u.who, u.purpose) for u in splits.uses(app.store, split_id=split.id)] == [
        ("Bob", "Explain")
    ]
    screen.test.query_params["image"] = str(free)
    screen.test.run()
    assert "looked at once" not in screen.words and screen.errors == []
    # a look on the one page opens the other: it is one look
    screen.open("review", model=model_id, who="Bob")
    screen.test.segmented_control(key="review_part").set_value("Locked test set").run()
    assert "looked at once" in screen.words
