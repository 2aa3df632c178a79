"""What can be taken elsewhere: labels, images in class folders, a model's file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.services.exports import export_dataset, export_labels, export_model, folder_name
from cnsapp.services.importing import import_folder
from cnsapp.services.projects import create_project, rename_class
from cnsapp.services.tables import csv_file, plain_cell, safe_cell
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
    assert list(rows[0]) == ["file", "sha256", "label", "annotator", "created_at", "group"]
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
    rename_class(world.app.store, class_id=world.class_ids[1], name="-intestine")
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
