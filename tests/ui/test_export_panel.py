"""The export section of the Settings page."""

from __future__ import annotations

from cnsapp.bootstrap import App
from cnsapp.services import dataset_zip
from db.models import Job
from db.types import utc_now
from tests.integration.worlds import World
from tests.ui.conftest import Screen


def test_metadata_stay_behind_unless_the_box_is_ticked(
    app: App, screen: Screen, world: World
) -> None:
    screen.open("settings")
    assert screen.test.checkbox(key="export_keep_metadata").value is False
    screen.press("export_start")
    assert screen.errors == []
    job = dataset_zip.latest_export(app, project_id=world.project_id)
    assert job is not None
    assert job.payload == {"keep_metadata": False}


def test_the_ticked_box_is_asked_for(app: App, screen: Screen, world: World) -> None:
    screen.open("settings")
    screen.test.checkbox(key="export_keep_metadata").check().run()
    screen.press("export_start")
    job = dataset_zip.latest_export(app, project_id=world.project_id)
    assert job is not None
    assert job.payload == {"keep_metadata": True}


def test_the_finished_zip_is_offered_with_what_was_left_out(
    app: App, screen: Screen, world: World
) -> None:
    job_id = dataset_zip.start_export(app, project_id=world.project_id)
    name, done = dataset_zip.make_zip(
        app, project_id=world.project_id, job_id=job_id, keep_metadata=False
    )
    refused = [{"file": "b.tif", "reason": "Its metadata cannot be removed."}]
    with app.store.writing() as session:
        job = session.get_one(Job, job_id)
        job.state, job.finished_at = "done", utc_now()
        facts = {"zip": name, "n_refused": 1, "refused": refused, "removed": {"place": 2}}
        job.result = done.as_json() | facts
    screen.open("settings")
    assert screen.errors == []
    assert "24 images" in screen.words
    assert "Left out of the copies: place (2 files)." in screen.words
    assert "1 image not in it" in screen.words
    (link,) = screen.test.get("link_button")
    assert link.proto.url == f"/files/export/{name}"
