"""Metadata of a lab's table: brought in, found by filters, taken out again."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from cnsapp.bootstrap import App
from cnsapp.domain.metadata import read_values
from cnsapp.errors import InvalidInputError
from cnsapp.services import exports, images, metadata, projects
from cnsapp.services.images import ImageFilter
from cnsapp.services.importing import import_folder
from tests.integration.test_importing import draw


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(6):
        draw(tmp_path / "s" / ("liver", "spleen")[number % 2] / f"{number}.png", number)
    return tmp_path / "s"


@pytest.fixture
def project(app: App, source: Path) -> int:
    made = projects.create_project(app.store, name="p").id
    import_folder(app, project_id=made, path=source, labels="folders")
    return made


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def names(app: App, project: int, **wanted: object) -> list[str]:
    page = images.list_images(
        app.store,
        project_id=project,
        filter=ImageFilter(**wanted),  # type: ignore[arg-type]
    )
    return [item.name for item in page.items]


TABLE = """File;Stain;Age;Patient
liver/0.png;HE;30;P1
spleen\\1.png;PAS;41,5;P1
2.png;HE;52;P2
spleen/3.png;;;P2
nowhere.png;HE;1;P3
"""


def test_a_table_becomes_filters(app: App, project: int, tmp_path: Path) -> None:
    report = metadata.add_metadata(
        app.store, project_id=project, csv=write(tmp_path / "m.csv", TABLE), group_from="Patient"
    )
    assert (report.rows, report.images, report.grouped) == (5, 4, 4)
    assert report.columns == ("stain", "age", "patient")
    assert report.unknown_files == ("nowhere.png",)
    assert names(app, project, meta=(("stain", "HE"),)) == ["liver/0.png", "liver/2.png"]
    assert names(app, project, meta=(("age", 40.0, None),)) == ["liver/2.png", "spleen/1.png"]
    assert names(app, project, meta=(("age", 30.0, 41.5),)) == ["liver/0.png", "spleen/1.png"]
    assert names(app, project, meta=(("stain", "HE"), ("age", None, 40.0))) == ["liver/0.png"]
    assert names(app, project, meta=(("stain", "HE"),), group="P2") == ["liver/2.png"]
    assert names(app, project, meta=(("stain", "he"),)) == []
    assert images.group_names(app.store, project_id=project) == ["P1", "P2"]
    keys = {key.name: key for key in metadata.list_keys(app.store, project_id=project)}
    assert (keys["age"].low, keys["age"].high) == (30.0, 52.0)
    assert (keys["stain"].low, keys["stain"].values) == (None, ("HE", "PAS"))


def test_pages_of_a_filter_by_metadata_miss_and_repeat_nothing(
    app: App, project: int, tmp_path: Path
) -> None:
    rows = "\n".join(f"{('liver', 'spleen')[n % 2]}/{n}.png,{n % 3}" for n in range(6))
    metadata.add_metadata(
        app.store, project_id=project, csv=write(tmp_path / "m.csv", f"file,third\n{rows}")
    )
    wanted = ImageFilter(meta=(("third", 1.0, 2.0),))
    seen, after = [], None
    while True:
        page = images.list_images(
            app.store, project_id=project, filter=wanted, after=after, limit=1
        )
        seen += [item.name for item in page.items]
        after = page.next_after
        if after is None:
            break
    assert sorted(seen) == ["liver/2.png", "liver/4.png", "spleen/1.png", "spleen/5.png"]
    last = images.list_images(app.store, project_id=project, filter=wanted).items[-1]
    back = images.list_images(app.store, project_id=project, filter=wanted, before=last.id, limit=2)
    assert [item.name for item in back.items] == seen[1:3]


def test_metadata_come_with_an_import_and_again_change_to_what_is_said_last(
    app: App, source: Path
) -> None:
    sha = hashlib.sha256((source / "liver/0.png").read_bytes()).hexdigest()
    write(source / "meta.csv", f"sha256,batch,group\n{sha},7,G1\n")
    made = projects.create_project(app.store, name="q").id
    import_folder(app, project_id=made, path=source, metadata="meta.csv", group_from="group")
    assert names(app, made, meta=(("batch", "7"),)) == ["liver/0.png"]
    assert images.group_names(app.store, project_id=made) == ["G1"]
    image = images.list_images(app.store, project_id=made).items[0]
    assert metadata.get_values(app.store, image_id=image.id) == [("batch", "7")]
    write(source / "meta.csv", f"sha256,batch\n{sha},8\n")
    again = import_folder(app, project_id=made, path=source, metadata="meta.csv")
    assert again.imported == 0
    assert metadata.get_values(app.store, image_id=image.id) == [("batch", "8")]


def test_exported_labels_carry_metadata_and_take_them_back(
    app: App, project: int, source: Path, tmp_path: Path
) -> None:
    metadata.add_metadata(app.store, project_id=project, csv=write(tmp_path / "m.csv", TABLE))
    out = tmp_path / "out.csv"
    exports.export_labels(app, project_id=project, out=out)
    with out.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == [
        *exports.LABEL_COLUMNS, "meta_age", "meta_patient", "meta_stain",
    ]  # fmt: skip
    told = {row["file"]: row["meta_stain"] for row in rows}
    assert (told["liver/0.png"], told["spleen/3.png"]) == ("HE", "")
    other = projects.create_project(app.store, name="q").id
    import_folder(app, project_id=other, path=source)
    report = metadata.add_metadata(app.store, project_id=other, csv=out)
    assert report.columns == ("age", "patient", "stain")  # not annotator and created_at
    assert names(app, other, meta=(("stain", "HE"),)) == ["liver/0.png", "liver/2.png"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,stain\na,b", "A column “file” or “sha256”"),
        ("file,label\nliver/0.png,x", "each further column becomes a filter"),
        ("file,stain\n./0.png,a\n0.png,b", "two different rows for “0.png”"),
        ("file," + ",".join(f"c{n}" for n in range(101)) + "\n", "101 columns of metadata"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_whole(
    app: App, project: int, tmp_path: Path, table: str, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        metadata.add_metadata(app.store, project_id=project, csv=write(tmp_path / "m.csv", table))
    assert metadata.list_names(app.store, project_id=project) == []


def test_a_decimal_comma_counts_where_the_whole_column_has_it() -> None:
    rows = [{"a": "1,5", "b": "1,250"}, {"a": "1,250", "b": "2,000"}, {"a": "", "b": "x"}]
    found = read_values(rows, {"a": "a", "b": "b"})
    assert [row.get("a", ("", None))[1] for row in found] == [1.5, 1.25, None]
    assert [row["b"][1] for row in found] == [None, None, None]
