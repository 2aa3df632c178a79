"""The labelled images as one zip: made by a job, by default without what the files tell."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.services import dataset_zip, jobs
from cnsapp.services.importing import import_folder
from cnsapp.services.projects import create_project
from tests.integration.worlds import make_world


def photos(app: App, folder: Path) -> int:
    said = Picture.Exif()
    said[0x013B] = "Jane Doe"
    (folder / "liver").mkdir(parents=True)
    Picture.new("RGB", (40, 30), (9, 90, 90)).save(folder / "liver" / "a.jpg", exif=said)
    project_id = create_project(app.store, name="Liver: 2nd try").id
    import_folder(app, project_id=project_id, path=folder, labels="folders")
    return project_id


def test_the_zip_holds_images_and_table_and_tells_nothing(app: App, tmp_path: Path) -> None:
    project_id = photos(app, tmp_path / "camera")
    name, done = dataset_zip.make_zip(app, project_id=project_id, job_id=7, keep_metadata=False)
    assert name == f"Liver-2nd-try-{project_id}-7.zip"
    assert (done.n, done.removed) == (1, {"owner": 1})
    with zipfile.ZipFile(app.store.path("exports", name)) as archive:
        assert archive.testzip() is None
        table = io.TextIOWrapper(archive.open("labels.csv"), "utf-8-sig")
        (row,) = csv.DictReader(table)
        assert sorted(archive.namelist()) == ["labels.csv", row["file"]]
        assert b"Jane Doe" not in archive.read(row["file"])
    assert [p.name for p in app.store.path("exports").iterdir()] == [name]


def test_a_new_zip_takes_the_place_of_the_projects_former_one_only(
    app: App, tmp_path: Path
) -> None:
    first, second = photos(app, tmp_path / "camera"), make_world(app, {"x": 1}).project_id
    other, _ = dataset_zip.make_zip(app, project_id=second, job_id=1, keep_metadata=False)
    dataset_zip.make_zip(app, project_id=first, job_id=2, keep_metadata=False)
    latest, done = dataset_zip.make_zip(app, project_id=first, job_id=3, keep_metadata=True)
    assert done.kept_metadata
    assert {p.name for p in app.store.path("exports").iterdir()} == {other, latest}
    with zipfile.ZipFile(app.store.path("exports", latest)) as archive:
        (image,) = (n for n in archive.namelist() if n.endswith(".jpg"))
        assert b"Jane Doe" in archive.read(image)


def test_what_a_killed_export_left_is_in_nobodys_way(app: App, tmp_path: Path) -> None:
    project_id = photos(app, tmp_path / "camera")
    for name in (f".dataset-{project_id}-7.99.partial", f"dataset-{project_id}-7"):
        app.store.path("exports", name, "liver").mkdir(parents=True)
        app.store.path("exports", name, "liver", "half.jpg").write_bytes(b"half")
    name, _ = dataset_zip.make_zip(app, project_id=project_id, job_id=7, keep_metadata=False)
    assert [p.name for p in app.store.path("exports").iterdir()] == [name]


def test_the_job_is_queued_with_the_wish_and_found_again(app: App, tmp_path: Path) -> None:
    project_id = photos(app, tmp_path / "camera")
    assert dataset_zip.latest_export(app, project_id=project_id) is None
    job_id = dataset_zip.start_export(app, project_id=project_id, keep_metadata=True)
    job = dataset_zip.latest_export(app, project_id=project_id)
    assert job is not None
    assert (job.id, job.kind, job.payload) == (job_id, "export", {"keep_metadata": True})
    assert dataset_zip.zip_of(app, job) is None
    assert jobs.get_job(app.store, job_id=job_id).title == "Export the labelled images"
