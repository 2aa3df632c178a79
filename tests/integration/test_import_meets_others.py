"""An import meets what happens beside it: kills, other imports, new rules, watched folders."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture
from sqlalchemy import event, func, select

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, UnreadableImageError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.tiling import TileSettings
from cnsapp.jobs.running import run_here
from cnsapp.services import (
    exclusion,
    health,
    import_windows,
    import_work,
    jobs,
    metadata,
    projects,
    reading,
    watching,
)
from cnsapp.services.importing import import_folder, newest_rows
from cnsapp.services.slides import list_slides
from cnsapp.tasks.watching import Watcher
from db.models import Image, ImageEvent, Slide
from db.queries import add_to_tally
from db.types import utc_now
from tests import slides
from tests.integration.test_importing import draw

SMALL = TileSettings(tile_px=128)


def new_project(app: App, name: str) -> int:
    return projects.create_project(app.store, name=name).id


def rows_of(app: App, project: int) -> list[Image]:
    with app.store.reading() as session:
        rows = session.scalars(select(Image).where(Image.project_id == project).order_by(Image.id))
        found = list(rows)
        session.expunge_all()
        return found


def is_sound(app: App) -> bool:
    checks = {check.name: check.state for check in health.examine(app)}
    return {checks[name] for name in ("labels", "counts", "image files")} == {"ok"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return labelled pictures, twins, a broken file, a 16-bit file and two whole slides."""
    root = tmp_path / "source"
    for k in range(12):
        draw(root / ("liver", "Spleen")[k % 2] / f"{k}.png", k)
    (root / "liver" / "twin.png").write_bytes((root / "liver" / "0.png").read_bytes())
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    deep = np.linspace(0, 4000, 400).reshape(20, 20).astype(np.uint16)
    tifffile.imwrite(root / "deep.tif", deep)
    slides.write_ome(root / "liver" / "s1.ome.tif", slides.draw())
    (root / "lung").mkdir()
    slides.write_ome(root / "lung" / "s2.ome.tif", slides.draw(seed=1))
    return root


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("files", [0, 5, 14, 15, 16])
def test_an_import_that_goes_on_after_a_kill_reports_like_an_unbroken_one(
    app: App, source: Path, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says found = imported + duplicates + skipped, as if nobody had killed it."""
    monkeypatch.setattr(import_work, "CHUNK", 3)
    monkeypatch.setattr("cnsapp.services.slide_import.CHUNK", 8)
    asked: dict[str, Any] = {"path": source, "labels": "folders", "tiles": SMALL}
    whole = import_folder(app, project_id=new_project(app, "whole"), **asked).as_json()
    assert whole["found"] == 17
    assert whole["found"] == whole["imported"] + whole["duplicates"] + len(whole["skipped"])
    project = new_project(app, "killed")
    begun = newest_rows(app.store, project_id=project)

    def die(done: float, total: int, _name: str) -> None:
        if total and done > files:  # in a slide's midst, from 15 on
            raise Killed

    with pytest.raises(Killed):
        import_folder(app, project_id=project, progress=die, **asked)
    report = import_folder(app, project_id=project, begun=begun, **asked).as_json()
    notes, expected = report.pop("notes"), whole.pop("notes")
    assert report == whole
    assert [n.partition(" (white)")[0] for n in notes] == [
        n.partition(" (white)")[0] for n in expected
    ]
    again = import_folder(app, project_id=project, **asked)
    assert (again.imported, again.duplicates, again.labelled) == (0, 16, 0)
    assert is_sound(app)


def test_a_job_remembers_what_was_there_when_it_began(app: App, source: Path) -> None:
    """A job's first start notes it; each later start reads the note."""
    project = new_project(app, "p")
    payload = {"path": str(source), "tiles": SMALL.as_json()}
    job_id = jobs.submit_job(app.store, kind="import", project_id=project, payload=payload)
    run_here(app, job_id)
    result = jobs.get_job(app.store, job_id=job_id).result
    assert (result["found"], result["imported"], result["duplicates"]) == (17, 16, 0)


def test_two_imports_at_once_of_one_folder_bring_every_file_once(app: App, source: Path) -> None:
    project = new_project(app, "p")
    reports = []

    def bring() -> None:
        asked: dict[str, Any] = {"path": source, "labels": "folders", "tiles": SMALL}
        reports.append(import_folder(app, project_id=project, **asked))

    threads = [threading.Thread(target=bring) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    rows = rows_of(app, project)
    assert len({(row.file_name, row.sha256) for row in rows}) == len(rows)
    assert len(list_slides(app.store, project_id=project)) == 2
    files = [row for row in rows if row.slide_id is None]
    assert len(files) == 14
    for report in reports:
        assert report.found == report.imported + report.duplicates + len(report.skipped) == 17
    assert is_sound(app)
    assert not list(app.store.path("images").glob(".*"))


def test_images_that_a_new_rule_overtook_are_read_again(app: App, tmp_path: Path) -> None:
    """No job of this import tells the settings page that it runs: it is a command's."""
    for k in range(20):
        pixels = np.zeros((16, 16, 4), np.uint8)
        pixels[0, 0, 0] = k
        (tmp_path / "in").mkdir(exist_ok=True)
        Picture.fromarray(pixels).save(tmp_path / "in" / f"{k:02}.png")
    project = new_project(app, "p")
    black = ReadingRule(background="#000000")

    def change(done: float, total: int, _name: str) -> None:
        if total and done == 5:
            reading.apply_rule(app, project_id=project, rule=black)

    import_folder(app, project_id=project, path=tmp_path / "in", progress=change)
    (job,) = jobs.list_jobs(app.store, project_id=project, kinds=["reread"])
    run_here(app, job.id)
    assert {row.seen for row in rows_of(app, project)} == {black.seen({"alpha": True})}


def test_an_import_that_no_new_rule_overtook_queues_nothing(app: App, source: Path) -> None:
    project = new_project(app, "p")  # it fixes a window itself
    import_folder(app, project_id=project, path=source, tiles=SMALL)
    assert jobs.list_jobs(app.store, project_id=project, kinds=["reread"]) == []


def test_a_file_that_changes_before_its_window_is_measured_is_skipped(
    app: App, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise UnreadableImageError("The file is gone.")

    monkeypatch.setattr(import_windows, "read_sample_range", gone)
    report = import_folder(app, project_id=new_project(app, "p"), path=source, tiles=SMALL)
    reasons = {skipped.file: skipped.reason for skipped in report.skipped}
    assert set(reasons) == {"broken.jpg", "deep.tif"}
    assert "changed while" in reasons["deep.tif"]
    assert report.found == report.imported + report.duplicates + len(report.skipped)


# slides --------------------------------------------------------------------------------------


def test_a_watched_folder_leaves_slides_as_they_were_cut(
    app: App, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = new_project(app, "p")
    import_folder(app, project_id=project, path=source / "liver", tiles=SMALL)
    before = [row.id for row in rows_of(app, project)]
    watching.watch_folder(app, project_id=project, folder=source / "liver")
    at = utc_now()
    watcher = Watcher(app, lambda: at)
    for _ in range(3):
        at += timedelta(seconds=100)
        watcher.look()
    assert [row.id for row in rows_of(app, project)] == before
    assert {row.status for row in rows_of(app, project)} == {"ok"}
    slides.write_ome(source / "liver" / "s3.ome.tif", slides.draw(seed=3))
    for _ in range(3):
        at += timedelta(seconds=100)
        watcher.look()
    views = list_slides(app.store, project_id=project)
    assert [view.settings for view in views] == [SMALL, SMALL]  # a new one as the newest
    hashed: list[Path] = []
    monkeypatch.setattr("cnsapp.services.slide_import.hash_file", lambda path: hashed.append(path))
    again = Watcher(app, lambda: at)  # after a restart
    for _ in range(3):
        at += timedelta(seconds=100)
        again.look()
    assert hashed == []


def test_importing_again_without_a_word_on_tiles_keeps_how_slides_were_cut(
    app: App, source: Path
) -> None:
    project = new_project(app, "p")
    import_folder(app, project_id=project, path=source, tiles=SMALL)
    n = len(rows_of(app, project))
    report = import_folder(app, project_id=project, path=source)
    assert (report.imported, report.duplicates) == (0, 16)
    assert len(rows_of(app, project)) == n
    other = replace(SMALL, tile_px=64)
    assert import_folder(app, project_id=project, path=source, tiles=other).tiles > 0
    with app.store.reading() as session:
        cuts = [row.settings["cut"]["tile_px"] for row in session.scalars(select(Slide))]
    assert cuts == [64, 64]


# groups --------------------------------------------------------------------------------------


def test_a_table_that_changes_groups_says_so_for_every_image(
    app: App, source: Path, tmp_path: Path
) -> None:
    project = new_project(app, "p")
    import_folder(app, project_id=project, path=source / "Spleen", group_from=r"(\d)")
    (tmp_path / "m.csv").write_text("file,patient\n1.png,P1\n3.png,3\n5.png,P1\n")
    metadata.add_metadata(
        app.store, project_id=project, csv=tmp_path / "m.csv", group_from="patient", who="Ada"
    )
    with app.store.reading() as session:
        events = session.execute(
            select(Image.file_name, ImageEvent.kind, ImageEvent.who, ImageEvent.details)
            .join(Image, Image.id == ImageEvent.image_id)
            .order_by(Image.file_name)
        ).all()
    said = [(n, kind, who, d["from"], d["to"], d["table"]) for n, kind, who, d in events]
    assert said == [  # 3.png is in its group already
        ("1.png", "grouped", "Ada", "1", "P1", "m.csv"),
        ("5.png", "grouped", "Ada", "5", "P1", "m.csv"),
    ]


def test_a_wide_table_is_stored_in_short_transactions(app: App, tmp_path: Path) -> None:
    """60 columns for 500 images at once would make 30,000 rows, and a labeller wait for them."""
    project = new_project(app, "p")
    with app.store.writing() as session:
        session.add_all(
            Image(project_id=project, sha256=f"{k:064x}", file_name=f"{k}.png", width=8, height=8,
                  stored_path="x", n_bytes=1)
            for k in range(300)
        )  # fmt: skip
    head = ",".join(["file", *(f"c{k}" for k in range(60))])
    lines = [",".join([f"{k}.png", *["7"] * 60]) for k in range(300)]
    (tmp_path / "wide.csv").write_text("\n".join([head, *lines]))
    sizes: list[int] = []

    def count(_c: Any, _cursor: Any, statement: str, given: Any, _x: Any, many: bool) -> None:
        if statement.startswith("INSERT INTO image_meta"):
            sizes[-1] += len(given) if many else 1

    event.listen(app.store.engine, "begin", lambda _: sizes.append(0))
    event.listen(app.store.engine, "before_cursor_execute", count)
    metadata.add_metadata(app.store, project_id=project, csv=tmp_path / "wide.csv")
    assert sum(sizes) == 300 * 60
    assert max(sizes) <= 500


def test_cancelled_while_another_import_runs_it_takes_nothing_of_the_others(
    app: App, source: Path
) -> None:
    project = new_project(app, "p")
    started = threading.Event()

    def bring() -> None:
        started.wait(30)
        import_folder(app, project_id=project, path=source, tiles=SMALL)

    other = threading.Thread(target=bring)
    other.start()

    def stop() -> None:
        if started.is_set() and len(rows_of(app, project)) > 3:
            raise Cancelled
        started.set()
        time.sleep(0.01)

    try:
        import_folder(app, project_id=project, path=source, tiles=SMALL, check_cancelled=stop)
    except Cancelled:
        pass
    other.join()
    with app.store.reading() as session:
        n = session.scalar(select(func.count()).where(Image.project_id == project))
    assert n == len(rows_of(app, project)) > 14
    assert is_sound(app)


def test_many_images_are_excluded_and_brought_back_in_short_transactions(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who labels waits for 5,000 images at once, and all of them come back."""
    project = new_project(app, "p")
    with app.store.writing() as session:
        session.add_all(
            Image(project_id=project, sha256=f"{k:064x}", file_name=f"{k}.png", width=8, height=8,
                  stored_path="x", n_bytes=1)
            for k in range(900)
        )  # fmt: skip
        add_to_tally(session, project, {"images": 900})
    ids = [row.id for row in rows_of(app, project)]
    given: list[int] = []
    real = exclusion.set_status

    def counted(session: Any, project_id: int, image_ids: Any, *args: Any, **named: Any) -> Any:
        given.append(len(list(image_ids)))
        return real(session, project_id, image_ids, *args, **named)

    monkeypatch.setattr(exclusion, "set_status", counted)
    done = exclusion.exclude(app.store, project_id=project, image_ids=ids, who="Ada")
    assert {row.status for row in rows_of(app, project)} == {"excluded"}
    back = exclusion.undo(app.store, project_id=project, action=done.action, who="Ada")
    assert sorted(back.image_ids) == ids
    assert {row.status for row in rows_of(app, project)} == {"ok"}
    assert sum(given) == 1800 and max(given) <= 200
