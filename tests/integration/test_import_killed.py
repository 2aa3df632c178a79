"""Kill an import at random moments; the same import again leaves what an unbroken one leaves."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from sqlalchemy import select

from cnsapp.bootstrap import App, open_app
from cnsapp.imaging.journal import Journal, clean_orphans
from cnsapp.imaging.store import ImageFolder
from cnsapp.services import jobs, projects
from cnsapp.services.importing import import_folder
from cnsapp.services.tidying import tidy
from cnsapp.settings import Settings
from db.models import Image, ImageMeta, LabelClass, LabelEvent, Tally

KILLS = 4
N_FILES = 150


def draw_folder(folder: Path) -> Path:
    """Write labelled pictures, large enough for a display-size JPEG, and a table about them."""
    rows = ["file,stain,age"]
    for number in range(N_FILES):
        name = f"{('liver', 'spleen')[number % 2]}/{number:03}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(pixels).save(folder / name, compress_level=1)
        rows.append(f"{name},{'HE' if number % 3 else 'PAS'},{number}")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (folder / "twin.png").write_bytes((folder / "liver/000.png").read_bytes())
    (folder.parent / "meta.csv").write_text("\n".join(rows))
    return folder


def import_in_process(home: Path, source: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cnsapp", "import", str(source), "--project", "p"]
    command += ["--labels", "folders", "--metadata", str(source.parent / "meta.csv")]
    return subprocess.Popen(
        command,
        env=os.environ | {"CNS_HOME": str(home), "CNS_START_WORKER": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def files_of(home: Path) -> dict[str, int]:
    """Return every file of the store with its size; half files and journals would be among them.

    Without the worker's note on the kinds of files, which is there when it has had the time.
    """
    return {
        path.relative_to(home).as_posix(): path.stat().st_size
        for name in ("images", "thumbs", "uploads")
        for path in (home / name).rglob("*")
        if path.is_file() and path.parent.name != "kinds"
    }


def rows_of(app: App) -> list[object]:
    """Return what the database says of images, labels, metadata and counts, without its numbers."""
    with app.store.reading() as session:
        pictures = session.execute(
            select(Image.file_name, Image.sha256, Image.stored_path, Image.source_path,
                   Image.source_mtime_ns, Image.width, Image.current_state, LabelClass.name)
            .outerjoin(LabelClass, LabelClass.id == Image.current_class_id)
        ).all()  # fmt: skip
        events = session.execute(
            select(Image.file_name, LabelEvent.kind, LabelClass.name)
            .join(Image, Image.id == LabelEvent.image_id)
            .join(LabelClass, LabelClass.id == LabelEvent.class_id)
        ).all()
        meta = session.execute(
            select(Image.file_name, ImageMeta.key, ImageMeta.value, ImageMeta.number)
            .join(Image, Image.id == ImageMeta.image_id)
        ).all()  # fmt: skip
        names = dict(session.execute(select(LabelClass.id, LabelClass.name)).all())
        counts = [
            (names[int(key[6:])] if key.startswith("class:") else key, n)
            for key, n in session.execute(select(Tally.key, Tally.n))
        ]
    return [sorted(map(tuple, rows)) for rows in (pictures, events, meta, counts)]


def begun(home: Path, process: subprocess.Popen[bytes], before: int) -> None:
    """Wait until an import has put more into the store than there was, or has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if sum(1 for _ in (home / "images").rglob("*")) > before:
            return
        time.sleep(0.02)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, list[object], dict[str, int]]:
    """Return a folder, and the rows and files that an unbroken import of it leaves."""
    source = draw_folder(tmp_path / "source")
    app = open_app(Settings(home=tmp_path / "unbroken", start_worker=False))
    project = projects.create_project(app.store, name="p").id
    import_folder(
        app,
        project_id=project,
        path=source,
        labels="folders",
        metadata=str(tmp_path / "meta.csv"),
    )
    expected = rows_of(app), files_of(app.store.root)
    app.store.engine.dispose()
    return source, *expected


@pytest.mark.slow
def test_killed_again_and_again_an_import_ends_like_an_unbroken_one(
    app: App, home: Path, whole: tuple[Path, list[object], dict[str, int]]
) -> None:
    source, rows, files = whole
    assert len(files) == 3 * N_FILES  # original, thumbnail, display size; the twin shares them
    projects.create_project(app.store, name="p")
    random_moment = random.Random(4)
    killed = 0
    for _ in range(KILLS):
        before = sum(1 for _ in (home / "images").rglob("*"))
        process = import_in_process(home, source)
        begun(home, process, before)
        time.sleep(random_moment.uniform(0.0, 0.8))
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed  # or the test would show nothing
    assert import_in_process(home, source).wait() == 0
    assert rows_of(app) == rows
    assert files_of(home) == files


@pytest.mark.slow
def test_what_a_killed_import_left_goes_even_if_its_folder_is_gone(
    app: App, home: Path, whole: tuple[Path, list[object], dict[str, int]]
) -> None:
    source, _, _ = whole
    projects.create_project(app.store, name="p")
    process = import_in_process(home, source)
    begun(home, process, 3)
    process.kill()
    process.wait()
    with app.store.reading() as session:
        kept = set(session.scalars(select(Image.sha256)))
    time.sleep(2.0)  # its helpers notice and end
    tidy(app)
    left = files_of(home)
    assert {Path(name).name[:64] for name in left} == kept


@pytest.mark.slow
def test_an_import_job_whose_worker_is_killed_is_finished_by_the_next(
    app: App, home: Path, whole: tuple[Path, list[object], dict[str, int]]
) -> None:
    source, rows, files = whole
    project = projects.create_project(app.store, name="p").id
    job_id = jobs.submit_job(
        app.store,
        kind="import",
        project_id=project,
        payload={
            "path": str(source),
            "labels": "folders",
            "metadata": str(source.parent / "meta.csv"),
        },
    )
    command = [sys.executable, "-m", "cnsapp.jobs.worker", "--until-job", str(job_id)]
    env = os.environ | {"CNS_HOME": str(home), "CNS_START_WORKER": "false", "CNS_DEVICE": "cpu"}
    worker = subprocess.Popen(command, env=env)
    begun(home, worker, 3)
    time.sleep(0.3)
    worker.kill()
    worker.wait()
    assert jobs.get_job(app.store, job_id=job_id).state == "running"
    assert subprocess.run(command, env=env, timeout=300, check=False).returncode == 0
    assert jobs.get_job(app.store, job_id=job_id).state == "done"
    assert rows_of(app) == rows
    assert files_of(home) == files


def test_files_between_their_place_and_their_row_are_found_by_the_journal_alone(
    app: App, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ImageFolder(app.store.root)
    known, lost, strange = "a" * 64, "b" * 64, "c" * 64
    for sha256 in (known, lost, strange):
        for path in (home / folder.original_name(sha256, ".png"), folder.thumb_path(sha256, "x")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"picture")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 2**22 + 1)  # above every real process number
        dead = Journal(folder)
    dead.note(known)
    dead.note(lost)
    alive = Journal(folder)
    alive.note(strange)  # an import that runs now is about to write its row
    time.sleep(0.2)
    assert clean_orphans(folder, lambda shas: {known} & set(shas)) == 2
    names = {Path(name).name[:64] for name in files_of(home)}
    assert {known, strange} < names
    assert lost not in names
    alive.close(lambda _: set())
    assert [name for name in files_of(home) if strange in name or ".import-" in name] == []
