"""The folder of saliency maps: how much it may take, what goes, and what is never taken away."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp import http
from cnsapp.bootstrap import App
from cnsapp.services import explaining, map_files, map_room
from cnsapp.services.backups import make_backup
from cnsapp.services.jobs import cancel_job
from cnsapp.services.map_files import map_key, note_use, picture_path, read_facts, write_facts
from cnsapp.services.map_room import make_room, note_made
from cnsapp.services.tidying import tidy
from cnsapp.tasks.maps import as_levels, in_colour, save_whole
from db.models import Image, Model
from db.session import Store
from tests.integration.worlds import World, add_model, make_world

HOUR = 3600.0
VERSION = f"v{map_files.MAP_VERSION}-"


@pytest.fixture
def world(app: App) -> World:
    """Return six images and a model."""
    world = make_world(app, {"liver": 3, "lung": 3}, side=8)
    add_model(world, [(i, world.class_ids[0], world.class_ids[0], 0.9) for i in world.image_ids[0]])
    return world


@pytest.fixture
def model(world: World) -> str:
    """Return the checksum of the model."""
    with world.app.store.reading() as session:
        return session.query(Model).one().sha256


@pytest.fixture
def images(world: World) -> list[str]:
    """Return the checksums of the images."""
    with world.app.store.reading() as session:
        return [row.sha256 for row in session.query(Image).order_by(Image.id)]


def limited(app: App, most: int) -> App:
    return replace(app, settings=app.settings.model_copy(update={"max_map_cache_bytes": most}))


def folder(app: App) -> Path:
    return app.store.path("saliency")


def draw_map(app: App, key: str, *, hours: float = 0.0) -> str:
    """Write a map as the worker does, used last so many hours ago."""
    heat = np.random.default_rng(len(key)).random((14, 14)).astype(np.float32)
    levels = as_levels(heat, (64, 64))
    save_whole(levels, picture_path(app.store, key, "levels"))
    save_whole(in_colour(levels), picture_path(app.store, key))
    write_facts(app.store, key, {"model_sha256": "0" * 64, "method": "gradcam"})
    aged(app, key, hours)
    return key


def aged(app: App, key: str, hours: float) -> None:
    then = time.time() - HOUR * hours
    for ending in (*map_files.PICTURES.values(), ".json"):
        with suppress(FileNotFoundError):
            os.utime(folder(app) / (key + ending), (then, then))


def size_of(app: App) -> int:
    return sum(path.stat().st_size for path in folder(app).iterdir())


def names(app: App) -> set[str]:
    return {path.name for path in folder(app).iterdir()}


@contextmanager
def hours_later(hours: float) -> Iterator[None]:
    """Have the clock go forward; files keep the time at which they were written."""
    clock: Callable[[], float] = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: clock() + hours * HOUR)
        yield


def there(app: App, keys: list[str]) -> list[bool]:
    """Say which maps are there whole, without noting a use."""
    return [(folder(app) / f"{key}.json").exists() for key in keys]


def test_the_longest_unused_maps_make_room(app: App, model: str, images: list[str]) -> None:
    keys = [
        draw_map(app, map_key(model, sha, "gradcam", t), hours=2 + 3 * n + t)
        for n, sha in enumerate(images)
        for t in range(3)
    ]
    assert make_room(app) == 0  # 18 maps are far below the limit
    each = size_of(app) / 18
    assert map_files.read_facts(app.store, keys[17]) is not None  # the oldest is looked at
    small = limited(app, int(10 * each))
    n_gone = make_room(small)
    left = there(app, keys)
    assert left == [True] * (17 - n_gone) + [False] * n_gone + [True]
    assert 0.8 * 10 * each < size_of(app) <= 0.9 * 10 * each
    assert all(
        read_facts(app.store, key) is not None
        for key, is_there in zip(keys, left, strict=True)
        if is_there
    )
    assert len(names(app)) == 3 * sum(left)
    assert make_room(small) == 0


def test_what_was_used_within_the_hour_stays_also_above_the_limit(
    app: App, model: str, images: list[str]
) -> None:
    keys = [draw_map(app, map_key(model, sha, "gradcam", None), hours=0.5) for sha in images]
    assert make_room(limited(app, 1)) == 0 and all(there(app, keys))
    aged(app, keys[0], 2)
    aged(app, keys[1], 2)
    client = TestClient(Starlette(routes=http.routes(app)))
    assert client.get(f"/img/map/{keys[1]}-levels").status_code == 200  # the picture is a use too
    assert make_room(limited(app, 1)) == 1
    assert there(app, keys) == [False] + [True] * 5
    assert make_room(limited(app, 0)) == 0


def test_maps_of_what_is_gone_go_without_any_limit(app: App, model: str, images: list[str]) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    kept = draw_map(app, map_key(model, images[0], "gradcam", None), hours=50)
    gone = {
        "model": map_key(other, images[0], "gradcam", None),
        "image": map_key(model, other, "gradcam", None),
        "version": map_key(model, images[0], "gradcam", None).replace(VERSION, "v3-"),
        "named as before": "a" * 40,
    }
    for key in gone.values():
        draw_map(app, key, hours=2)
    young = draw_map(app, map_key(other, images[1], "gradcam", None), hours=-0.5)
    beside = {
        f"model-{model[:40]}-{VERSION}network.json": True,
        f"model-{model[:40]}-v3-network.json": False,
        f"model-{other[:40]}-{VERSION}random-gradcam.json": False,
    }
    for name in beside:
        (folder(app) / name).write_text("{}")
        os.utime(folder(app) / name, (0, 0))
    app.settings.max_map_cache_bytes = 0
    with hours_later(1.1):
        assert tidy(app) == len(gone) + 2
    assert there(app, list(gone.values())) == [False] * 4
    assert {name: (folder(app) / name).exists() for name in beside} == beside
    assert read_facts(app.store, kept) and read_facts(app.store, young)
    assert len(names(app)) == 2 * 3 + 1


def test_nothing_that_is_not_ours_is_touched(app: App, model: str, images: list[str]) -> None:
    key = map_key(model, images[0], "gradcam", None)
    draw_map(app, key, hours=100)
    outside = app.store.root / "outside.png"
    outside.write_bytes(b"mine")
    mine = [
        "figure.png", "notes.json", f"{key}-copy.png", f"{key}.png.bak", f"copy of {key}.png",
        f"{key.upper()}.json", ".hidden", ".figure.png.12.partial", "a" * 39 + ".png",
        f"model-{model}-{VERSION}network.json", "model-mine.json",
    ]  # fmt: skip
    for name in mine:
        (folder(app) / name).write_bytes(b"mine")
        os.utime(folder(app) / name, (0, 0))
    ours = "b" * 40
    (folder(app) / f"{ours}.png").symlink_to(outside)
    (folder(app) / f"{ours}.json").mkdir()
    (folder(app) / "old").mkdir()
    (folder(app) / "old" / f"{key}.png").write_bytes(b"mine")
    assert make_room(limited(app, 1)) == 1
    assert names(app) == {*mine, f"{ours}.png", f"{ours}.json", "old"}
    assert outside.read_bytes() == (folder(app) / "old" / f"{key}.png").read_bytes() == b"mine"


def test_maps_that_a_job_is_about_wait_for_it(app: App, world: World) -> None:
    ids = [i for part in world.image_ids for i in part]
    with app.store.reading() as session:
        model_id = session.query(Model).one().id
    one = explaining.request_map(app, model_id=model_id, image_id=ids[0])
    many = explaining.request_maps(app, model_id=model_id, image_ids=ids[:3])
    keys = [wish.key for wish in many.wishes]
    assert one.key == keys[0]
    for key in keys:
        draw_map(app, key, hours=30)
    assert make_room(limited(app, 1)) == 0
    cancel_job(app.store, job_id=many.job_id or 0)
    assert make_room(limited(app, 1)) == 2 and there(app, keys) == [True, False, False]
    cancel_job(app.store, job_id=one.job_id or 0)
    assert make_room(limited(app, 1)) == 1


def test_a_use_between_the_look_and_the_taking_is_seen(
    app: App, model: str, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader notes its use first, so that it is either told of no map or keeps the map."""
    keys = [draw_map(app, map_key(model, sha, "gradcam", None), hours=9) for sha in images[:2]]
    replace_file, told = os.replace, []

    def looked_at_before(source: Path, target: Path) -> None:
        if str(target).endswith(".going"):
            note_use(app.store, keys[0])
        replace_file(source, target)

    monkeypatch.setattr("cnsapp.services.map_room.os.replace", looked_at_before)
    assert make_room(limited(app, 1)) == 1 and there(app, keys) == [True, False]
    assert read_facts(app.store, keys[0]) is not None
    aged(app, keys[0], 9)

    def looked_at_behind(source: Path, target: Path) -> None:
        replace_file(source, target)
        told.append(read_facts(app.store, keys[0]))

    monkeypatch.setattr("cnsapp.services.map_room.os.replace", looked_at_behind)
    assert make_room(limited(app, 1)) == 1
    assert told == [None] and names(app) == set()


def test_readers_never_meet_half_a_map_while_room_is_made(
    app: App, model: str, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was told of a map gets its pictures, whole, although it was old a moment before."""
    monkeypatch.setattr(map_files, "TOUCHED", 0.0)
    keys = [map_key(model, sha, "gradcam", t) for sha in images for t in range(4)]
    client, small = TestClient(Starlette(routes=http.routes(app))), limited(app, 1)
    seen, failed, stop = [0], list[str](), threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            make_room(small)

    worker = threading.Thread(target=sweep)
    worker.start()
    try:
        for turn in range(2):
            for key in keys:
                draw_map(app, key)
            for key in keys:
                aged(app, key, 2)
                if read_facts(app.store, key) is None:
                    continue
                seen[0] += 1
                for name in (key, f"{key}-levels"):
                    answer = client.get(f"/img/map/{name}")
                    if answer.status_code != 200:
                        failed.append(f"{turn} {name}: {answer.status_code}")
                    else:
                        Picture.open(BytesIO(answer.content)).load()
    finally:
        stop.set()
        worker.join()
    assert not failed and seen[0] > 0


KILLED = """
import os, signal, sys
from pathlib import Path
from cnsapp.bootstrap import open_app
from cnsapp.services import map_room
from cnsapp.settings import Settings
app = open_app(Settings(home=Path(sys.argv[1]), start_worker=False, max_map_cache_bytes=1))
left = int(sys.argv[2])
def counted(step):
    def done(*args, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return step(*args, **named)
    return done
os.replace, Path.unlink = counted(os.replace), counted(Path.unlink)
map_room.make_room(app)
print("whole")
"""


def test_killed_between_any_two_steps_no_half_map_is_told_of_and_nothing_is_left(
    app: App, model: str, images: list[str]
) -> None:
    key, said, n = map_key(model, images[0], "gradcam", None), "", 0
    while "whole" not in said:
        assert n < 20
        draw_map(app, key, hours=3)
        ran = subprocess.run(
            [sys.executable, "-c", KILLED, str(app.store.root), str(n)],
            capture_output=True, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        said = ran.stdout
        assert ran.returncode == (0 if "whole" in said else -signal.SIGKILL), ran.stderr
        if read_facts(app.store, key) is None:
            assert not (folder(app) / f"{key}.json").exists()
        else:
            for kind in map_files.PICTURES:
                Picture.open(picture_path(app.store, key, kind)).load()
        aged(app, key, 5)
        with hours_later(1.1):
            make_room(limited(app, 1))
        assert names(app) == set()
        n += 1
    assert n == 4 + 1  # the facts aside, two pictures, the facts; and once unharmed


@pytest.mark.parametrize("lacking", ["png", "levels"])
def test_facts_of_pictures_that_are_gone_are_no_map(
    app: App, model: str, images: list[str], lacking: str
) -> None:
    """A check that ends behind a picture's removal notes no map that is not there."""
    key = draw_map(app, map_key(model, images[0], "gradcam", None))
    facts = read_facts(app.store, key)
    assert facts is not None
    picture_path(app.store, key, lacking).unlink()
    write_facts(app.store, key, facts | {"faithfulness": {}})
    assert read_facts(app.store, key) is None
    draw_map(app, key)
    assert read_facts(app.store, key) is not None


def test_half_written_files_go_after_an_hour(app: App, model: str, images: list[str]) -> None:
    key = map_key(model, images[0], "gradcam", None)
    half = [f".{key}.png.77.partial", f".{key}.json.77.going", f"{key}-levels.png"]
    for name in half:
        (folder(app) / name).write_bytes(b"half")
    assert make_room(app) == 0
    with hours_later(1.1):
        assert make_room(app) == 3 and names(app) == set()


def test_the_worker_looks_through_the_folder_when_it_has_written_much(
    app: App, model: str, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [draw_map(app, map_key(model, sha, "gradcam", None), hours=2) for sha in images]
    pictures = sum(
        picture_path(app.store, made[0], kind).stat().st_size for kind in map_files.PICTURES
    )
    sweeps, small = list[int](), limited(app, int(pictures * 2.5 / map_room.STEP))
    sweep = map_room._sweep

    def counted(store: Store, most: int) -> int:
        sweeps.append(most)
        return sweep(store, most)

    monkeypatch.setattr(map_room, "_sweep", counted)
    for _ in range(6):
        note_made(small, made[0])
    assert len(sweeps) == 2  # behind the third and the sixth
    for _ in range(9):
        note_made(limited(app, 0), made[0])
    assert len(sweeps) == 2
    note_made(limited(app, 1), made[0])
    assert not any(there(app, made))


def test_a_backup_holds_no_maps(app: App, model: str, images: list[str], tmp_path: Path) -> None:
    draw_map(app, map_key(model, images[0], "gradcam", None))
    made = make_backup(app, out=tmp_path / "b.zip")
    with zipfile.ZipFile(made.path) as archive:
        packed = archive.namelist()
    assert any(name.startswith("images/") for name in packed)
    assert not any("saliency" in name for name in packed)
