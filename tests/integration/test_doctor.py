"""Doctor finds what is planted, says it in words, and changes nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update

from cnsapp.bootstrap import App
from cnsapp.imaging.journal import JOURNAL, Journal
from cnsapp.imaging.store import ImageFolder
from cnsapp.imaging.tiling import TileSettings
from cnsapp.services import health, jobs, slides
from cnsapp.services.importing import import_folder
from cnsapp.services.projects import create_project
from db.models import Image, ImageFlag, ImageQuality, NearPair, Slide
from tests import slides as drawn
from tests.integration.worlds import World, make_world

TILES = TileSettings(tile_px=100, min_tissue=0.5)


def check(app: App, name: str) -> health.Check:
    """Return what the doctor says of one thing."""
    found = [one for one in health.examine(app) if one.name == name]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def slide(app: App, tmp_path: Path) -> Path:
    """Return the file of a slide that was cut into the tiles of a project."""
    path = drawn.write_generic(tmp_path / "biopsy.tif", drawn.draw())
    project = create_project(app.store, name="slides", classes=["a", "b"]).id
    import_folder(app, project_id=project, path=path, tiles=TILES)
    return path


@pytest.mark.usefixtures("slide")
def test_a_sound_installation_is_said_to_be_sound(app: App) -> None:
    make_world(app, {"liver": 2})
    found = health.examine(app)
    assert [one.name for one in found if one.state == "problem"] == []
    for name in ("slide files", "slide tiles", "killed imports", "quality"):
        assert check(app, name).state == "ok"
    assert check(app, "slide files").detail == "1 slide at its place, unchanged"


def test_a_slide_whose_file_is_gone_or_other_is_named(app: App, slide: Path) -> None:
    facts, content = slide.stat(), slide.read_bytes()
    os.utime(slide, ns=(facts.st_atime_ns, facts.st_mtime_ns + 10**9))
    assert check(app, "slide files").state == "ok"  # copied to a new disk: the same bytes

    middle = len(content) // 2
    slide.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    found = check(app, "slide files")
    assert found.state == "warning"
    assert "1 slide with other content than when cut (of 1), for example biopsy.tif" in found.detail

    slide.write_bytes(content + b"more")
    assert check(app, "slide files").state == "warning"

    slide.unlink()
    found = check(app, "slide files")
    assert "1 slide missing (of 1), for example biopsy.tif" in found.detail
    assert "Connect the disk" in found.remedy


@pytest.mark.usefixtures("slide")
def test_a_slide_that_lost_or_won_tiles_is_named(app: App) -> None:
    with app.store.reading() as session:
        n = session.query(Image).count()
        last = session.query(Image).order_by(Image.id.desc()).first().id
    with app.store.writing() as session:
        session.execute(delete(Image).where(Image.id == last))
    found = check(app, "slide tiles")
    assert found.state == "problem"
    assert f"biopsy.tif ({n - 1} instead of {n})" in found.detail
    with app.store.writing() as session:
        session.execute(update(Slide).values(n_tiles=n - 3))  # fewer than there are
    assert f"({n - 1} instead of {n - 3})" in check(app, "slide tiles").detail


def test_a_slide_cut_again_with_other_settings_is_sound(app: App, slide: Path) -> None:
    with app.store.reading() as session:
        project = session.query(Slide).one().project_id
    again = TileSettings(tile_px=100, min_tissue=0.5, overlap=0.5)
    import_folder(app, project_id=project, path=slide, tiles=again)
    assert check(app, "slide tiles").state == "ok"


@pytest.mark.usefixtures("slide")
def test_tiles_of_a_slide_that_is_gone_are_counted(app: App) -> None:
    with app.store.reading() as session:
        n = session.query(Image).count()
    raw = app.store.engine.raw_connection()
    raw.execute("PRAGMA foreign_keys=OFF")
    raw.execute("DELETE FROM slide")
    raw.commit()
    raw.execute("PRAGMA foreign_keys=ON")
    raw.close()
    found = check(app, "slide tiles")
    assert (found.state, found.detail) == ("problem", f"{n} tiles of a slide that is gone")


def test_a_slide_whose_import_was_stopped_is_told_apart_from_one_that_is_being_cut(
    app: App, slide: Path
) -> None:
    with app.store.writing() as session:
        row = session.query(Slide).one()
        row.settings = {**row.settings, "complete": False}
        project = row.project_id
    found = check(app, "slide tiles")
    assert found.state == "warning"
    assert "1 slide not cut to the end, for example biopsy.tif" in found.detail
    jobs.submit_job(app.store, kind="import", project_id=project, payload={"path": str(slide)})
    assert check(app, "slide tiles").state == "ok"  # it is under way
    assert slides.list_slides(app.store, project_id=project)[0].complete is False


def test_what_a_killed_import_left_is_told_apart_from_an_import_that_runs(app: App) -> None:
    folder = ImageFolder(app.store.root)
    running = Journal(folder)
    running.note("a" * 64)
    assert check(app, "killed imports").state == "ok"
    running.close(lambda shas: set(shas))

    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    left = folder.root / "images" / f"{JOURNAL}{socket.gethostname()}-{done.stdout.strip()}-abc"
    assert _name_is_of_this_computer(left.name), "own_name is written in another way now"
    left.write_text("".join(f"{c * 64}\n" for c in "bcd"))
    found = check(app, "killed imports")
    assert found.state == "warning"
    assert found.detail.startswith("1 import killed in the middle; up to 3 files")
    assert left.exists()  # it looks only


def _name_is_of_this_computer(name: str) -> bool:
    from cnsapp.imaging.store import own_name

    return name.split("-")[:2] == own_name(JOURNAL).split("-")[:2]


def test_measures_flags_and_pairs_of_images_that_are_gone_are_counted(app: App) -> None:
    world: World = make_world(app, {"liver": 3})
    other: World = make_world(app, {"lung": 1}, name="other")
    (a, b, c), project = world.image_ids[0], world.project_id
    stray = other.image_ids[0][0]
    with app.store.writing() as session:
        for image_id in (a, b):
            session.execute(insert(ImageQuality), [{"image_id": image_id, "project_id": project}])
        flag = {"project_id": project, "kind": "blurred", "image_id": a}
        session.execute(insert(ImageFlag), [flag])
        pairs = [(a, b), (b, c)]
        session.execute(
            insert(NearPair),
            [
                {"image_a": x, "image_b": y, "project_id": project, "similarity": 1}
                for x, y in pairs
            ],
        )
    assert check(app, "quality").state == "ok"
    raw = app.store.engine.raw_connection()  # as another tool could, or a half restored database
    raw.execute("PRAGMA foreign_keys=OFF")
    raw.execute("INSERT INTO near_pair VALUES (?, 999999, ?, 1.0, '')", (a, project))
    raw.execute("INSERT INTO near_pair VALUES (?, ?, ?, 1.0, '')", (a, stray, project))
    raw.execute("UPDATE image_flag SET image_id = 999998")
    raw.commit()
    raw.execute("PRAGMA foreign_keys=ON")
    raw.close()
    found = check(app, "quality")
    assert found.state == "warning"
    assert found.detail == (
        "1 flag and 2 near-duplicate pairs of images that are gone from their project"
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [("current_annotator", "else"), ("current_state", "skip"), ("current_event_id", 1)],
)
def test_an_image_that_says_other_than_its_events_is_found(
    app: App, column: str, value: object
) -> None:
    world = make_world(app, {"liver": 2, "lung": 1})
    assert check(app, "labels").state == "ok"
    with app.store.writing() as session:
        session.get_one(Image, world.image_ids[1][0]).__setattr__(column, value)
    found = check(app, "labels")
    assert found.state == "problem"
    assert found.detail.startswith("1 of 3 images show another label than their events say")
