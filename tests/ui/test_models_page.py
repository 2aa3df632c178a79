"""The Models page: many models, their standing, comparing them, and the search for the best."""

from __future__ import annotations

import re
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.services import jobs, model_standing, models, searching
from cnsapp.ui.models_record import recipe_rows
from db.models import Job, JobPoint, Model
from tests.integration.worlds import World, add_model
from tests.ui.conftest import Screen


def another(world: World) -> int:
    """Add a model that is right everywhere."""
    liver, colon = world.class_ids
    said: list[Any] = [(i, liver, liver, 0.9) for i in world.image_ids[0]]
    return add_model(world, said + [(i, colon, colon, 0.8) for i in world.image_ids[1]])


def show(screen: Screen, view: str) -> Screen:
    screen.test.segmented_control(key="models_view").set_value(view).run()
    return screen


def test_the_current_model_is_marked_and_another_can_be_made_so(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    newer = another(world)
    screen.open("models", model=model_id)
    assert screen.errors == []
    assert not models.get_model(app.store, model_id=model_id).is_current
    screen.press("model_promote")
    assert models.get_model(app.store, model_id=model_id).is_current
    assert not screen.has("model_promote") and "current" in screen.words
    screen.open("models", model=newer)
    screen.press("model_archive")
    assert models.get_model(app.store, model_id=newer).archived
    assert screen.has("model_restore")  # it stays in sight: the address names it
    screen.press("model_restore")
    assert not models.get_model(app.store, model_id=newer).archived


def test_archived_models_are_neither_listed_nor_offered_unless_asked_for(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    another(world)
    model_standing.rename_model(app.store, model_id=model_id, name="Old one")
    model_standing.archive_model(app.store, model_id=model_id)
    screen.open("models")
    assert "Old one" not in screen.words
    assert len(screen.test.selectbox(key="models_model").options) == 1
    screen.test.toggle(key="models_archived").set_value(True).run()
    assert "Old one · archived" in screen.words
    assert len(screen.test.selectbox(key="models_model").options) == 2
    for page in ("review", "explain", "predict"):
        screen.open(page)
        assert len(screen.test.selectbox(key=f"{page}_model").options) == 1
    for page in ("review", "explain"):
        screen.open(page, model=model_id)
        assert len(screen.test.selectbox(key=f"{page}_model").options) == 2
        assert screen.errors == []


def test_a_note_is_written_and_shown(app: App, screen: Screen, model_id: int) -> None:
    screen.open("models", model=model_id)
    screen.test.text_area(key=f"model_note_{model_id}").input("For *the* poster").run()
    screen.press("model_note_save")
    assert models.get_model(app.store, model_id=model_id).note == "For *the* poster"
    assert "For *the* poster" in screen.words


def test_how_a_model_was_made_and_its_file(app: App, screen: Screen, model_id: int) -> None:
    screen.open("models", model=model_id)
    screen.test.segmented_control(key="model_tab").set_value("How it was made").run()
    assert screen.errors == [] and "Data fingerprint" in screen.words
    screen.test.segmented_control(key="model_tab").set_value("File").run()
    assert models.get_model(app.store, model_id=model_id).sha256 in screen.words
    assert "as it was made" in screen.words


def test_the_record_says_what_a_run_chose_where_a_setting_left_it_open(
    app: App, screen: Screen, model_id: int
) -> None:
    with app.store.writing() as session:
        model = session.get_one(Model, model_id)
        model.preset = "full"
        model.settings = model.settings | {
            "recipe": {"learning_rate": 0.0, "frozen_stages": -1, "batch_size": 16}
        }
        chosen = {"learning_rate": 0.002, "frozen_stages": 3, "batch_size": 8}
        model.metrics = model.metrics | {"chosen": chosen}
    found = models.get_model(app.store, model_id=model_id)
    said = {re.sub("<[^>]*>", "", name): value for name, value in recipe_rows(found)}
    assert said["Learning rate"] == "0.002 (chosen)"
    assert said["Frozen stages"] == "3 (chosen)"
    assert said["Batch size"] == "16"  # as it was set, though memory made it smaller
    screen.open("models", model=model_id)
    screen.test.segmented_control(key="model_tab").set_value("How it was made").run()
    assert screen.errors == [] and "0.002 (chosen)" in screen.words


def test_a_rerun_from_the_record_is_queued(app: App, screen: Screen, model_id: int) -> None:
    screen.open("models", model=model_id)
    screen.press("model_rerun")
    (job,) = jobs.list_jobs(app.store, kinds=["train"])
    assert job.payload["rerun_of"] == model_id and screen.errors == []


def test_comparing_says_what_differs_and_shows_the_images(
    screen: Screen, world: World, model_id: int
) -> None:
    another(world)
    show(screen.open("models"), "Compare")
    assert screen.errors == []
    assert "24 images" in screen.words and "No difference shown" in screen.words
    which = screen.test.segmented_control[-1]
    assert [str(option)[-4:] for option in which.options] == [" (2)", " (0)", " (0)"]
    another(world)
    show(screen.open("models"), "Compare")
    chosen = screen.test.multiselect(key="compare_models")
    chosen.set_value([model_id, model_id + 1, model_id + 2]).run()
    assert screen.errors == [] and "Holm" in screen.words
    chosen.set_value([model_id]).run()
    assert "Choose two or more models" in screen.words


def test_comparing_takes_two_models(screen: Screen, model_id: int) -> None:
    del model_id
    show(screen.open("models"), "Compare")
    assert screen.errors == [] and "takes two models" in screen.words


def test_a_search_is_started_watched_and_told(app: App, screen: Screen, world: World) -> None:
    show(screen.open("models"), "Find the best")
    assert screen.errors == [] and screen.primary == ["Find the best"]
    screen.test.multiselect(key="search_backbones").set_value(["efficientnet_lite0"]).run()
    assert "2 candidates" in screen.words
    screen.press("search_start")
    found = searching.latest_search(app.store, project_id=world.project_id)
    assert found is not None and found.job.state == "queued"
    assert screen.has("search_job_stop")
    trial: dict[str, Any] = {
        "candidate": 0, "title": "Lite0, quick", "round": 1, "of": 1, "state": "done",
        "score": 0.875, "standard_error": 0.02, "n": 24, "seconds": 3.0, "said": "",
    }  # fmt: skip
    with app.store.writing() as session:
        session.add(JobPoint(job_id=found.job.id, values={"trial": trial}))
    screen.test.run()
    assert "Lite0, quick" in screen.words and "0.875" in screen.words
    with app.store.writing() as session:
        job = session.get_one(Job, found.job.id)
        job.state, job.error = "failed", "No candidate could be tried within 6 s."
    screen.test.run()
    assert "No candidate could be tried" in screen.words


def test_a_search_with_one_candidate_is_refused_before_the_start(
    screen: Screen, world: World
) -> None:
    del world
    show(screen.open("models"), "Find the best")
    screen.test.multiselect(key="search_backbones").set_value(["efficientnet_lite0"]).run()
    screen.test.get("button_group")
    screen.test.pills(key="search_presets").set_value(["quick"]).run()
    assert "two or more" in screen.words
    assert screen.test.button(key="search_start").disabled
