"""Settings, “How images are read”: only what is needed, seen before it is applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnsapp.bootstrap import App
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.running import run_here
from cnsapp.services import jobs, projects, reading
from cnsapp.services.importing import import_folder
from db.models import Model
from tests.integration import deep
from tests.integration.worlds import World, add_model
from tests.ui.conftest import Screen


@pytest.fixture
def project(app: App, tmp_path: Path) -> int:
    """Return a project with deep, stacked, multi-channel and transparent files."""
    source = tmp_path / "source"
    for k in range(2):
        deep.deep(source / f"deep{k}.tif", 100 * k)
        deep.stack(source / f"stack{k}.tif", (10 + k, 200, 50))
        deep.channels(source / f"channels{k}.ome.tif", (1000, 2000), ("DAPI", "*GFP*"))
        deep.clear(source / f"clear{k}.png", k)
    project_id = projects.create_project(app.store, name="deep").id
    import_folder(app, project_id=project_id, path=source)
    return project_id


def rule_of(app: App, project: int) -> ReadingRule:
    return reading.get_reading(app.store, project_id=project).rule


@pytest.mark.usefixtures("world")
def test_a_project_of_plain_pictures_is_told_so_in_a_sentence(screen: Screen) -> None:
    screen.open("settings")
    assert "nothing needs to be set" in screen.words
    assert not {"Black", "White"} & {n.label for n in screen.test.number_input}
    assert not screen.test.color_picker


@pytest.mark.usefixtures("project")
def test_what_the_files_need_is_offered_with_what_was_found_in_them(screen: Screen) -> None:
    screen.open("settings")
    assert screen.errors == []
    assert "Window of 16-bit samples" in screen.words
    assert "values from 0 to 4,000" in screen.words
    labels = [c.label for c in screen.test.segmented_control]
    assert "Of stacks (2 files)" in labels
    assert "Channels (2 files)" in labels
    assert [c.label for c in screen.test.color_picker] == ["Behind transparency"]
    assert not screen.has("reading_apply"), "nothing is changed yet"


def test_a_window_is_chosen_seen_and_applied(app: App, project: int, screen: Screen) -> None:
    screen.open("settings")
    white = next(n for n in screen.test.number_input if n.label == "White")
    assert white.value == 4095
    white.set_value(2000).run()
    assert "16-bit samples from 0 to 2,000 instead of from 0 to 4,095" in screen.words
    assert "4 images look different" in screen.words
    assert "as it would be" in screen.words  # the picture beside the present one
    assert screen.primary == ["Apply…"]
    assert rule_of(app, project).window("uint16") == (0, 4095)
    screen.press("reading_apply")
    screen.press("reading_confirm")
    assert rule_of(app, project).window("uint16") == (0, 2000)
    job = reading.last_reread(app.store, project_id=project)
    assert job is not None and job.state == "queued"
    assert not screen.has("reading_apply")


def test_percentiles_are_one_click_and_can_be_put_back(
    app: App, project: int, screen: Screen
) -> None:
    screen.open("settings")
    button = next(b for b in screen.test.button if b.label == "Percentiles")
    button.click().run()
    assert "from 0 to 4,000 instead of from 0 to 4,095" in screen.words
    screen.press("reading_reset")
    assert not screen.has("reading_apply")
    assert next(n for n in screen.test.number_input if n.label == "White").value == 4095
    assert rule_of(app, project).window("uint16") == (0, 4095)


def test_a_window_with_fractions_is_not_offered_as_a_change(
    app: App, project: int, screen: Screen
) -> None:
    """An import by percentiles fixes such windows, also for whole samples."""
    rule = rule_of(app, project).with_window("uint16", 10.25, 2081.55)
    reading.apply_rule(app, project_id=project, rule=rule)
    screen.open("settings")
    assert next(n for n in screen.test.number_input if n.label == "White").value == 2081.55
    assert not screen.has("reading_apply")
    assert screen.errors == []


@pytest.mark.usefixtures("project")
def test_channels_come_with_names_colours_and_windows(screen: Screen) -> None:
    screen.open("settings")
    control = next(c for c in screen.test.segmented_control if c.label.startswith("Channels"))
    control.set_value("colors").run()
    assert screen.errors == []
    assert "DAPI" in screen.words and "*GFP*" in screen.words
    assert "channels 1 blue (0 to 1,000), 2 green (0 to 2,000)" in screen.words
    assert "2 images look different" in screen.words


@pytest.mark.usefixtures("project")
def test_a_rule_that_cannot_be_used_is_said_and_not_offered(screen: Screen) -> None:
    screen.open("settings")
    black = next(n for n in screen.test.number_input if n.label == "Black")
    black.set_value(9000).run()
    assert "has no extent" in screen.words
    assert not screen.has("reading_apply")


def test_images_that_cannot_be_read_that_way_are_listed(
    app: App, project: int, screen: Screen
) -> None:
    from dataclasses import replace

    rule = replace(rule_of(app, project), page="7")
    done = reading.apply_rule(app, project_id=project, rule=rule)
    assert done.job_id is not None
    run_here(app, done.job_id)
    screen.open("settings")
    assert "2 images could not be read this way" in screen.test.expander[0].label
    assert "stack0.tif" in screen.words
    assert screen.errors == []
    reading.apply_rule(app, project_id=project, rule=replace(rule, page="first"))
    assert not Screen().open("settings").test.expander, "all is as the rule says again"


def test_the_rest_is_read_when_the_job_was_stopped(app: App, project: int, screen: Screen) -> None:
    rule = rule_of(app, project).with_window("uint16", 0, 2000)
    done = reading.apply_rule(app, project_id=project, rule=rule)
    assert done.job_id is not None
    jobs.cancel_job(app.store, job_id=done.job_id)
    screen.open("settings").press("reading_go_on")
    job = reading.last_reread(app.store, project_id=project)
    assert job is not None and job.id != done.job_id and job.state == "queued"


@pytest.mark.parametrize("page", ["models", "review", "explain", "predict"])
def test_a_model_of_another_look_says_so_on_every_page(
    app: App, project: int, screen: Screen, page: str
) -> None:
    then = rule_of(app, project).with_window("uint16", 0, 65535)
    model = add_model(World(app, project, [], []), [])
    with app.store.writing() as session:
        row = session.get_one(Model, model)
        row.settings = {**row.settings, "last_event_id": 0, "reading": then.as_json()}
    screen.open(page)
    assert "trained when images were read otherwise" in screen.words
    assert "16-bit samples from 0 to 4,095 instead of from 0 to 65,535" in screen.words
    with app.store.writing() as session:
        row = session.get_one(Model, model)
        row.settings = {**row.settings, "reading": rule_of(app, project).as_json()}
    assert "read otherwise" not in Screen().open(page).words
