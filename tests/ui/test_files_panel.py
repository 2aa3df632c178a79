"""The view Files, the report of a check, and the filters by metadata, on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnsapp.bootstrap import App
from cnsapp.jobs.running import run_here
from cnsapp.services import file_check, jobs, projects, watching
from cnsapp.services.importing import import_folder
from tests.integration.test_importing import draw
from tests.ui.conftest import Screen


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("a #1 ä", "b", "c <b> *x*"):
        draw(tmp_path / "s" / "liver" / f"{name}.png", len(name))
    (tmp_path / "s" / "meta.csv").write_text(
        "file,stain,age\nliver/a #1 ä.png,HE,30\nliver/b.png,PAS,50\n", encoding="utf-8"
    )
    return tmp_path / "s"


@pytest.fixture
def project(app: App, source: Path) -> int:
    made = projects.create_project(app.store, name="p").id
    import_folder(
        app, project_id=made, path=source, labels="folders", metadata="meta.csv", link=True
    )
    return made


def run_newest(app: App, project: int) -> None:
    run_here(app, jobs.list_jobs(app.store, project_id=project, active_only=True)[0].id)


def test_files_are_checked_told_and_found_again(
    app: App, screen: Screen, project: int, source: Path
) -> None:
    screen.open("images", project=project)
    screen.test.segmented_control(key="images_tab").set_value("Files").run()
    assert "Not checked yet" in screen.words
    source.rename(source.parent / "moved")
    screen.press("files_check")
    run_newest(app, project)
    screen.test.run()
    assert "3 files missing." in screen.words
    assert "a #1 ä.png" in screen.words
    assert "c &lt;b&gt; *x*.png" in screen.words
    assert "Connect its disk" in screen.words
    screen.test.text_input(key="files_moved_to").set_value(str(source.parent / "moved")).run()
    screen.press("files_find")
    run_newest(app, project)
    screen.test.run()
    assert "3 of 3 lost images found" in screen.words
    assert file_check.count_by_status(app.store, project_id=project) == {}
    assert screen.errors == []


def test_a_folder_is_watched_and_no_longer(
    app: App, screen: Screen, project: int, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    screen.open("images", project=project)
    screen.test.segmented_control(key="images_tab").set_value("Files").run()
    screen.test.text_input(key="watch_path").set_value("/nowhere").run()
    screen.press("watch_start")
    assert "no folder or file" in screen.errors[0]
    screen.test.text_input(key="watch_path").set_value(str(tmp_path / "new")).run()
    screen.press("watch_start")
    (view,) = watching.list_watched(app.store, project_id=project)
    assert view.path in screen.words
    screen.press(f"unwatch_{view.id}")
    assert watching.list_watched(app.store, project_id=project) == []


def test_a_check_before_an_import_lists_the_problems(
    app: App, screen: Screen, tmp_path: Path
) -> None:
    draw(tmp_path / "in" / "a.png", 1)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    made = projects.create_project(app.store, name="q").id
    screen.open("images", project=made)
    screen.test.text_input(key="import_path").set_value(str(tmp_path / "in")).run()
    screen.press("import_check")
    run_newest(app, made)
    screen.test.run()
    assert "Nothing was imported" in screen.words
    assert "1 file would be skipped" in screen.words
    assert screen.test.text_input(key="import_path").value == str(tmp_path / "in")
    assert "no images yet" in screen.words
    assert screen.errors == []


def test_metadata_and_the_state_of_files_filter_the_pictures(screen: Screen, project: int) -> None:
    screen.open("images", project=project)
    screen.test.selectbox(key="meta_stain").set_value("HE").run()
    screen.test.number_input(key="meta_age_from").set_value(40.0).run()
    assert "No image matches these filters." in screen.words
    screen.test.number_input(key="meta_age_from").set_value(20.0).run()
    assert "No image matches these filters." not in screen.words
    screen.test.selectbox(key="status").set_value("Missing").run()
    assert "No image matches these filters." in screen.words
    assert screen.errors == []
