"""Names of all kinds go round: folder, database, tables out and in, predictions, export."""

from __future__ import annotations

import csv
import os
import unicodedata
from pathlib import Path

import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.imaging.candidates import iter_candidates
from cnsapp.services import exports, images, labels, projects
from cnsapp.services.importing import import_folder
from cnsapp.services.tables import csv_file, safe_cell
from db.models import Image
from tests.integration.test_importing import draw

NFC = unicodedata.normalize("NFC", "Zürich é.png")
NFD = unicodedata.normalize("NFD", "Zürich é.png")
NAMES = [
    "plain.png",
    "two  blanks and one at the end .png",
    " blank in front.png",
    "Gewebe Übersicht ß.png",
    "🔬 Lunge 👩🏽‍🔬.png",
    "case #3.png",
    "100 % HE.png",
    "%41%2e%2e.png",
    "=1+1.png",
    "@home.png",
    "-minus.png",
    "'quoted'.png",
    'a "b", c; d.png',
    "tab\there.png",
    "line\nbreak.png",
    "back\\slash.png",
    "Ω" * 125 + "x.png",  # 255 bytes
    "組織 標本.png",
    "نسيج.png",
    "<b>&amp;.png",
    "$x$ *y* _z_ [l](m).png",
    "dots...png",
    NFC,
    NFD,
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return two folders, themselves with odd names, with a picture under every name."""
    for index, name in enumerate(NAMES):
        folder = tmp_path / "s" / ("Leber #1 ä" if index % 2 else "Milz 50 %")
        draw(folder / name, index)
    assert len(NAMES[16].encode()) == 255
    if len(list(iter_candidates(tmp_path / "s"))) != len(NAMES):
        pytest.skip("this file system takes two spellings of a name for one")
    return tmp_path / "s"


@pytest.fixture
def project(app: App, source: Path) -> int:
    made = projects.create_project(app.store, name="p").id
    report = import_folder(app, project_id=made, path=source, labels="folders")
    assert (report.imported, report.labelled, report.skipped) == (len(NAMES), len(NAMES), [])
    return made


def on_disk(source: Path) -> set[str]:
    return {path.relative_to(source).as_posix() for path in source.rglob("*.png")}


def by_name(app: App, project: int) -> dict[str, str]:
    """Return the label of every image by its name."""
    classes = {c.id: c.name for c in projects.list_classes(app.store, project_id=project)}
    page = images.list_images(app.store, project_id=project, limit=1000)
    return {item.name: classes.get(item.class_id or 0, "") for item in page.items}


def test_the_database_holds_every_name_as_it_is_on_the_disk(
    app: App, project: int, source: Path
) -> None:
    assert set(by_name(app, project)) == on_disk(source)
    for item in images.list_images(app.store, project_id=project, limit=1000).items:
        stored = images.image_path(app.store, image_id=item.id)
        assert stored.read_bytes() == (source / item.name).read_bytes()


def test_labels_go_out_and_in_again_each_to_its_own_file(
    app: App, project: int, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.csv"
    assert exports.export_labels(app, project_id=project, out=out).n == len(NAMES)
    other = projects.create_project(app.store, name="q", classes=["Leber #1 ä", "Milz 50 %"]).id
    import_folder(app, project_id=other, path=source)
    report = labels.label_from_csv(app.store, project_id=other, csv=out, annotator="Ada")
    assert (report.labelled, report.unknown_files) == (len(NAMES), ())
    assert by_name(app, other) == by_name(app, project)
    third = projects.create_project(app.store, name="r").id
    report_3 = import_folder(app, project_id=third, path=source, labels=str(out))
    assert (report_3.imported, report_3.labelled) == (len(NAMES), len(NAMES))
    assert by_name(app, third) == by_name(app, project)


def test_two_spellings_of_a_name_keep_a_row_each(app: App, project: int, tmp_path: Path) -> None:
    with csv_file(tmp_path / "t.csv", ["file", "label"]) as writer:
        writer.writerow([f"Milz 50 %/{NFC}", "Leber #1 ä"])
        writer.writerow([f"Leber #1 ä/{NFD}", "Milz 50 %"])
    labels.label_from_csv(app.store, project_id=project, csv=tmp_path / "t.csv", annotator="Ada")
    found = by_name(app, project)
    assert found[f"Milz 50 %/{NFC}"] == "Leber #1 ä"
    assert found[f"Leber #1 ä/{NFD}"] == "Milz 50 %"


def test_a_table_in_the_other_spelling_finds_the_only_file(app: App, tmp_path: Path) -> None:
    draw(tmp_path / "s" / NFD, 1)
    made = projects.create_project(app.store, name="q", classes=["x"]).id
    table = tmp_path / "t.csv"
    table.write_text(f"file,label\n{NFC},x\n", encoding="utf-8")
    import_folder(app, project_id=made, path=tmp_path / "s", labels=str(table))
    assert by_name(app, made) == {NFD: "x"}
    again = projects.create_project(app.store, name="r", classes=["x"]).id
    import_folder(app, project_id=again, path=tmp_path / "s")
    assert (
        labels.label_from_csv(app.store, project_id=again, csv=table, annotator="Ada").labelled == 1
    )


def test_an_exported_dataset_says_every_name_and_comes_back(
    app: App, project: int, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    done = exports.export_dataset(app, project_id=project, out=out)
    assert (done.n, done.n_missing) == (len(NAMES), 0)
    with (out / "labels.csv").open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["original"] for row in rows} == {safe_cell(name) for name in on_disk(source)}
    other = projects.create_project(app.store, name="q").id
    report = import_folder(app, project_id=other, path=out, labels="labels.csv")
    assert (report.imported, report.labelled) == (len(NAMES), len(NAMES))
    assert sorted(by_name(app, other).values()) == sorted(by_name(app, project).values())


def test_names_that_are_no_text_are_told_apart_and_go_round(app: App, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for index, name in enumerate((b"bad_\xff.png", b"bad_\xfe.png")):
        picture = draw(tmp_path / f"{index}.png", index).read_bytes()
        try:
            with open(os.fsencode(source) + b"/" + name, "wb") as handle:  # noqa: PTH123 - bytes
                handle.write(picture)
        except OSError:
            pytest.skip("this file system takes no such names")
    made = projects.create_project(app.store, name="q", classes=["x", "y"]).id
    import_folder(app, project_id=made, path=source)
    assert set(by_name(app, made)) == {r"bad_\xff.png", r"bad_\xfe.png"}
    with app.store.reading() as session:
        assert set(session.scalars(select(Image.source_path))) == {None}
    with csv_file(tmp_path / "t.csv", ["file", "label"]) as writer:
        writer.writerow([r"bad_\xff.png", "x"])
        writer.writerow([r"bad_\xfe.png", "y"])
    labels.label_from_csv(app.store, project_id=made, csv=tmp_path / "t.csv", annotator="Ada")
    assert by_name(app, made) == {r"bad_\xff.png": "x", r"bad_\xfe.png": "y"}
