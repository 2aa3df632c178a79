"""The files behind the images: checked, found again after a move, watched as they appear."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image as PillowImage
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import file_check, images, projects, relinking, watching
from cnsapp.services.images import ImageFilter
from cnsapp.services.importing import import_folder
from cnsapp.tasks.watching import TRIES, Watcher
from db.models import Image, ImageEvent, Job
from tests.integration.test_importing import draw, names_and_labels, stored_files


@pytest.fixture
def project(app: App) -> int:
    return projects.create_project(app.store, name="p").id


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(4):
        draw(tmp_path / "s" / ("liver", "spleen")[number % 2] / f"{number}.png", number)
    return tmp_path / "s"


def status(app: App, project: int) -> dict[str, str]:
    with app.store.reading() as session:
        rows = session.execute(
            select(Image.file_name, Image.status).where(Image.project_id == project)
        )
        return {row.file_name: row.status for row in rows}


def events(app: App) -> list[tuple[str, str, str]]:
    with app.store.reading() as session:
        rows = session.execute(
            select(Image.file_name, ImageEvent.kind, ImageEvent.who)
            .join(Image, Image.id == ImageEvent.image_id)
            .order_by(ImageEvent.id)
        )
        return [(row.file_name, row.kind, row.who) for row in rows]


def test_where_a_file_was_found_is_kept_unless_that_place_goes_away(
    app: App, project: int, source: Path, tmp_path: Path
) -> None:
    import_folder(app, project_id=project, path=source)
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", source)
    other = projects.create_project(app.store, name="q").id
    import_folder(app, project_id=other, path=Path(archive))
    with app.store.reading() as session:
        for row in session.scalars(select(Image)):
            if row.project_id == project:
                assert row.source_path == str(source / row.file_name)
                assert row.source_mtime_ns == (source / row.file_name).stat().st_mtime_ns
            else:
                assert (row.source_path, row.source_mtime_ns) == (None, None)


def test_missing_and_changed_originals_are_marked_and_come_back_with_their_labels(
    app: App, project: int, source: Path
) -> None:
    import_folder(app, project_id=project, path=source, labels="folders", link=True)
    fine = file_check.check_files(app, project_id=project)
    assert (fine.checked, fine.ok, fine.hashed, fine.newly_marked) == (4, 4, 0, 0)
    content = (source / "liver/0.png").read_bytes()
    (source / "liver/0.png").unlink()
    draw(source / "spleen/1.png", 99)
    os.utime(source / "liver/2.png", ns=(1, 1))  # touched, not changed
    found = file_check.check_files(app, project_id=project, who="Ada")
    assert (found.ok, found.missing, found.changed, found.newly_marked) == (2, 1, 1, 2)
    assert status(app, project) == {
        "liver/0.png": "missing", "spleen/1.png": "changed",
        "liver/2.png": "ok", "spleen/3.png": "ok",
    }  # fmt: skip
    assert events(app) == [("liver/0.png", "missing", "Ada"), ("spleen/1.png", "changed", "Ada")]
    counted = images.counts(app.store, project_id=project)
    assert (counted.images, counted.labelled) == (2, 2)
    problems = file_check.list_problems(app.store, project_id=project)
    assert [(p.name, p.labelled) for p in problems] == [
        ("liver/0.png", True), ("spleen/1.png", True),
    ]  # fmt: skip
    assert "2 labelled images are left out" in (
        file_check.left_out(app.store, project_id=project) or ""
    )
    again = file_check.check_files(app, project_id=project)
    assert (again.newly_marked, again.hashed) == (0, 1)  # the touched file's new time is known
    (source / "liver/0.png").write_bytes(content)
    draw(source / "spleen/1.png", 1)
    back = file_check.check_files(app, project_id=project)
    assert (back.found, back.ok) == (2, 4)
    assert [kind for _, kind, _ in events(app)] == ["missing", "changed", "found", "found"]
    assert images.counts(app.store, project_id=project).labelled == 4
    assert names_and_labels(app, project)["liver/0.png"] == "liver"
    assert file_check.left_out(app.store, project_id=project) is None


def test_a_damaged_copy_of_the_same_size_is_found_by_a_full_check_and_mended_by_an_import(
    app: App, project: int, source: Path
) -> None:
    import_folder(app, project_id=project, path=source)
    first = images.list_images(app.store, project_id=project).items[0]
    copy = images.image_path(app.store, image_id=first.id)
    raw = bytearray(copy.read_bytes())
    raw[-20] ^= 0xFF
    copy.write_bytes(raw)
    assert file_check.check_files(app, project_id=project).changed == 0
    assert file_check.check_files(app, project_id=project, full=True).changed == 1
    assert file_check.check_files(app, project_id=project).changed == 1  # stays until it is right
    report = import_folder(app, project_id=project, path=source)
    assert (report.imported, report.duplicates) == (0, 4)
    assert set(status(app, project).values()) == {"ok"}
    assert copy.read_bytes() == (source / first.name).read_bytes()


def test_excluded_images_stay_excluded_whatever_their_files(
    app: App, project: int, source: Path
) -> None:
    import_folder(app, project_id=project, path=source, link=True)
    with app.store.writing() as session:
        session.execute(
            update(Image).where(Image.file_name == "liver/0.png").values(status="excluded")
        )
    shutil.rmtree(source)
    report = file_check.check_files(app, project_id=project)
    assert (report.missing, report.excluded) == (3, 1)
    assert status(app, project)["liver/0.png"] == "excluded"
    assert file_check.count_by_status(app.store, project_id=project) == {
        "missing": 3,
        "excluded": 1,
    }
    page = images.list_images(app.store, project_id=project, filter=ImageFilter(status="missing"))
    assert len(page.items) == 3


def test_moved_and_renamed_originals_are_found_by_their_content(
    app: App, project: int, source: Path, tmp_path: Path
) -> None:
    import_folder(app, project_id=project, path=source, labels="folders", link=True)
    (tmp_path / "new").mkdir()
    source.rename(tmp_path / "new" / "place")
    place = tmp_path / "new" / "place"
    (place / "liver/0.png").rename(place / "renamed #1 ä.png")
    (place / "spleen/1.png").unlink()
    draw(place / "decoy.png", 50)
    assert file_check.check_files(app, project_id=project).missing == 4
    report = relinking.relink(app, project_id=project, folder=tmp_path / "new", who="Ada")
    assert (report.lost, report.found, report.still_lost, report.looked_at) == (4, 3, 1, 4)
    assert status(app, project) == {
        "liver/0.png": "ok", "spleen/1.png": "missing",
        "liver/2.png": "ok", "spleen/3.png": "ok",
    }  # fmt: skip
    assert ("liver/0.png", "moved", "Ada") in events(app)
    by_name = {i.name: i.id for i in images.list_images(app.store, project_id=project).items}
    path = images.image_path(app.store, image_id=by_name["liver/0.png"])
    assert path == place / "renamed #1 ä.png"
    assert file_check.check_files(app, project_id=project).missing == 1
    assert relinking.relink(app, project_id=project, folder=tmp_path / "new").found == 0


def test_a_move_that_nobody_checked_is_found_too_and_roots_hold(
    app: App, project: int, source: Path, tmp_path: Path
) -> None:
    import_folder(app, project_id=project, path=source, link=True)
    source.rename(tmp_path / "moved")
    with pytest.raises(InvalidInputError, match="outside the folders"):
        relinking.relink(
            app, project_id=project, folder=tmp_path / "moved", allowed_roots=[tmp_path / "other"]
        )
    assert relinking.relink(app, project_id=project, folder=tmp_path / "moved").found == 4
    assert [kind for _, kind, _ in events(app)] == ["moved"] * 4


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def look(self, watcher: Watcher, seconds: float = 10.0) -> None:
        """Let time pass, then look."""
        self.at += timedelta(seconds=seconds)
        watcher.look()


def only(app: App, project: int) -> watching.WatchedView:
    (view,) = watching.list_watched(app.store, project_id=project)
    return view


def test_new_files_of_a_watched_folder_are_imported_and_half_written_ones_wait(
    app: App, project: int, source: Path
) -> None:
    watching.watch_folder(app, project_id=project, folder=source, labels="folders", annotator="Ada")
    clock = Clock()
    watcher = Watcher(app, clock)
    clock.look(watcher)
    assert status(app, project) == {}  # seen once
    assert only(app, project).n_waiting == 4
    clock.look(watcher)
    assert names_and_labels(app, project)["liver/0.png"] == "liver"
    assert (only(app, project).imported, only(app, project).n_waiting) == (4, 0)
    whole = draw(source.parent / "x.png", 7, side=200).read_bytes()
    target = source / "liver" / "new.png"
    target.write_bytes(whole[:100])
    clock.look(watcher)
    target.write_bytes(whole[:20_000])  # still growing
    clock.look(watcher)
    assert "liver/new.png" not in status(app, project)
    assert only(app, project).waiting[0].file == "liver/new.png"
    clock.look(watcher)  # it paused: unchanged for two looks, and not whole
    assert "liver/new.png" not in status(app, project)
    assert "cut off" in only(app, project).waiting[0].reason
    target.write_bytes(whole)
    clock.look(watcher)
    clock.look(watcher)
    assert status(app, project)["liver/new.png"] == "ok"
    assert only(app, project).imported == 5
    with app.store.reading() as session:
        assert session.scalar(select(Job.kind)) == "features"


def test_after_a_restart_nothing_is_imported_twice_or_read_again(
    app: App, project: int, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching.watch_folder(app, project_id=project, folder=source, link=True)
    clock = Clock()
    first = Watcher(app, clock)
    clock.look(first)
    clock.look(first)
    assert len(status(app, project)) == 4
    again = Watcher(app, clock)
    monkeypatch.setattr("cnsapp.tasks.watching.import_source", None)  # would fail if it were called
    clock.look(again)
    clock.look(again)
    assert (only(app, project).problem, only(app, project).n_waiting) == (None, 0)


def test_a_file_that_stays_unreadable_is_given_up_until_it_changes(
    app: App, project: int, source: Path
) -> None:
    (source / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    watching.watch_folder(app, project_id=project, folder=source)
    clock = Clock()
    watcher = Watcher(app, clock)
    for pause in (10, 10, *(10 * factor + 10 for factor in TRIES)):
        clock.look(watcher, pause)
    (waiting,) = only(app, project).waiting
    assert (waiting.file, waiting.given_up) == ("bad.png", True)
    clock.look(Watcher(app, clock), 86_400)  # also after a restart
    assert only(app, project).waiting[0].given_up
    draw(source / "bad.png", 5)
    clock.look(watcher)
    clock.look(watcher)
    assert status(app, project)["bad.png"] == "ok"


def test_a_watched_folder_that_is_gone_is_told_and_looked_for(
    app: App, project: int, source: Path
) -> None:
    watching.watch_folder(app, project_id=project, folder=source)
    clock = Clock()
    watcher = Watcher(app, clock)
    source.rename(source.parent / "away")
    clock.look(watcher)
    assert "no folder" in (only(app, project).problem or "")
    (source.parent / "away").rename(source)
    clock.look(watcher)
    clock.look(watcher)
    assert only(app, project).problem is None
    assert len(status(app, project)) == 4


def test_two_workers_do_not_look_at_once_and_a_stopped_watch_is_over(
    app: App, project: int, source: Path
) -> None:
    watching.watch_folder(app, project_id=project, folder=source)
    clock = Clock()
    one, two = Watcher(app, clock), Watcher(app, clock)
    clock.look(one)
    two.look()
    two.look()  # or it would have seen the files twice, and imported them
    assert status(app, project) == {}
    watching.stop_watching(app.store, project_id=project, folder=str(source))
    clock.look(one)
    assert status(app, project) == {}
    assert watching.list_watched(app.store, project_id=project) == []
    with pytest.raises(NotFoundError, match="not watched"):
        watching.stop_watching(app.store, project_id=project, folder="/nowhere")


def test_watching_stays_inside_the_allowed_roots(
    app: App, project: int, source: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.png"
    PillowImage.new("RGB", (9, 9)).save(outside)
    with pytest.raises(InvalidInputError, match="outside the folders"):
        watching.watch_folder(app, project_id=project, folder=tmp_path, allowed_roots=[source])
    (source / "link.png").symlink_to(outside)
    watching.watch_folder(app, project_id=project, folder=source, allowed_roots=[source])
    clock = Clock()
    watcher = Watcher(app, clock)
    clock.look(watcher)
    clock.look(watcher)
    assert len(status(app, project)) == 4
    assert "link.png" not in status(app, project)
    assert len(stored_files(app)) == 4
