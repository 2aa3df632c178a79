"""The same store on PostgreSQL: what a lab moves to when it outgrows one PC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import create_engine, text

from cnsapp.bootstrap import App, open_app
from cnsapp.imaging.tiling import TileSettings
from cnsapp.jobs.running import run_here
from cnsapp.services import (
    exclusion,
    file_check,
    health,
    images,
    jobs,
    metadata,
    projects,
    quality,
    reading,
    relinking,
    training,
    watching,
)
from cnsapp.services import quality_scan as scan
from cnsapp.services.exports import export_labels
from cnsapp.services.import_rows import Begun
from cnsapp.services.importing import import_folder
from cnsapp.services.slides import list_slides
from cnsapp.settings import Settings
from cnsapp.tasks.watching import Watcher
from db.models import Image
from db.queries import insert_new, read_tally
from db.types import utc_now
from tests import slides
from tests.browser.conftest import free_port
from tests.integration.test_importing import draw


def server_folder() -> Path | None:
    """Return the folder of the newest PostgreSQL server installed here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    named = shutil.which("initdb")
    return Path(named).parent if named else None


def as_other_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root, so a root test run lends it another user."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Start a server of our own on a free port; skip where PostgreSQL is not installed."""
    programs = server_folder()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="cns-pg-"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    port, data = free_port(), str(folder / "data")
    initdb = [str(programs / "initdb"), "-D", data, "-U", "lab", "-A", "trust", "-N"]
    subprocess.run(as_other_user(initdb), check=True, capture_output=True, cwd=folder)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [str(programs / "pg_ctl"), "-D", data, "-w", "-o", options, "-l", str(folder / "log")]
    subprocess.run(as_other_user([*control, "start"]), check=True, capture_output=True, cwd=folder)
    yield f"postgresql+psycopg://lab@127.0.0.1:{port}/postgres"
    stop = [*control, "-m", "immediate", "stop"]
    subprocess.run(as_other_user(stop), check=True, capture_output=True, cwd=folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def lab(postgres: str, tmp_path: Path) -> Iterator[App]:
    """Return an installation whose database is on the server."""
    app = open_app(Settings(home=tmp_path / "home", database_url=postgres, start_worker=False))
    yield app
    with app.store.engine.connect() as connection, connection.begin():
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    app.store.engine.dispose()


def image_rows(project_id: int, n: int) -> list[dict[str, object]]:
    return [
        {
            "project_id": project_id,
            "sha256": f"{i:064x}",
            "file_name": f"{i}.jpg",
            "width": 8,
            "height": 8,
            "stored_path": f"images/{i}.jpg",
            "n_bytes": 1,
        }
        for i in range(n)
    ]


def test_labels_are_counted_once_and_derived_by_the_same_rule(lab: App) -> None:
    from cnsapp.services import labels

    made = projects.create_project(lab.store, name="Organs", scheme="organ-systems")
    first, second, *_ = projects.list_classes(lab.store, project_id=made.id)
    with lab.store.writing() as session:
        unique = ["project_id", "sha256", "file_name"]
        assert insert_new(session, Image, image_rows(made.id, 6), unique) == 6
        assert insert_new(session, Image, image_rows(made.id, 8), unique) == 2
        ids = list(session.execute(text("SELECT id FROM image ORDER BY id")).scalars())
    base = {"client": "client-one", "source": "human", "action": "client-one:1"}
    acts = [(1, ids[0], first.id), (2, ids[0], second.id), (3, ids[1], first.id)]
    events: list[dict[str, Any]] = [
        {**base, "seq": seq, "image_id": image, "kind": "label", "class_id": said}
        for seq, image, said in acts
    ]
    for _again in range(2):
        labels.record_events(lab.store, project_id=made.id, annotator="Ada", events=events)
    target = {"client": "client-one", "seq": 2}
    undo = {**base, "seq": 4, "image_id": ids[0], "kind": "undo", "target": target}
    labels.record_events(lab.store, project_id=made.id, annotator="Ada", events=[undo])
    with lab.store.reading() as session:
        current = session.execute(text("SELECT image_id, class_id FROM current_label ORDER BY 1"))
        assert [tuple(row) for row in current] == [(ids[0], first.id), (ids[1], first.id)]
        counts = {key: n for key, n in read_tally(session, made.id).items() if n}
    assert counts == {"state:label": 2, f"class:{first.id}": 2}
    with lab.store.writing() as session:
        session.execute(text("UPDATE image SET group_key = 'P' || id % 3"))
    ready = training.readiness(lab.store, project_id=made.id)
    assert (ready.n_labelled, ready.n_groups) == (2, len({ids[0] % 3, ids[1] % 3}))
    assert images.group_names(lab.store, project_id=made.id) == ["P0", "P1", "P2"]


def test_quality_exclusion_metadata_and_slides_work_on_the_server(lab: App, tmp_path: Path) -> None:
    """Every statement of the newer services once, with odd values, against the real server."""
    for k in range(4):
        draw(tmp_path / "in" / "liver" / f"P{k}.png", k, side=64)
    draw(tmp_path / "in" / "spleen" / "P9.png", 0, side=64)  # the bytes of liver/P0.png
    draw(tmp_path / "in" / "spleen" / "🔬 'ä' 100 %.png", 9, side=64)
    clear = np.zeros((16, 16, 4), np.uint8)
    Picture.fromarray(clear).save(tmp_path / "in" / "clear.png")
    slides.write_ome(tmp_path / "in" / "s.ome.tif", slides.draw())
    (tmp_path / "m.csv").write_text(
        "file,stain,age,patient\nP1.png,HE,7,A\nP2.png,PAS,8.5,A\nP9.png,H&E,,B\n"
    )
    project = projects.create_project(lab.store, name="p").id
    asked: dict[str, Any] = {"path": tmp_path / "in", "labels": "folders"}
    tiles = TileSettings(tile_px=128)
    report = import_folder(lab, project_id=project, tiles=tiles, **asked)
    assert (report.found, report.imported, report.skipped, report.slides) == (8, 8, [], 1)
    begun = Begun(0, 0, 0)
    again = import_folder(lab, project_id=project, begun=begun, **asked)
    assert (again.imported, again.labelled, again.tiles) == (8, report.labelled, report.tiles)
    found = metadata.add_metadata(
        lab.store, project_id=project, csv=tmp_path / "m.csv", group_from="patient", who="Ada"
    )
    assert (found.images, found.grouped) == (3, 3)
    ages = metadata.list_keys(lab.store, project_id=project)
    assert next((key.name, key.low, key.high) for key in ages) == ("age", 7.0, 8.5)
    for meta, n in (
        ((("stain", "HE"),), 1),
        ((("age", 7.5, None),), 1),
        ((("age", None, 9.0),), 2),
    ):
        wanted = images.ImageFilter(meta=meta)
        assert len(images.list_images(lab.store, project_id=project, filter=wanted).items) == n

    ids = [i.id for i in images.list_images(lab.store, project_id=project, limit=500).items]
    rows = [
        scan.QualityRow(
            i, "", {"focus": 1.0, "empty": 0.0, "over": 0.0, "under": 0.0, "lightness": 50.0,
                    "green_red": 0.0, "blue_yellow": 0.0, "spread": 1.0}, None,
        )
        for i in ids
    ]  # fmt: skip
    scan.keep_measures(lab.store, project_id=project, rows=rows)
    assert scan.refresh(lab.store, project_id=project)["pairs"] == 1
    seen = quality.overview(lab.store, project_id=project)
    assert (seen.measured, seen.counts["exact"]) == (len(ids), 1)
    (pair,) = quality.list_pairs(lab.store, project_id=project, kind="exact")
    named = {"project_id": project, "pair": pair.ids, "who": "Ada"}
    grouped = quality.group_pair(lab.store, **named)
    assert exclusion.undo(lab.store, project_id=project, action=grouped.action, who="A").image_ids
    quality.set_apart(lab.store, **named)
    exclusion.undo(
        lab.store, project_id=project, action=quality.set_apart(lab.store, **named).action, who="A"
    )
    kept = quality.keep_one(lab.store, keep=pair.better, **named)
    assert quality.overview(lab.store, project_id=project).excluded == 1
    exclusion.undo(lab.store, project_id=project, action=kept.action, who="Ada")
    all_at_once = quality.resolve_all(lab.store, project_id=project, kind="exact", who="Ada")
    assert all_at_once.image_ids == []  # liver or spleen: a pair that needs an eye
    quality.keep_one(lab.store, keep=pair.better, **named)
    for kind in quality.KINDS[4:10]:
        quality.list_flagged(lab.store, project_id=project, kind=kind)
    quality.mark_fine(lab.store, project_id=project, kind="blurred", image_ids=ids, who="Ada")

    (view,) = list_slides(lab.store, project_id=project)
    assert (view.complete, view.n_tiles) == (True, report.tiles)
    checked = file_check.check_files(lab, project_id=project, full=True)
    assert (checked.missing, checked.changed, checked.excluded) == (0, 0, 1)
    assert file_check.count_by_status(lab.store, project_id=project) == {"excluded": 1}
    relinking.relink(lab, project_id=project, folder=tmp_path / "in")
    rule = reading.get_reading(lab.store, project_id=project).rule
    wish = replace(rule, background="#000000")
    assert reading.what_changes(lab, project_id=project, rule=wish).n_images == 1
    done = reading.apply_rule(lab, project_id=project, rule=wish)
    run_here(lab, done.job_id or 0)
    assert jobs.get_job(lab.store, job_id=done.job_id or 0).result["read"] == 1
    watching.watch_folder(lab, project_id=project, folder=tmp_path / "in", labels="folders")
    at = utc_now()
    watcher = Watcher(lab, lambda: at)
    for _ in range(3):
        at += timedelta(seconds=100)
        watcher.look()
    (watched,) = watching.list_watched(lab.store, project_id=project)
    assert (watched.problem, watched.n_waiting) == (None, 0)
    export_labels(lab, project_id=project, out=tmp_path / "out.csv")
    states = {check.name: check.state for check in health.examine(lab)}
    assert {states[name] for name in ("labels", "counts", "image files")} == {"ok"}


def test_opening_it_again_changes_nothing(lab: App) -> None:
    projects.create_project(lab.store, name="Organs", scheme="organ-systems")
    again = open_app(lab.settings)
    assert [p.name for p in projects.list_projects(again.store)] == ["Organs"]
    again.store.engine.dispose()


OPENER = """
import sys
from pathlib import Path
from cnsapp.bootstrap import open_app
from cnsapp.settings import Settings
home, url = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
open_app(Settings(home=Path(home), database_url=url, start_worker=False)).store.engine.dispose()
"""


def test_programs_that_find_an_empty_server_at_once_all_open_it(
    postgres: str, tmp_path: Path
) -> None:
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    for turn in range(2):
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE race{turn}"))
        url = postgres.rsplit("/", 1)[0] + f"/race{turn}"
        programs = [
            subprocess.Popen(
                [sys.executable, "-c", OPENER, str(tmp_path / f"home{turn}"), url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            for _ in range(4)
        ]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        said = [program.communicate(timeout=120)[1] for program in programs]
        assert [program.returncode for program in programs] == [0] * 4, said
    engine.dispose()
