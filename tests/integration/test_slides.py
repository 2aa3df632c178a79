"""Whole slides in a project: tiles are images like any others; killed, cut anew, predicted."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import func, select

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled
from cnsapp.imaging.tiling import TileSettings
from cnsapp.services import images
from cnsapp.services.exclusion import exclude
from cnsapp.services.importing import check_folder, import_folder, preview_folder
from cnsapp.services.labels import import_labels
from cnsapp.services.projects import create_project, list_classes
from cnsapp.services.slides import list_slides, preview_slides, thumb_path
from db.models import Image, LabelEvent, Slide
from db.queries import read_tally
from tests import slides

TILES = TileSettings(tile_px=128)
Rows = list[tuple[object, ...]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a slide of each kind, an image, and a broken slide."""
    root = tmp_path / "in"
    (root / "liver").mkdir(parents=True)
    whole = slides.write_aperio(root / "liver" / "P7_a.svs", slides.draw())
    slides.write_ome(root / "liver" / "P8_b.ome.tif", slides.draw(seed=1))
    Picture.fromarray(slides.draw(60, 40)).save(root / "liver" / "P9.png")
    (root / "broken.svs").write_bytes(whole.read_bytes()[:-40_000])
    return root


def rows_of(app: App, project_id: int) -> Rows:
    with app.store.reading() as session:
        columns = (
            Image.id, Image.file_name, Image.sha256, Image.stored_path, Image.group_key,
            Image.slide_id, Image.tile_x, Image.tile_y, Image.tile_side, Image.width,
        )  # fmt: skip
        query = select(*columns).where(Image.project_id == project_id).order_by(Image.id)
        return [tuple(row) for row in session.execute(query)]


def files_of(app: App) -> dict[str, str]:
    found = {}
    for name in ("images", "thumbs"):
        for path in sorted((app.store.root / name).rglob("*")):
            if path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[path.relative_to(app.store.root).as_posix()] = digest
    return found


def test_an_import_cuts_slides_and_counts_each_as_one_file(app: App, folder: Path) -> None:
    project = create_project(app.store, name="p").id
    report = import_folder(
        app, project_id=project, path=folder, tiles=TILES, labels="folders",
        group_from=r"(P\d+)",
    )  # fmt: skip
    assert report.found == 4
    assert (report.imported, report.duplicates, report.slides) == (3, 0, 2)
    assert [s.file for s in report.skipped] == ["broken.svs"]
    assert report.skipped[0].reason.endswith(".")
    rows = [row for row in rows_of(app, project) if row[5] is not None]
    assert len(rows) == report.tiles == report.labelled - 1
    assert images.counts(app.store, project_id=project).images == report.tiles + 1
    assert {row[4] for row in rows} == {"P7", "P8"}
    assert report.as_json()["tiles"] == report.tiles
    views = list_slides(app.store, project_id=project)
    assert [v.name for v in views] == ["liver/P7_a.svs", "liver/P8_b.ome.tif"]
    assert sum(v.n_tiles for v in views) == sum(v.n_labelled for v in views) == report.tiles
    assert all(v.complete and v.um_per_px == 0.5 for v in views)


def test_a_tile_is_a_lossless_image_at_the_place_that_its_row_names(app: App, folder: Path) -> None:
    project = create_project(app.store, name="p").id
    path = folder / "liver" / "P8_b.ome.tif"
    import_folder(app, project_id=project, path=path, tiles=TileSettings(tile_px=100))
    truth, mask = slides.draw(seed=1), slides.tissue()
    found = set()
    for _, name, sha, stored, group, _, x, y, side, width in rows_of(app, project):
        assert (side, width, group) == (100, 100, "P8_b.ome.tif")
        assert name == f"P8_b.ome.tif/x{x}_y{y}.png"
        file = app.store.root / str(stored)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha
        region = truth[int(str(y)) :, int(str(x)) :][:100, :100]
        assert np.array_equal(np.asarray(Picture.open(file)), region)
        found.add((x, y))
    shares = mask.reshape(12, 100, 16, 100).mean(axis=(1, 3))
    for row, column in np.ndindex(12, 16):
        if abs(shares[row, column] - 0.25) > 0.05:  # at the limit the thumbnail may round
            assert ((column * 100, row * 100) in found) == (shares[row, column] > 0.25)


def test_micrometres_resample_and_overlap_and_facts_are_kept(app: App, folder: Path) -> None:
    project = create_project(app.store, name="p").id
    tiles = TileSettings(tile_px=100, um_per_px=1.0, overlap=0.5, min_tissue=0.9)
    path = folder / "liver" / "P8_b.ome.tif"
    import_folder(app, project_id=project, path=path, tiles=tiles)
    rows = rows_of(app, project)
    assert {(row[8], row[9]) for row in rows} == {(200, 100)}
    assert {int(str(row[6])) % 100 for row in rows} == {0}
    assert any(int(str(row[6])) % 200 for row in rows)
    detail = images.get_image(app.store, image_id=int(str(rows[0][0])))
    assert detail.facts["um_per_px"] == pytest.approx(1.0)
    x, y = int(str(rows[0][6])), int(str(rows[0][7]))
    mean = slides.draw(seed=1)[y : y + 200, x : x + 200].reshape(100, 2, 100, 2, 3).mean((1, 3))
    stored = np.asarray(Picture.open(app.store.root / str(rows[0][3])))
    assert np.abs(stored - mean).max() <= 1


def test_the_same_import_again_changes_nothing(app: App, folder: Path) -> None:
    project = create_project(app.store, name="p").id
    import_folder(app, project_id=project, path=folder, tiles=TILES)
    rows, files = rows_of(app, project), files_of(app)
    again = import_folder(app, project_id=project, path=folder, tiles=TILES)
    assert (again.found, again.imported, again.duplicates, again.tiles) == (4, 0, 3, 0)
    assert rows_of(app, project) == rows
    assert files_of(app) == files


def test_a_check_counts_the_tiles_and_stores_nothing(app: App, folder: Path) -> None:
    project = create_project(app.store, name="p").id
    checked = check_folder(app, project_id=project, path=folder, tiles=TILES)
    assert rows_of(app, project) == []
    assert list_slides(app.store, project_id=project) == []
    done = import_folder(app, project_id=project, path=folder, tiles=TILES)
    keys = ("found", "imported", "duplicates", "slides", "tiles")
    assert [getattr(checked, k) for k in keys] == [getattr(done, k) for k in keys]
    assert [s.file for s in checked.skipped] == [s.file for s in done.skipped]


CHILD = """
import sys, time
from pathlib import Path
from sqlalchemy import func, select
from cnsapp.bootstrap import open_app
from cnsapp.imaging.tiling import TileSettings
from cnsapp.services import slide_import
from cnsapp.services.importing import import_folder
from cnsapp.settings import Settings
from db.models import Image
slide_import.CHUNK, slide_import.A_CALL = 8, 4
app = open_app(Settings(home=Path(sys.argv[1]), start_worker=False))
def told(done, total, name):
    with app.store.reading() as session:
        n = session.scalar(select(func.count()).select_from(Image))
    if n and done < total:  # in the middle, for certain: here it waits to be killed
        print(n, flush=True)
        time.sleep(600)
import_folder(app, project_id=1, path=Path(sys.argv[2]), tiles=TileSettings(tile_px=64),
              progress=told)
"""


def test_killed_in_the_middle_it_goes_on_to_the_same_rows_and_files(
    app: App, tmp_path: Path, make_app: Callable[[Path], App]
) -> None:
    path = slides.write_aperio(tmp_path / "a.svs", slides.draw())
    create_project(app.store, name="p")
    command = [sys.executable, "-c", CHILD, str(app.store.root), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) > 0
        child.send_signal(signal.SIGKILL)
    killed = rows_of(app, 1)
    assert list_slides(app.store, project_id=1)[0].complete is False
    report = import_folder(app, project_id=1, path=path, tiles=TileSettings(tile_px=64))
    assert report.imported == 1
    assert 0 < len(killed) < len(killed) + report.tiles == len(rows_of(app, 1))
    other = make_app(tmp_path / "other")
    create_project(other.store, name="p")
    import_folder(other, project_id=1, path=path, tiles=TileSettings(tile_px=64))
    assert rows_of(app, 1) == rows_of(other, 1)
    assert files_of(app) == files_of(other)
    other.store.engine.dispose()
    with app.store.reading() as session:
        assert read_tally(session, 1)["images"] == len(rows_of(app, 1))


def test_cancelled_it_keeps_its_tiles_and_goes_on(app: App, tmp_path: Path) -> None:
    path = slides.write_aperio(tmp_path / "a.svs", slides.draw())
    project = create_project(app.store, name="p").id
    asked = 0

    def cancel() -> None:
        nonlocal asked
        asked += 1
        if asked > 4:
            raise Cancelled

    small = TileSettings(tile_px=64)
    with pytest.raises(Cancelled) as caught:
        import_folder(app, project_id=project, path=path, tiles=small, check_cancelled=cancel)
    n = len(rows_of(app, project))
    assert n > 0
    assert caught.value.result["stopped"] is True
    report = import_folder(app, project_id=project, path=path, tiles=small)
    assert len(rows_of(app, project)) == n + report.tiles > n


def test_cut_anew_leaves_out_old_tiles_but_not_those_that_somebody_labelled(
    app: App, folder: Path
) -> None:
    project = create_project(app.store, name="p", classes=["a", "b"]).id
    path = folder / "liver" / "P8_b.ome.tif"
    first = import_folder(app, project_id=project, path=path, tiles=TILES)
    old = [int(str(row[0])) for row in rows_of(app, project)]
    label = list_classes(app.store, project_id=project)[0].id
    import_labels(
        app.store, project_id=project, rows=[(old[0], label)], annotator="ann", source="human"
    )
    other = TileSettings(tile_px=64)
    second = import_folder(app, project_id=project, path=path, tiles=other)
    assert images.counts(app.store, project_id=project).images == second.tiles + 1
    assert images.get_image(app.store, image_id=old[0]).status == "ok"
    assert images.get_image(app.store, image_id=old[1]).status == "excluded"
    assert any("cut anew" in note for note in second.notes)
    back = import_folder(app, project_id=project, path=path, tiles=TILES)
    assert back.tiles == 0
    assert images.counts(app.store, project_id=project).images == first.tiles
    assert len(rows_of(app, project)) == first.tiles + second.tiles


def test_a_tile_that_somebody_excluded_stays_excluded(app: App, folder: Path) -> None:
    project = create_project(app.store, name="p").id
    path = folder / "liver" / "P8_b.ome.tif"
    import_folder(app, project_id=project, path=path, tiles=TILES)
    gone = int(str(rows_of(app, project)[3][0]))
    exclude(app.store, project_id=project, image_ids=[gone], who="ann", reason="fold")
    import_folder(app, project_id=project, path=path, tiles=TILES)
    assert images.get_image(app.store, image_id=gone).status == "excluded"


def test_slides_without_a_scale_or_without_tissue_say_what_to_do(app: App, tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    slides.write_sub_ifds(root / "no-scale.tif", slides.draw())
    blank = np.full((1200, 1600, 3), 240, np.uint8)
    slides.write_aperio(root / "blank.svs", blank)
    project = create_project(app.store, name="p").id
    report = import_folder(app, project_id=project, path=root, tiles=TILES)
    reasons = {s.file: s.reason for s in report.skipped}
    assert "does not say how many micrometres" in reasons["no-scale.tif"]
    assert "--um-per-px 0" in reasons["no-scale.tif"]
    assert "No tissue was found" in reasons["blank.svs"]
    assert list_slides(app.store, project_id=project) == []
    scanned = TileSettings(tile_px=128, um_per_px=None)
    assert import_folder(app, project_id=project, path=root, tiles=scanned).imported == 1
    assert list_slides(app.store, project_id=project)[0].um_per_px is None


def test_the_same_slide_under_two_names_is_cut_once(app: App, tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    data = slides.write_aperio(root / "a.svs", slides.draw()).read_bytes()
    (root / "b.svs").write_bytes(data)
    project = create_project(app.store, name="p").id
    report = import_folder(app, project_id=project, path=root, tiles=TILES)
    assert (report.found, report.imported, report.duplicates) == (2, 1, 1)


def test_preview_draws_the_tiles_and_neither_label_nor_macro_is_kept(
    app: App, folder: Path
) -> None:
    assert preview_folder(app, path=folder).slides == [
        "broken.svs", "liver/P7_a.svs", "liver/P8_b.ome.tif",
    ]  # fmt: skip
    project = create_project(app.store, name="p").id
    found = preview_slides(
        app, project_id=project, path=folder / "liver" / "P7_a.svs", settings=TILES
    )
    assert found is not None
    report = import_folder(app, project_id=project, path=folder / "liver" / "P7_a.svs", tiles=TILES)
    assert found.n_tiles == report.tiles > 20
    assert found.reason == ""
    sha = list_slides(app.store, project_id=project)[0].sha256
    for path in (app.store.root / "thumbs").rglob("*.jpg"):
        picture = np.asarray(Picture.open(path)).astype(int)
        vivid = (picture.max(axis=2) - picture.min(axis=2)) > 200  # the red and the green ones
        assert not vivid.any(), path
    assert thumb_path(app.store.root, sha).is_file()


def test_two_projects_have_their_own_rows_of_one_slide(app: App, folder: Path) -> None:
    path = folder / "liver" / "P7_a.svs"
    ids = [create_project(app.store, name=name).id for name in ("one", "two")]
    for project in ids:
        import_folder(app, project_id=project, path=path, tiles=TILES)
    with app.store.reading() as session:
        counts = session.execute(
            select(Image.project_id, func.count(), func.count(Image.sha256.distinct()))
            .group_by(Image.project_id)
            .order_by(Image.project_id)
        ).all()
        assert session.scalar(select(func.count()).select_from(Slide)) == 2
        assert session.scalar(select(func.count()).select_from(LabelEvent)) == 0
    assert [tuple(row) for row in counts] == [
        (ids[0], counts[0][1], counts[0][1]), (ids[1], counts[0][1], counts[0][1]),
    ]  # fmt: skip


@pytest.fixture
def make_app() -> Callable[[Path], App]:
    """Return what opens a further installation."""
    from cnsapp.bootstrap import open_app
    from cnsapp.settings import Settings

    return lambda home: open_app(Settings(home=home, start_worker=False))
