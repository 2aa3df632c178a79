"""Backup and restore lose nothing: neither what is backed up, nor what was there before."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from cnsapp import cli_system
from cnsapp.bootstrap import App, open_app
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.backups import make_backup, restore_backup
from cnsapp.services.health import examine
from cnsapp.services.images import counts
from cnsapp.services.importing import import_folder
from cnsapp.services.projects import create_project, list_projects
from cnsapp.settings import Settings
from tests.integration.worlds import World, add_model, draw, make_world


@pytest.fixture
def world(app: App) -> World:
    world = make_world(app, {"liver": 3, "lung": 3}, unlabelled=1)
    add_model(world, [])
    return world


def test_a_backup_comes_back_whole_in_another_place(world: World, tmp_path: Path) -> None:
    report = make_backup(world.app, out=tmp_path / "b.zip")
    assert report.counts == {"projects": 1, "images": 7, "label_events": 6, "models": 1}
    report2 = restore_backup(tmp_path / "other", file=tmp_path / "b.zip")
    assert report2.moved_aside is None
    restored = open_app(Settings(home=tmp_path / "other"))
    try:
        project = list_projects(restored.store)[0]
        assert counts(restored.store, project_id=project.id).labelled == 6
        assert [c for c in examine(restored) if c.state == "problem"] == []
    finally:
        restored.store.engine.dispose()


def test_linked_images_are_said_to_be_missing_from_the_backup(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "source" / "a.png", 0, 1)
    project = create_project(app.store, name="p")
    import_folder(app, project_id=project.id, path=tmp_path / "source", link=True)
    report = make_backup(app, out=tmp_path / "b.zip")
    assert (report.n_linked, report.n_files) == (1, 1)
    monkeypatch.setattr(cli_system, "opened", lambda: app)
    cli_system.backup(tmp_path / "c.zip")
    assert "Not in it: the files of 1 linked images" in capsys.readouterr().out


def test_a_backup_damaged_inside_is_refused_in_words(world: World, tmp_path: Path) -> None:
    make_backup(world.app, out=tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        at = archive.getinfo("cns.sqlite").header_offset + 60
    raw = bytearray((tmp_path / "b.zip").read_bytes())
    raw[at : at + 400] = b"\xff" * 400
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(InvalidInputError, match="damaged"):
        restore_backup(tmp_path / "other", file=tmp_path / "b.zip")
    assert not (tmp_path / "other").exists()


def test_what_was_there_before_is_moved_aside(world: World, home: Path, tmp_path: Path) -> None:
    make_backup(world.app, out=tmp_path / "b.zip")
    world.app.store.engine.dispose()
    (home / "note.txt").write_text("mine")
    report = restore_backup(home, file=tmp_path / "b.zip")
    assert report.moved_aside is not None
    assert (Path(report.moved_aside) / "note.txt").read_text() == "mine"
    assert (Path(report.moved_aside) / "cns.sqlite").exists()
    assert (home / "cns.sqlite").exists() and not (home / "note.txt").exists()


def test_a_damaged_backup_leaves_the_data_folder_alone(
    world: World, home: Path, tmp_path: Path
) -> None:
    make_backup(world.app, out=tmp_path / "b.zip")
    with (
        zipfile.ZipFile(tmp_path / "b.zip") as good,
        zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad,
    ):
        for name in good.namelist():
            bad.writestr(name, b"altered" if name.endswith(".png") else good.read(name))
    with pytest.raises(InvalidInputError, match="differs from its checksum"):
        restore_backup(home, file=tmp_path / "bad.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InvalidInputError, match="not a backup"):
        restore_backup(home, file=tmp_path / "text.zip")
    assert (home / "cns.sqlite").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zip", "bad.zip", "home", "text.zip"]


def test_a_backup_that_names_a_path_outside_is_refused(home: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as evil:
        evil.writestr("../out.txt", "x")
        files = {"cns.sqlite": "0", "../out.txt": "0"}
        evil.writestr("manifest.json", json.dumps({"app": "cnsapp", "files": files}))
    with pytest.raises(InvalidInputError, match="damaged"):
        restore_backup(home, file=tmp_path / "evil.zip")
    assert not (tmp_path / "out.txt").exists()


def test_a_backup_that_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no backup"):
        restore_backup(home, file=tmp_path / "none.zip")


def test_the_doctor_names_altered_files_and_wrong_labels(world: World) -> None:
    checks = {c.name: c for c in examine(world.app)}
    assert {c.state for c in checks.values()} <= {"ok", "warning"}
    assert "no worker runs" in checks["worker"].detail
    next(world.app.store.path("images").rglob("*.png")).write_bytes(b"altered")
    world.app.store.path("models", "model.safetensors").unlink()
    with world.app.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE image SET current_state = 'skip' WHERE id = 1")
    states = {c.name: c.state for c in examine(world.app)}
    assert states["image files"] == states["models"] == states["labels"] == "problem"
    assert states["counts"] == "problem"
