"""What can be taken elsewhere: labels, images in class folders, a model's file."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.imaging.reader import read_image
from cnsapp.imaging.thumbs import make_thumbs
from cnsapp.services.classes import rename_class
from cnsapp.services.exports import (
    export_dataset,
    export_labels,
    export_model,
    folder_name,
    removed_words,
)
from cnsapp.services.importing import import_folder
from cnsapp.services.projects import create_project
from cnsapp.services.tables import csv_file, plain_cell, safe_cell
from cnsapp.tasks.maps import as_rgba, over, save_whole
from db.models import Image, LabelClass
from tests.integration.worlds import World, add_model, make_world


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 2, "small/intestine": 3}, unlabelled=1, n_groups=2)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8-sig") as handle:
        return list(csv.DictReader(handle))


def test_labels_are_written_with_who_and_when(world: World, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    assert export_labels(world.app, project_id=world.project_id, out=out).n == 5
    rows = rows_of(out)
    head = ["file", "sha256", "label", "annotator", "created_at", "group", "status", "source"]
    assert list(rows[0]) == head
    assert [r["label"] for r in rows] == ["liver"] * 2 + ["small/intestine"] * 3
    assert {r["annotator"] for r in rows} == {"ann"}
    assert rows[0]["created_at"].endswith("+00:00")
    assert rows[0]["group"].startswith("patient")


def test_excel_is_told_the_encoding(world: World, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    export_labels(world.app, project_id=world.project_id, out=out)
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_file_name_that_is_a_formula_becomes_text(world: World, tmp_path: Path) -> None:
    with world.app.store.writing() as session:
        session.execute(
            update(Image)
            .where(Image.id == world.image_ids[0][0])
            .values(file_name='=HYPERLINK("http://x";"liver")')
        )
    out = tmp_path / "labels.csv"
    export_labels(world.app, project_id=world.project_id, out=out)
    assert rows_of(out)[0]["file"].startswith("'=HYPERLINK")


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\tx"])
def test_signs_that_start_a_formula_are_made_harmless(text: str) -> None:
    assert safe_cell(text) == "'" + text
    assert safe_cell("a" + text) == "a" + text
    for cell in (text, "'" + text, "a" + text, "'quoted'", ""):
        assert plain_cell(safe_cell(cell)) == cell


def test_a_table_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), csv_file(tmp_path / "t.csv", ("a",)) as writer:
        writer.writerow(("1",))
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_has_one_folder_a_class_and_the_table(world: World, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    done = export_dataset(world.app, project_id=world.project_id, out=out)
    assert (done.n, done.n_missing) == (5, 0)
    assert sorted(p.name for p in out.iterdir()) == ["labels.csv", "liver", "small_intestine"]
    assert len(list((out / "small_intestine").glob("*.png"))) == 3


@pytest.mark.parametrize("labels", ["labels.csv", "folders"])
def test_a_dataset_comes_back_with_its_labels_and_groups(
    world: World, tmp_path: Path, labels: str
) -> None:
    rename_class(world.app.store, class_id=world.class_ids[1], name="-intestine", who="ann")
    out = tmp_path / "dataset"
    export_dataset(world.app, project_id=world.project_id, out=out)
    rows = rows_of(out / "labels.csv")
    assert list(rows[0])[:5] == ["file", "sha256", "label", "group", "original"]
    assert rows[0]["original"] == "class0/1.png"
    again = create_project(world.app.store, name="again").id
    report = import_folder(world.app, project_id=again, path=out, labels=labels)
    assert (report.imported, report.labelled, report.skipped) == (5, 5, [])
    assert what_is_known(world.app, again) == what_is_known(world.app, world.project_id)


def what_is_known(app: App, project_id: int) -> list[tuple[str, str | None, str | None]]:
    """Return the bytes, label and group of each labelled image."""
    found = select(Image.sha256, LabelClass.name, Image.group_key).join(
        LabelClass, LabelClass.id == Image.current_class_id
    )
    with app.store.reading() as session:
        rows = session.execute(found.where(Image.project_id == project_id)).all()
    return sorted((sha, name, group) for sha, name, group in rows)


def test_classes_with_alike_folder_names_get_folders_of_their_own(app: App, tmp_path: Path) -> None:
    world = make_world(app, {"a/b": 1, "A:b": 1, "a?b": 1})
    out = tmp_path / "dataset"
    export_dataset(app, project_id=world.project_id, out=out)
    names = [row["file"].split("/")[0] for row in rows_of(out / "labels.csv")]
    assert names == ["a_b", "A_b 2", "a_b 3"]


def test_a_dataset_never_lands_in_a_folder_with_files(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InvalidInputError, match="not empty"):
        export_dataset(world.app, project_id=world.project_id, out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_missing_file_is_counted_and_the_rest_is_exported(world: World, tmp_path: Path) -> None:
    with world.app.store.reading() as session:
        stored = session.get_one(Image, world.image_ids[0][0]).stored_path
    world.app.store.path(stored).unlink()
    done = export_dataset(world.app, project_id=world.project_id, out=tmp_path / "d")
    assert (done.n, done.n_missing) == (4, 1)
    files = {row["file"] for row in rows_of(tmp_path / "d" / "labels.csv")}
    assert files == {f"{p.parent.name}/{p.name}" for p in (tmp_path / "d").glob("*/*")}


def test_folder_names_work_on_every_system() -> None:
    assert folder_name('a<b>:"c') == "a_b___c"
    assert folder_name("..") == "_"


def test_a_model_is_copied_and_an_altered_one_is_refused(world: World, tmp_path: Path) -> None:
    model_id = add_model(world, [])
    out = tmp_path / "m.safetensors"
    export_model(world.app, model_id=model_id, out=out)
    assert out.read_bytes() == b"not a real model"
    world.app.store.path("models", "model.safetensors").write_bytes(b"altered")
    with pytest.raises(CnsError, match="altered"):
        export_model(world.app, model_id=model_id, out=out)


@pytest.fixture
def telling(app: App, tmp_path: Path) -> int:
    """Return a project of two photos with a place and an owner, and a plain picture."""
    folder = tmp_path / "camera" / "liver"
    folder.mkdir(parents=True)
    said = Picture.Exif()
    said[0x013B], said[0x0112] = "Jane Doe", 6
    said.get_ifd(0x8825)[1] = "N"
    for i in range(2):
        Picture.new("RGB", (40, 30), (i * 80, 90, 90)).save(folder / f"{i}.jpg", exif=said)
    Picture.new("RGB", (40, 30), (1, 2, 3)).save(folder / "plain.png")
    project_id = create_project(app.store, name="photos").id
    report = import_folder(app, project_id=project_id, path=folder.parent, labels="folders")
    assert report.labelled == 3
    return project_id


def test_a_dataset_tells_nothing_of_people_and_places(
    app: App, telling: int, tmp_path: Path
) -> None:
    done = export_dataset(app, project_id=telling, out=tmp_path / "out")
    assert (done.n, done.removed, done.refused) == (3, {"owner": 2, "place": 2}, [])
    assert not done.kept_metadata
    for row in rows_of(tmp_path / "out" / "labels.csv"):
        data = (tmp_path / "out" / row["file"]).read_bytes()
        assert b"Jane Doe" not in data
        same = hashlib.sha256(data).hexdigest() == row["sha256"]  # the sum is of the original
        assert same is (row["original"] == "liver/plain.png")
        with app.store.reading() as session:
            named = select(Image).where(Image.sha256 == row["sha256"])
            image = session.scalars(named).one()
            original = read_image(app.store.path(image.stored_path))
        seen = read_image(tmp_path / "out" / row["file"])
        assert (seen.pixels == original.pixels).all()


def test_a_dataset_keeps_the_metadata_only_when_asked_for(
    app: App, telling: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = export_dataset(app, project_id=telling, out=out, keep_metadata=True)
    assert (done.n, done.removed, done.kept_metadata) == (3, {}, True)
    for row in rows_of(out / "labels.csv"):
        data = (out / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert (b"Jane Doe" in data) is row["file"].endswith(".jpg")


def test_a_dataset_without_metadata_comes_back_with_its_labels(
    app: App, telling: int, tmp_path: Path
) -> None:
    export_dataset(app, project_id=telling, out=tmp_path / "out")
    again = create_project(app.store, name="again").id
    report = import_folder(app, project_id=again, path=tmp_path / "out", labels="labels.csv")
    assert (report.imported, report.labelled, report.skipped) == (3, 3, [])


def test_an_image_that_must_become_a_png_is_named_so(app: App, tmp_path: Path) -> None:
    folder = tmp_path / "camera" / "liver"
    folder.mkdir(parents=True)
    Picture.new("RGB", (40, 30), (7, 90, 90)).save(folder / "a.bmp")
    (folder / "a.bmp").write_bytes((folder / "a.bmp").read_bytes() + b"Jane Doe")
    project_id = create_project(app.store, name="bitmaps").id
    import_folder(app, project_id=project_id, path=folder.parent, labels="folders")
    export_dataset(app, project_id=project_id, out=tmp_path / "out")
    (row,) = rows_of(tmp_path / "out" / "labels.csv")
    assert row["file"].endswith(".png")
    assert (read_image(tmp_path / "out" / row["file"]).pixels == (7, 90, 90)).all()


def test_pictures_that_the_app_draws_tell_nothing(app: App, telling: int, tmp_path: Path) -> None:
    with app.store.reading() as session:
        wanted = select(Image).where(Image.project_id == telling)
        image = session.scalars(wanted.where(Image.file_name == "liver/0.jpg")).one()
        pixels = read_image(app.store.path(image.stored_path)).pixels
    big = np.repeat(np.repeat(pixels, 12, axis=0), 12, axis=1)
    drawn = [tmp_path / "store" / "ab" / name for name in ("thumb.jpg", "view.jpg")]
    make_thumbs(big, *drawn)
    for name, picture in {
        "map.png": as_rgba(np.zeros((4, 4), np.float32), (40, 30)),
        "over.png": over(pixels, np.zeros((4, 4), np.float32)),
    }.items():
        save_whole(picture, tmp_path / name)
        drawn.append(tmp_path / name)
    drawn += list(app.store.path("thumbs").rglob("*.jpg"))
    assert len(drawn) >= 7
    for file in drawn:
        assert b"Jane Doe" not in file.read_bytes()
        with Picture.open(file) as shown:
            assert not shown.getexif(), file
            assert set(shown.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}, file


def test_the_words_for_what_was_left_out() -> None:
    assert removed_words({"owner": 1, "place": 3}) == "place (3 files), owner (1 file)"
