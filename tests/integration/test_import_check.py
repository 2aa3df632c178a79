"""The check before an import tells what the import then does, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, InvalidInputError
from cnsapp.imaging.candidates import Candidate
from cnsapp.jobs.running import run_here
from cnsapp.services import images, jobs, projects
from cnsapp.services.import_check import ImportCheck
from cnsapp.services.import_uploads import save_uploads
from cnsapp.services.importing import check_folder, import_folder
from cnsapp.tasks.pace import Pace
from db.models import Image, Project
from tests.integration.test_importing import draw, make_zip, stop_at


@pytest.fixture
def project(app: App) -> int:
    return projects.create_project(app.store, name="p", classes=["liver"]).id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a messy folder with a table: 6 pictures, a broken one, a row too many."""
    source = tmp_path / "source"
    for number in range(3):
        draw(source / "liver" / f"case_{number}_a.png", number)
        draw(source / "spleen" / f"case_{number}_b.png", 10 + number)
    (source / "liver" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    rows = ["file,label,patient"]
    rows += [f"liver/case_{n}_a.png,liver,P{n}" for n in range(3)]
    rows += ["spleen/case_0_b.png,spleen,P0", "spleen/gone.png,spleen,P9"]
    (source / "t.csv").write_text("\n".join(rows))
    return source


def everything(app: App) -> tuple[list[str], int, object]:
    files = sorted(str(p) for p in app.store.root.rglob("*") if "sqlite" not in p.name)
    with app.store.reading() as session:
        n = len(session.scalars(select(Image.id)).all())
        settings = [row.settings for row in session.scalars(select(Project))]
    return files, n, settings


def test_a_check_says_what_the_import_then_does_and_changes_nothing(
    app: App, project: int, folder: Path
) -> None:
    before = everything(app)
    check = check_folder(app, project_id=project, path=folder, labels="t.csv", group_from="patient")
    assert everything(app) == before
    assert (check.dry_run, check.found, check.imported, check.labelled) == (True, 7, 6, 4)
    assert [s.file for s in check.skipped] == ["liver/broken.jpg"]
    assert "cut off" in check.skipped[0].reason
    assert check.new_classes == ["spleen"]
    assert (check.n_groups, check.n_without_group) == (3, 2)
    assert check.rows_without_file == ["spleen/gone.png"]
    assert check.files_without_row == ["spleen/case_1_b.png", "spleen/case_2_b.png"]
    assert dict(check.folders) == {"liver": 3, "spleen": 1}
    done = import_folder(app, project_id=project, path=folder, labels="t.csv", group_from="patient")
    for name in ("found", "imported", "duplicates", "labelled", "new_classes", "skipped", "notes"):
        assert getattr(done, name) == getattr(check, name), name
    again = check_folder(app, project_id=project, path=folder, labels="t.csv", group_from="patient")
    assert (again.imported, again.duplicates, again.labelled, again.new_classes) == (0, 6, 0, [])


def test_a_check_of_a_table_by_sha256_finds_rows_without_a_file(
    app: App, project: int, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "s.csv"
    table.write_text(f"sha256,label\n{'0' * 64},liver\n")
    check = check_folder(app, project_id=project, path=folder, labels=str(table))
    assert check.rows_without_file == ["0" * 64]
    assert check.n_files_without_row == 6


def test_names_that_clash_are_told(app: App, project: int, folder: Path) -> None:
    import_folder(app, project_id=project, path=folder)
    draw(folder / "liver" / "case_0_a.png", 99)  # another picture under the same name
    draw(folder / "liver" / "CASE_1_a.png", 98)
    check = check_folder(app, project_id=project, path=folder)
    assert check.n_name_clashes == 2
    assert any("case_0_a.png: the project has another picture" in c for c in check.name_clashes)
    assert any("CASE_1_a.png and liver/case_1_a.png" in c for c in check.name_clashes)
    assert (check.imported, check.duplicates) == (2, 5)
    done = import_folder(app, project_id=project, path=folder)
    assert (done.imported, done.duplicates) == (2, 5)


def test_a_check_of_deep_images_fixes_no_window(app: App, project: int, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    samples = np.random.default_rng(0).integers(0, 4000, (16, 16), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "s" / "a.tif", samples)
    before = everything(app)
    check = check_folder(app, project_id=project, path=tmp_path / "s")
    assert (check.imported, check.skipped) == (1, [])
    assert "from 0 (black) to 4095 (white)" in check.notes[0]
    assert everything(app) == before


def test_a_check_measures_each_kind_of_samples_once_and_says_what_an_import_would_fix(
    app: App, project: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s").mkdir()
    ramp = np.tile(np.linspace(0, 4000, 64), (64, 1))
    for i in range(6):  # both kinds in turn: neither may make the check forget the other
        tifffile.imwrite(tmp_path / "s" / f"{i}a.tif", (ramp - i).clip(0).astype("uint16"))
        tifffile.imwrite(tmp_path / "s" / f"{i}b.tif", (ramp - 100 - i).astype("float32"))
    measured: list[str] = []
    measure = ImportCheck._measure

    def counted(self: ImportCheck, kind: str, candidate: Candidate) -> tuple[float, float, int]:
        measured.append(kind)
        return measure(self, kind, candidate)

    monkeypatch.setattr(ImportCheck, "_measure", counted)
    check = check_folder(app, project_id=project, path=tmp_path / "s")
    assert (check.imported, check.skipped) == (12, [])
    assert sorted(measured) == ["float", "uint16"]
    told = [note for note in check.notes if "(black)" in note]
    assert len(told) == 2
    assert all("An import would take" in note and "now fixed" not in note for note in told)


def test_a_check_runs_as_a_job_and_takes_its_upload_away(
    app: App, project: int, folder: Path, tmp_path: Path
) -> None:
    archive = make_zip(
        tmp_path / "a.zip", {"x/a.png": (folder / "liver/case_0_a.png").read_bytes()}
    )
    path = save_uploads(app, files=[("a.zip", archive.read_bytes())])
    job_id = jobs.submit_job(
        app.store,
        kind="import",
        project_id=project,
        payload={"path": str(path), "dry_run": True, "allowed_roots": [str(path)]},
    )
    run_here(app, job_id)
    job = jobs.get_job(app.store, job_id=job_id)
    assert job.state == "done", job.error
    assert (job.result["dry_run"], job.result["imported"]) == (True, 1)
    assert images.counts(app.store, project_id=project).images == 0
    assert list(app.store.path("uploads").iterdir()) == []


def test_a_cancelled_import_says_what_it_kept(app: App, project: int, tmp_path: Path) -> None:
    for number in range(40):
        draw(tmp_path / "s" / f"{number:02}.png", number)
    with pytest.raises(Cancelled) as stopped:
        import_folder(app, project_id=project, path=tmp_path / "s", check_cancelled=stop_at(30))
    kept = images.counts(app.store, project_id=project).images
    result = stopped.value.result
    assert (result["stopped"], result["imported"], result["found"]) == (True, kept, 40)
    assert f"Stopped after {kept} of 40 files" in result["notes"][-1]


def test_a_cancelled_check_tells_what_it_saw(app: App, project: int, tmp_path: Path) -> None:
    for number in range(40):
        draw(tmp_path / "s" / ("b", "a")[number < 20] / f"{number:02}.png", number)
    with pytest.raises(Cancelled) as stopped:
        check_folder(
            app,
            project_id=project,
            path=tmp_path / "s",
            labels="folders",
            check_cancelled=stop_at(38),
        )
    result = stopped.value.result
    assert (result["dry_run"], result["stopped"], result["new_classes"]) == (True, True, ["a", "b"])
    assert sum(n for _, n in result["folders"]) == result["imported"] > 20
    assert images.counts(app.store, project_id=project).images == 0


def test_listing_a_large_folder_is_told_and_can_be_stopped(
    app: App, project: int, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    for number in range(1200):
        (tmp_path / "s" / f"{number:04}.png").write_bytes(b"")
    seen: list[tuple[float, int]] = []

    def stop_when_listed() -> None:
        if seen and seen[-1][0] >= 1000:
            raise Cancelled

    with pytest.raises(Cancelled):
        import_folder(
            app,
            project_id=project,
            path=tmp_path / "s",
            progress=lambda done, total, _: seen.append((done, total)),
            check_cancelled=stop_when_listed,
        )
    assert seen == [(500, 0), (1000, 0)]


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    now = iter([0.0, 0.5, 10.0, 60.0, 90.0])
    pace = Pace(lambda: next(now))
    assert pace.line(1, 100_000, "file") == "1 of 100,000 files"
    assert pace.line(1_000, 100_000, "file").endswith("100 a second, 16 min left")
    pace.line(1_030, 100_000, "file")
    slow = pace.line(1_060, 100_000, "file")  # 30 files in the last 30 seconds
    assert "60 a minute" in slow
    assert "h left" in slow


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"((a|a)+)+x?$", r"(?:(a*)*)*b"])
def test_a_pattern_that_takes_for_ever_is_refused_before_anything_is_imported(
    app: App, project: int, tmp_path: Path, pattern: str
) -> None:
    draw(tmp_path / "s" / f"{'a' * 60}!.png", 1)
    try:
        import_folder(app, project_id=project, path=tmp_path / "s", group_from=pattern)
    except InvalidInputError as refused:
        assert "takes too long on the name" in str(refused)
        assert images.counts(app.store, project_id=project).images == 0
    else:
        assert images.counts(app.store, project_id=project).images == 1


def test_ones_own_upload_may_be_read_and_no_others(
    app: App, project: int, folder: Path, tmp_path: Path
) -> None:
    picture = (folder / "liver/case_0_a.png").read_bytes()
    mine = save_uploads(app, files=[("a.png", picture)])
    theirs = save_uploads(app, files=[("b.png", picture)])
    report = import_folder(app, project_id=project, path=mine, allowed_roots=[mine])
    assert report.imported == 1
    for roots in ([mine], [tmp_path], [app.store.root], [app.store.path("uploads")]):
        for path in (theirs, app.store.path("images")):
            with pytest.raises(InvalidInputError, match="outside the folders"):
                import_folder(app, project_id=project, path=path, allowed_roots=roots)
    (mine / "way").symlink_to(theirs)
    with pytest.raises(InvalidInputError, match="outside the folders"):
        import_folder(app, project_id=project, path=mine / "way", allowed_roots=[mine])
