"""A slide's picture outlives a restore: the slide itself may be on a disk that is not there."""

from __future__ import annotations

from pathlib import Path

from cnsapp.bootstrap import App, open_app
from cnsapp.imaging.tiling import TileSettings
from cnsapp.services import file_check, health
from cnsapp.services.backups import make_backup, restore_backup
from cnsapp.services.importing import import_folder
from cnsapp.services.projects import create_project
from cnsapp.services.slides import list_slides, thumb_path
from cnsapp.settings import Settings
from tests import slides


def test_slides_tiles_and_their_picture_come_back_from_a_backup(app: App, tmp_path: Path) -> None:
    project = create_project(app.store, name="p").id
    path = slides.write_ome(tmp_path / "s.ome.tif", slides.draw())
    import_folder(app, project_id=project, path=path, tiles=TileSettings(tile_px=256))
    (before,) = list_slides(app.store, project_id=project)
    made = make_backup(app, out=tmp_path / "b.zip")
    path.unlink()
    restore_backup(tmp_path / "other", file=Path(made.path))
    other = open_app(Settings(home=tmp_path / "other", start_worker=False))
    assert list_slides(other.store, project_id=project) == [before]
    picture = thumb_path(other.store.root, before.sha256)
    assert picture.read_bytes() == thumb_path(app.store.root, before.sha256).read_bytes()
    report = file_check.check_files(other, project_id=project, full=True)
    assert (report.ok, report.missing, report.changed) == (before.n_tiles, 0, 0)
    states = {check.name: check.state for check in health.examine(other)}
    assert states["image files"] == states["counts"] == "ok"
    assert not [file for file in other.store.root.rglob(".*") if file.is_file()]
    other.store.engine.dispose()
