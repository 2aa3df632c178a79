"""The export section of the Settings page."""

from __future__ import annotations

from cnsapp.bootstrap import App
from cnsapp.services import dataset_zip
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
