"""Import: counts that add up, labels and groups, duplicates, bad files, repetition, limits."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from sqlalchemy import func, select

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, InvalidInputError, NotFoundError
from cnsapp.imaging.store import own_name
from cnsapp.services import images, labels, projects
from cnsapp.services.importing import import_folder, preview_folder, save_uploads
from db.models import Image, LabelEvent


def draw(path: Path, seed: int, side: int = 24) -> Path:
    """Write a small picture of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return two classes of three images, with the clutter of a real folder."""
    source = tmp_path / "source"
    for index, organ in enumerate(("liver", "spleen")):
        for number in range(3):
            draw(source / organ / f"case_{number}_{organ}.png", 10 * index + number)
    (source / "labels.csv").write_text("file,label\n")
    (source / "README.md").write_text("read me")
    (source / ".DS_Store").write_bytes(b"x")
    (source / "liver" / "Thumbs.db").write_bytes(b"x")
    (source / "liver" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return source


@pytest.fixture
def project(app: App) -> int:
    return projects.create_project(app.store, name="p").id


def names_and_labels(app: App, project: int) -> dict[str, str | None]:
    classes = {c.id: c.name for c in projects.list_classes(app.store, project_id=project)}
    page = images.list_images(app.store, project_id=project, limit=1000)
    return {item.name: classes.get(item.class_id or 0) for item in page.items}


def stored_files(app: App) -> list[str]:
    return sorted(p.name for p in app.store.path("images").rglob("*") if p.is_file())


def n_events(app: App) -> int:
    with app.store.reading() as session:
        return session.scalar(select(func.count()).select_from(LabelEvent)) or 0


def test_every_file_is_imported_or_skipped_with_a_reason(
    app: App, project: int, folder: Path
) -> None:
    report = import_folder(app, project_id=project, path=folder, labels="folders")
    assert (report.found, report.imported, report.duplicates, report.labelled) == (7, 6, 0, 6)
    assert [s.file for s in report.skipped] == ["liver/broken.jpg"]
    assert "cut off" in report.skipped[0].reason
    assert report.new_classes == ["liver", "spleen"]
    assert names_and_labels(app, project)["spleen/case_1_spleen.png"] == "spleen"
    assert len(stored_files(app)) == 6
    counted = images.counts(app.store, project_id=project)
    assert (counted.images, counted.labelled, counted.unlabelled) == (6, 6, 0)
    assert report.as_json()["skipped"][0]["file"] == "liver/broken.jpg"


def test_the_same_import_again_changes_nothing(app: App, project: int, folder: Path) -> None:
    import_folder(app, project_id=project, path=folder, labels="folders")
    before = (n_events(app), stored_files(app))
    report = import_folder(app, project_id=project, path=folder, labels="folders")
    assert (report.found, report.imported, report.duplicates, report.labelled) == (7, 0, 6, 0)
    assert (n_events(app), stored_files(app)) == before


def test_importing_again_does_not_undo_a_correction(app: App, project: int, folder: Path) -> None:
    import_folder(app, project_id=project, path=folder, labels="folders")
    spleen = next(
        c for c in projects.list_classes(app.store, project_id=project) if c.name == "spleen"
    )
    first = images.list_images(app.store, project_id=project).items[0]
    event = {"client": "browser-0001", "seq": 1, "image_id": first.id, "class_id": spleen.id,
             "kind": "label", "source": "human", "action": "browser-0001-1"}  # fmt: skip
    receipt = labels.record_events(app.store, project_id=project, annotator="Ada", events=[event])
    assert receipt.rejected == ()
    import_folder(app, project_id=project, path=folder, labels="folders")
    assert names_and_labels(app, project)[first.name] == "spleen"


def test_files_of_the_same_bytes_are_images_of_their_own_and_torn_labels_are_told(
    app: App, project: int, folder: Path
) -> None:
    copy = folder / "spleen" / "copy.png"
    copy.write_bytes((folder / "liver" / "case_0_liver.png").read_bytes())
    report = import_folder(app, project_id=project, path=folder, labels="folders")
    assert (report.imported, report.duplicates, report.found) == (7, 0, 8)
    labels_now = names_and_labels(app, project)
    assert labels_now["liver/case_0_liver.png"] == "liver"
    assert labels_now["spleen/copy.png"] == "spleen"
    assert any("copy.png" in note and "“liver”" in note for note in report.notes)
    originals = [p for p in app.store.path("images").rglob("*") if p.is_file()]
    assert len(originals) == 6  # the bytes are kept once
    again = import_folder(app, project_id=project, path=folder, labels="folders")
    assert (again.imported, again.duplicates, again.labelled) == (0, 7, 0)


def test_a_file_that_came_in_by_another_way_is_a_duplicate(
    app: App, project: int, folder: Path
) -> None:
    import_folder(app, project_id=project, path=folder / "liver")
    report = import_folder(app, project_id=project, path=folder, labels="folders")
    assert (report.imported, report.duplicates) == (3, 3)
    assert report.labelled == 6


def test_an_import_that_stopped_between_two_copies_ends_the_same(
    app: App, project: int, folder: Path
) -> None:
    (folder / "liver" / "a.png").write_bytes((folder / "spleen" / "case_0_spleen.png").read_bytes())

    def stop_after_first() -> None:
        if seen:
            raise Cancelled

    seen: list[int] = []
    with pytest.raises(Cancelled):
        import_folder(
            app,
            project_id=project,
            path=folder,
            progress=lambda done, _total, _name: seen.append(done),
            check_cancelled=stop_after_first,
        )
    import_folder(app, project_id=project, path=folder)
    with app.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(Image)) == 7


def test_folder_names_meet_classes_that_are_there_whatever_their_case(
    app: App, folder: Path
) -> None:
    made = projects.create_project(app.store, name="q", classes=["Liver", "SPLEEN"])
    report = import_folder(app, project_id=made.id, path=folder, labels="folders")
    assert report.new_classes == []
    assert report.labelled == 6


def write_csv(path: Path, rows: list[list[str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as handle:
        csv.writer(handle, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_labels_and_groups_come_from_a_table(
    app: App, project: int, folder: Path, tmp_path: Path, delimiter: str
) -> None:
    table = write_csv(
        tmp_path / "t.csv",
        [
            ["File", "Label", "Patient"],
            ["liver/case_0_liver.png", "Leber", "P1"],
            ["liver\\case_1_liver.png", "", "P1"],
            ["case_0_spleen.png", "Milz", "P2"],
        ],
        delimiter,
    )
    report = import_folder(
        app, project_id=project, path=folder, labels=str(table), group_from="patient"
    )
    assert report.labelled == 2
    found = names_and_labels(app, project)
    assert found["liver/case_0_liver.png"] == "Leber"
    assert found["spleen/case_0_spleen.png"] == "Milz"
    assert found["liver/case_1_liver.png"] is None
    assert images.group_names(app.store, project_id=project) == ["P1", "P2"]


def test_a_table_by_sha256(app: App, project: int, folder: Path, tmp_path: Path) -> None:
    import hashlib

    sha = hashlib.sha256((folder / "liver" / "case_0_liver.png").read_bytes()).hexdigest()
    table = write_csv(tmp_path / "t.csv", [["sha256", "label"], [sha.upper(), "liver"]])
    report = import_folder(app, project_id=project, path=folder, labels=str(table))
    assert report.labelled == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["name", "label"], ["a", "b"]], "neither “file” nor"),
        ([["file", "class"], ["a", "b"]], "no column “label”"),
        ([["file", "label"], ["a.png", "b"], ["a.png", "c"]], "two different rows for “a.png”"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    app: App, project: int, folder: Path, tmp_path: Path, rows: list[list[str]], message: str
) -> None:
    table = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(InvalidInputError, match=message):
        import_folder(app, project_id=project, path=folder, labels=str(table))
    assert images.counts(app.store, project_id=project).images == 0


@pytest.mark.parametrize("labels", ["../secret.csv", "inside/../../secret.csv", "linked.csv"])
def test_a_table_outside_the_allowed_roots_is_not_opened(
    app: App, project: int, folder: Path, labels: str
) -> None:
    secret = write_csv(folder.parent / "secret.csv", [["password"], ["1234"]])
    (folder / "inside").mkdir()
    (folder / "linked.csv").symlink_to(secret)
    for call in (
        lambda: preview_folder(app, path=folder, labels=labels, allowed_roots=[folder]),
        lambda: import_folder(
            app, project_id=project, path=folder, labels=labels, allowed_roots=[folder]
        ),
    ):
        with pytest.raises(InvalidInputError, match="outside the folders") as refused:
            call()
        assert "password" not in str(refused.value)


def test_a_picture_named_as_the_table_is_refused_in_words(
    app: App, project: int, folder: Path
) -> None:
    (folder / "odd.csv").write_bytes(b"\xff\xfefile,label\n" + b'"' + b"x" * 300_001)
    with pytest.raises(InvalidInputError, match=r"odd.csv"):
        import_folder(app, project_id=project, path=folder, labels="odd.csv")


def test_groups_come_from_a_pattern_or_the_folder(app: App, folder: Path) -> None:
    for pattern, groups in (
        (r"(case_\d)", ["case_0", "case_1", "case_2"]),
        ("folder", ["liver", "spleen"]),
    ):
        made = projects.create_project(app.store, name=pattern)
        import_folder(app, project_id=made.id, path=folder, group_from=pattern)
        assert images.group_names(app.store, project_id=made.id) == groups


def test_with_labels_from_folders_the_group_is_the_folder_above(
    app: App, project: int, tmp_path: Path
) -> None:
    draw(tmp_path / "s" / "patient 1" / "liver" / "a.png", 1)
    draw(tmp_path / "s" / "patient 2" / "liver" / "b.png", 2)
    report = import_folder(
        app, project_id=project, path=tmp_path / "s", labels="folders", group_from="folder"
    )
    assert report.new_classes == ["liver"]
    assert images.group_names(app.store, project_id=project) == ["patient 1", "patient 2"]


def test_groups_can_be_added_by_importing_again(app: App, project: int, folder: Path) -> None:
    import_folder(app, project_id=project, path=folder)
    import_folder(app, project_id=project, path=folder, group_from=r"(case_\d)")
    assert len(images.group_names(app.store, project_id=project)) == 3


@pytest.mark.parametrize(
    ("pattern", "message"), [("(case", "no valid regular"), ("patient", "no part in parentheses")]
)
def test_a_group_rule_that_means_nothing_is_refused(
    app: App, project: int, folder: Path, pattern: str, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        import_folder(app, project_id=project, path=folder, group_from=pattern)


def test_places_that_cannot_be_imported_are_refused_in_words(
    app: App, project: int, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Path, str]] = [
        (tmp_path / "nowhere", "no folder or file"),
        (tmp_path / "empty", "no images in"),
    ]
    for path, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            import_folder(app, project_id=project, path=path)
    with pytest.raises(NotFoundError, match="no project"):
        import_folder(app, project_id=99, path=folder)


def test_folders_outside_the_allowed_roots_are_refused_links_included(
    app: App, project: int, folder: Path, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    draw(allowed / "a.png", 50)
    (allowed / "way out").symlink_to(folder, target_is_directory=True)
    (allowed / "b.png").symlink_to(folder / "liver" / "case_0_liver.png")
    for path in (folder, allowed / "way out", allowed / ".." / "source"):
        with pytest.raises(InvalidInputError, match=r"outside the folders.*allowed"):
            import_folder(app, project_id=project, path=path, allowed_roots=[allowed])
    report = import_folder(app, project_id=project, path=allowed, allowed_roots=[allowed])
    assert (report.found, report.imported) == (2, 1)
    assert "may not read" in report.skipped[0].reason


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_zip_is_imported_like_its_folder_and_leaves_nothing(
    app: App, project: int, folder: Path, tmp_path: Path
) -> None:
    members = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}
    members |= {"__MACOSX/._a.png": b"junk", "inner.zip": b"PK\x03\x04", "set/Grünes Bild #1%.png":
                draw(tmp_path / "x.png", 99).read_bytes()}  # fmt: skip
    report = import_folder(
        app, project_id=project, path=make_zip(tmp_path / "a.zip", members), labels="folders"
    )
    assert (report.found, report.imported, report.labelled) == (8, 7, 7)
    assert report.skipped[0].file == "inner.zip"
    assert "set/Grünes Bild #1%.png" in names_and_labels(app, project)
    assert list(app.store.path("uploads").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../out.png", "/abs.png", "a/../../out.png", "..\\out.png", "C:\\out.png", ".. /out.png"],
)
def test_a_zip_that_climbs_out_is_refused_as_a_whole(
    app: App, project: int, tmp_path: Path, name: str
) -> None:
    good = draw(tmp_path / "a.png", 1).read_bytes()
    path = make_zip(tmp_path / "evil.zip", {"good.png": good, name: good})
    with pytest.raises(InvalidInputError, match=r"out\.png|abs\.png"):
        import_folder(app, project_id=project, path=path)
    assert not list(tmp_path.rglob("out.png"))
    assert images.counts(app.store, project_id=project).images == 0


def test_links_bombs_and_damage_in_zips_are_refused(app: App, project: int, tmp_path: Path) -> None:
    linked = zipfile.ZipInfo("link.png")
    linked.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(linked, "/etc/passwd")
    with pytest.raises(InvalidInputError, match=r"link\.png.*is a link"):
        import_folder(app, project_id=project, path=tmp_path / "link.zip")
    make_zip(tmp_path / "bomb.zip", {"a.bmp": b"\0" * 40_000_000})
    with pytest.raises(InvalidInputError, match="times its size"):
        import_folder(app, project_id=project, path=tmp_path / "bomb.zip")
    whole = make_zip(tmp_path / "a.zip", {"a.png": draw(tmp_path / "a.png", 1).read_bytes()})
    data = bytearray(whole.read_bytes())
    data[60] ^= 0xFF
    whole.write_bytes(data)
    report = import_folder(app, project_id=project, path=whole)
    assert "damaged inside the archive" in report.skipped[0].reason


def test_two_members_of_one_name_do_not_overwrite_each_other(
    app: App, project: int, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("a.png", draw(tmp_path / "1.png", 1).read_bytes())
        archive.writestr("a.png", draw(tmp_path / "2.png", 2).read_bytes())
    report = import_folder(app, project_id=project, path=tmp_path / "a.zip")
    assert (report.found, report.imported) == (2, 1)
    assert "same name" in report.skipped[0].reason


def test_one_file_can_be_imported(app: App, project: int, folder: Path) -> None:
    report = import_folder(app, project_id=project, path=folder / "liver" / "case_0_liver.png")
    assert (report.found, report.imported) == (1, 1)


def test_linked_originals_stay_where_they_are_and_are_missed_when_gone(
    app: App, project: int, folder: Path
) -> None:
    import_folder(app, project_id=project, path=folder, link=True)
    assert stored_files(app) == []
    first = images.list_images(app.store, project_id=project).items[0]
    path = images.image_path(app.store, image_id=first.id)
    assert path == folder / first.name
    path.rename(folder / "moved.png")
    with pytest.raises(NotFoundError, match="any more"):
        images.image_path(app.store, image_id=first.id)
    report = import_folder(app, project_id=project, path=folder, link=True)
    assert report.imported == 0
    assert images.image_path(app.store, image_id=first.id) == folder / "moved.png"


def test_linked_originals_imported_again_without_linking_become_copies(
    app: App, project: int, tmp_path: Path
) -> None:
    source = tmp_path / "s"
    draw(source / "a.png", 1)
    import_folder(app, project_id=project, path=source, link=True)
    (source / "b.png").write_bytes((source / "a.png").read_bytes())
    report = import_folder(app, project_id=project, path=source)
    assert (report.imported, report.duplicates) == (1, 1)
    for item in images.list_images(app.store, project_id=project).items:
        path = images.image_path(app.store, image_id=item.id)  # each original is there
        assert path.is_relative_to(app.store.path("images"))


def test_a_copy_that_went_missing_comes_back_with_the_next_import(
    app: App, project: int, folder: Path
) -> None:
    import_folder(app, project_id=project, path=folder)
    first = images.list_images(app.store, project_id=project).items[0]
    images.image_path(app.store, image_id=first.id).unlink()
    with pytest.raises(NotFoundError, match="Import the image again"):
        images.image_path(app.store, image_id=first.id)
    report = import_folder(app, project_id=project, path=folder)
    assert (report.imported, report.duplicates) == (0, 6)
    assert images.image_path(app.store, image_id=first.id).is_file()
    assert len(stored_files(app)) == 6


def stop_at(n: int) -> Callable[[], None]:
    left = iter(range(n))

    def check() -> None:
        if next(left, None) is None:
            raise Cancelled

    return check


def test_cancelling_keeps_what_is_finished_and_a_repeat_completes_it(
    app: App, project: int, tmp_path: Path
) -> None:
    for number in range(40):
        draw(tmp_path / "s" / f"{number:02}.png", number)
    with pytest.raises(Cancelled):
        import_folder(app, project_id=project, path=tmp_path / "s", check_cancelled=stop_at(30))
    kept = images.counts(app.store, project_id=project).images
    assert 0 < kept < 40
    assert len(stored_files(app)) == kept
    report = import_folder(app, project_id=project, path=tmp_path / "s")
    assert (report.imported, report.duplicates) == (40 - kept, kept)
    assert len(stored_files(app)) == 40


def test_what_a_killed_import_left_behind_is_removed(
    app: App, project: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 2**22 + 1)  # above every real process number
        dead = app.store.path("images", own_name(".part-"))
        unpacked = app.store.path("uploads", own_name("unzip-"))
    dead.write_bytes(b"half a picture")
    (unpacked / "x").mkdir(parents=True)
    alive = app.store.path("images", own_name(".part-"))
    alive.write_bytes(b"of an import that runs")
    import_folder(app, project_id=project, path=folder)
    path = make_zip(tmp_path / "a.zip", {"a.png": draw(tmp_path / "1.png", 77).read_bytes()})
    import_folder(app, project_id=project, path=path)
    assert not dead.exists()
    assert not unpacked.exists()
    assert alive.exists()


def test_progress_counts_to_the_end(app: App, project: int, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    import_folder(
        app,
        project_id=project,
        path=folder,
        progress=lambda done, total, _: seen.append((done, total)),
    )
    assert seen == [(n, 7) for n in range(1, 8)]


def test_the_window_of_deep_images_is_fixed_once_for_the_project(
    app: App, project: int, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        samples = rng.integers(0, 4000, (16, 16), dtype=np.uint16)
        tifffile.imwrite(tmp_path / "a" / f"{number}.tif", samples)
    report = import_folder(app, project_id=project, path=tmp_path / "a")
    assert "from 0 (black) to 4095 (white)" in report.notes[0]
    rule = images.reading_rule(app.store, project_id=project)
    assert rule.window("uint16") == (0, 4095)
    tifffile.imwrite(tmp_path / "b" / "x.tif", np.full((16, 16), 60000, np.uint16))
    later = import_folder(app, project_id=project, path=tmp_path / "b")
    assert later.notes == []
    assert images.reading_rule(app.store, project_id=project) == rule


def test_a_preview_tells_classes_and_groups_before_anything_is_read(app: App, folder: Path) -> None:
    found = preview_folder(app, path=folder, labels="folders", group_from=r"case_(\d)")
    assert found.n_files == 7
    assert found.folders == [("liver", 4), ("spleen", 3)]
    assert (found.n_groups, found.n_without_group) == (3, 1)
    assert ("liver/case_0_liver.png", "0") in found.groups


def test_uploads_keep_their_folders_and_cannot_leave_theirs(app: App) -> None:
    files = [
        ("liver/a?.png", b"1"),
        ("liver/a?.png", b"2"),
        ("../../etc/x.png", b"3"),
        ("nul", b"4"),
        (".. ./b.png", b"5"),
    ]
    folder = save_uploads(app, files=files)
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert found == ["b.png", "etc/x.png", "file", "liver/a_ (2).png", "liver/a_.png"]
    assert folder.parent == app.store.path("uploads")
    with pytest.raises(InvalidInputError, match="No file"):
        save_uploads(app, files=[])


def test_names_that_are_no_valid_text_are_imported(app: App, project: int, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    name = os.fsencode(source) + b"/bad_\xff.png"
    with open(name, "wb") as handle:  # noqa: PTH123 - the name is bytes
        handle.write(draw(tmp_path / "x.png", 5).read_bytes())
    draw(source / "good.png", 6)
    report = import_folder(app, project_id=project, path=source, link=True)
    assert report.imported == 1
    assert "cannot be linked" in report.skipped[0].reason
    assert import_folder(app, project_id=project, path=source).imported == 1


def test_a_label_that_no_class_can_have_stops_its_own_file_only(
    app: App, project: int, tmp_path: Path
) -> None:
    for folder in ("liver", "x" * 201):
        draw(tmp_path / "s" / folder / f"{folder[:5]}.png", len(folder))
    report = import_folder(app, project_id=project, path=tmp_path / "s", labels="folders")
    assert (report.imported, report.labelled) == (1, 1)
    assert "201 characters" in report.skipped[0].reason
    assert len(stored_files(app)) == 1


def test_the_odd_files_are_all_accounted_for(app: App, project: int, real_data: Path) -> None:
    folder = real_data / "problem-files"
    if not folder.is_dir():
        pytest.skip("no problem-files among the real images")
    report = import_folder(app, project_id=project, path=folder)
    assert report.found == 57 == report.imported + report.duplicates + len(report.skipped)
    assert report.duplicates == 0  # renamed copies are images of their own
    assert all(s.reason.endswith(".") for s in report.skipped)
    with app.store.reading() as session:
        rows = session.scalars(select(Image)).all()
        assert {row.file_name for row in rows} >= {"Gewebe_Übersicht_№3.tif", "mri.tif"}
        assert all(row.facts["format"] for row in rows)
